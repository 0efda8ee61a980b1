"""The network graph."""
