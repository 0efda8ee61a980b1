"""How other libraries lay out the networks of S6: `python -m bench.comparisons`, apart from `make bench`."""
