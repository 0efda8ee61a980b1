"""A member's wallet, and its live changes."""
