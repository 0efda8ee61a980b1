"""Webhooks: events, told to the merchant's own servers, at least once and in order for each subject.

feed.py turns events into deliveries, deliver.py sends them, posting.py is how one is sent, and addresses.py where to.
"""
