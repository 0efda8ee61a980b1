"""Purchases and what becomes of them."""
