"""Points: one append-only ledger of lots, purchases that earn, rewards that cost, and what the points are worth.

ledger.py       credits, each of which makes a lot, and debits, which take from lots
moves.py        entries that change lots by name
take_back.py give_back.py
                what returns take, and what comes back; returns.py is the rule of where it goes
mature_points.py expire_points.py
                what time does to lots, by sweeps
liability.py and one file per mutation
"""
