"""Rows, events, rings, leases and secrets."""
