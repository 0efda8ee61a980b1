"""Measurements, side by side in one run: trust the ratios and the counts, not the milliseconds."""
