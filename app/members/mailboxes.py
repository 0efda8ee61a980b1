"""Which addresses are one mailbox: pure rules, for finding one person behind several spellings."""

from functools import lru_cache
from typing import Final

from app.storage.crypto import MerchantKeys

#: Providers that ignore dots before the @, each by the name that its mailboxes go by.
_IGNORES_DOTS: Final = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}
#: Where everybody may have an address: many invites to one of these say nothing.
_PUBLIC: Final = frozenset({
    "aol.com", "fastmail.com", "gmail.com", "gmx.at", "gmx.de", "gmx.net", "googlemail.com", "hotmail.co.uk",
    "hotmail.com", "hotmail.fr", "icloud.com", "laposte.net", "libero.it", "live.com", "mac.com", "mail.com",
    "mail.ru", "me.com", "msn.com", "naver.com", "orange.fr", "outlook.com", "outlook.de", "pm.me", "proton.me",
    "protonmail.com", "qq.com", "t-online.de", "web.de", "yahoo.co.jp", "yahoo.co.uk", "yahoo.com", "yahoo.de",
    "yahoo.fr", "yandex.ru", "ymail.com", "126.com", "163.com",
})  # fmt: skip


def mailbox(address: str) -> str:
    """Return the mailbox of a normalised address: what follows a + is left out, and dots where the provider does.

    A domain has one spelling, that of the DNS (RFC 3490). Providers with other rules are not guessed at.
    """
    local, _, written = address.rpartition("@")
    domain = in_dns(written)
    local = local.partition("+")[0] or local
    if domain in _IGNORES_DOTS:
        local = local.replace(".", "") or local
    return f"{local}@{_IGNORES_DOTS.get(domain, domain)}"


def mailbox_index(keys: MerchantKeys, address: str) -> bytes:
    """Return the blind index that all spellings of an address' mailbox share. It is no address' index."""
    return keys.email_index(f"mailbox\0{mailbox(address)}")


def telling_domain(address: str) -> str | None:
    """Return the domain of a normalised address, or None where it is a public provider's."""
    domain = in_dns(address.rpartition("@")[2])
    return None if domain in _PUBLIC else domain


@lru_cache(maxsize=1_000)
def in_dns(domain: str) -> str:
    """Return a domain as the DNS spells it, or as it is where it can't be spelt. Foreign letters take up to 3 ms."""
    try:
        return domain.encode("idna").decode()
    except UnicodeError:
        return domain
