"""Points, purchases and rewards."""
