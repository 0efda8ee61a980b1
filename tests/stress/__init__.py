"""`flash stress`."""
