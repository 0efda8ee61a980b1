"""The same work by other libraries and engines: `python -m bench.comparisons`, not part of `make bench`."""
