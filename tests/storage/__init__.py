"""Migrations, secrets and rings."""
