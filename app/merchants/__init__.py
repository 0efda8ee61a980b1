"""Merchants (the tenants), their API keys and their data keys."""
