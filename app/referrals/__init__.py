"""Referrals: members invite people, and both earn when an invite converts, and only then.

conversion.py   the only writer of edges: what a join or a purchase converts, what a return takes back
disposable.py, mailboxes.py and flags.py   pure rules; one file per mutation, and expire_invites.py
"""
