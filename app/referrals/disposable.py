"""Addresses to be thrown away: whether a domain, or one that it is part of, is known to give such addresses to anybody.

The list is a package, made from the public list of the same name and released with every change of it.
"""

from typing import Final

from disposable_email_domains import allowlist, blocklist

from app.members.mailboxes import in_dns

_LISTED: Final[frozenset[str]] = frozenset(blocklist) - frozenset(allowlist)


def is_disposable(address: str) -> bool:
    """Whether a normalised address is one to be thrown away."""
    labels = in_dns(address.rpartition("@")[2]).split(".")
    return any(".".join(labels[start:]) in _LISTED for start in range(len(labels) - 1))
