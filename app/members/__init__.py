"""Members, their wallets and their tokens."""
