"""The promises, recomputed."""
