"""Merchants that stand on different PostgreSQL servers."""
