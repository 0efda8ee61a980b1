"""Points: one append-only ledger, purchases that earn, rewards that cost, and what the points are worth.

ledger.py       the only writer of entries and balances
expire_points.py, liability.py and one file per mutation
"""
