"""The replay of a real year."""
