"""Layouts of the networks of S6 by other libraries: `python -m bench.comparisons`, not part of `make bench`."""
