"""Where webhooks may lead: URLs that say what they mean, and addresses of the public internet after resolution.

A name is resolved by whoever connects, right before it does, and what was judged is what is connected to: a name that
leads elsewhere a moment later (DNS rebinding) leads nowhere.
"""

import asyncio
import concurrent.futures
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final
from urllib.parse import urlsplit

URL_LENGTH_MAX: Final = 500
#: How many of a name's addresses are tried.
ADDRESSES_MAX: Final = 4

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
#: A name whose last label begins with a digit may be a number to whoever resolves it: 0x7f.1, 2130706433.
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
_NO_HOST: Final = "must name a host and perhaps a port, like https://shop.example/hooks"
_PORTS: Final = {"http": 80, "https": 443}

#: Protocol assignments, 6to4 and its anycast, and what is for documentation: some versions of Python call them global.
_REFUSED: Final = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")))
#: What IPv6 gives out for the internet (RFC 4291); all else is local, reserved, or an IPv4 address in disguise.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
#: IPv4 addresses as networks without IPv4 see them (RFC 6052).
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")

#: So many names are looked up at once: each blocks a thread for as long as its owner's servers like.
_room = threading.Semaphore(256)
_ROOM_SECONDS: Final = 0.05


class AddressRefusedError(Exception):
    """A host is, or leads to, an address that webhooks may not lead to."""


class HostUnknownError(Exception):
    """A host has no address."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart: `authority` is what the Host header says."""

    is_encrypted: bool
    host: str
    port: int
    authority: str
    path: str


def read_url(url: str, *, plain: bool) -> Target:
    """Take a URL apart. `plain` says whether http is allowed. Raises ValueError with what it must be or do."""
    if len(url) > URL_LENGTH_MAX:
        raise ValueError(f"must be at most {URL_LENGTH_MAX} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise ValueError("must be a URL in ASCII, without spaces and backslashes")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise ValueError(_NO_HOST) from None
    if parts.scheme not in _PORTS or (parts.scheme == "http" and not plain):
        raise ValueError(f"must begin with https://{' or http://' if plain else ''}")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password")
    if "#" in url:
        raise ValueError("must not contain a fragment")
    authority = f"{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}"
    if port == 0 or not _is_host(host) or parts.netloc.lower() != authority:
        raise ValueError(_NO_HOST)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    return Target(parts.scheme == "https", host, port or _PORTS[parts.scheme], authority, path)


def _is_host(host: str) -> bool:
    """Whether this is a name, or an address in the one spelling that everybody reads alike."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None
    return isinstance(address, IPv4Address) or address.scope_id is None


def is_allowed(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether webhooks may lead to an address: a public one, or one of these networks."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _TRANSLATED:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_allowed(inner, networks)
    if any(address in network for network in networks):
        return True
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _REFUSED)


def look_up(host: str, port: int) -> list[str]:
    """Return a host's addresses. Blocks; raises OSError when there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _looked_up(host: str, port: int) -> list[str]:
    """Look a name up on a thread that nobody waits for: neither who has no time left, nor a process that ends.

    Raises OSError or UnicodeError.
    """
    room, answer = _room, concurrent.futures.Future[list[str]]()
    while not room.acquire(blocking=False):  # noqa: ASYNC110  (threads give it back, not tasks)
        await asyncio.sleep(_ROOM_SECONDS)
    answer.set_running_or_notify_cancel()

    def work() -> None:
        try:
            answer.set_result(look_up(host, port))
        except BaseException as error:  # noqa: BLE001  (it is raised where it is waited for)
            answer.set_exception(error)
        finally:
            room.release()

    threading.Thread(target=work, name="lookup", daemon=True).start()
    return await asyncio.wrap_future(answer)


async def resolve(target: Target, networks: tuple[Network, ...]) -> list[str]:
    """Return the addresses to connect to, at most ADDRESSES_MAX. The caller sets the time that this may take.

    Raises HostUnknownError, or AddressRefusedError when even one of them isn't allowed: who mixes them means no good.
    """
    try:
        found = await _looked_up(target.host, target.port)
    except (OSError, UnicodeError):
        raise HostUnknownError(target.host) from None
    if not found:
        raise HostUnknownError(target.host)
    if not all(is_allowed(ipaddress.ip_address(address), networks) for address in found):
        raise AddressRefusedError(target.host)
    return found[:ADDRESSES_MAX]
