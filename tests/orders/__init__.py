"""Purchases and their reversal."""
