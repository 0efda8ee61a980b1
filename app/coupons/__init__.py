"""Pools of encrypted codes: one file per mutation, pure rules in rules.py and code_text.py."""
