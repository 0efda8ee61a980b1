"""Measurements, compared within one run: trust the ratios and the counts, not the milliseconds."""
