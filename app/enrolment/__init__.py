"""Becoming a member: the record, its wallet, and the codes that waited for the address."""
