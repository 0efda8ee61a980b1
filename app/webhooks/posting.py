"""Posting to an endpoint that may do anything: one request, no redirect, and no more of the answer than its status.

HTTP/1.1 by hand, because clients resolve names themselves, follow, retry, read proxies from the environment and keep
connections; here what is connected to is an address that was judged, under the name that the certificate must have.
"""

import asyncio
import contextlib
import math
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from typing import Final

import httptools
import strawberry

from app.api.scalars import described
from app.webhooks.addresses import AddressRefusedError, HostUnknownError, Network, Target, resolve

#: What is read of an answer, head and body; what is longer is over then.
ANSWER_BYTES_MAX: Final = 65_536
CONNECT_SECONDS_MAX: Final = 5.0
_READ_BYTES: Final = 16_384
_FINAL: Final = 200


@strawberry.enum(description="Why an attempt to deliver failed.")
class WebhookFailure(Enum):
    """What went wrong; nothing that the endpoint said but its status is kept."""

    STATUS = described("STATUS", "The endpoint answered with another status than 2xx; redirects are not followed.")
    HOST_UNKNOWN = described("HOST_UNKNOWN", "The host of the URL has no address.")
    ADDRESS_REFUSED = described("ADDRESS_REFUSED", "The host leads to a private, local or reserved address.")
    CONNECTION_FAILED = described("CONNECTION_FAILED", "Nothing could be connected to.")
    TLS_FAILED = described("TLS_FAILED", "There is no valid certificate for the host, or no common version of TLS.")
    TIMED_OUT = described("TIMED_OUT", "There was no whole answer in time.")
    ANSWER_BROKEN = described("ANSWER_BROKEN", "The answer broke off, or is no HTTP.")
    NOT_SENT = described("NOT_SENT", "The engine itself failed; its log says why.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: a status, or why there is none. `retry_after` is in seconds, where it was asked for."""

    status: int | None = None
    failure: WebhookFailure | None = None
    retry_after: float | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the endpoint took the event."""
        return self.failure is None


async def post(
    target: Target, headers: dict[str, str], body: bytes, *, networks: tuple[Network, ...], seconds_max: float
) -> Outcome:
    """Post a body, and return what came of it. Raises nothing that an endpoint could cause."""
    try:
        async with asyncio.timeout(seconds_max):
            return await _exchange(target, await resolve(target, networks), headers, body)
    except TimeoutError:
        return Outcome(failure=WebhookFailure.TIMED_OUT)
    except HostUnknownError:
        return Outcome(failure=WebhookFailure.HOST_UNKNOWN)
    except AddressRefusedError:
        return Outcome(failure=WebhookFailure.ADDRESS_REFUSED)


async def _exchange(target: Target, addresses: list[str], headers: dict[str, str], body: bytes) -> Outcome:
    try:
        reader, writer = await _connect(target, addresses)
    except ssl.SSLError:
        return Outcome(failure=WebhookFailure.TLS_FAILED)
    except OSError:
        return Outcome(failure=WebhookFailure.CONNECTION_FAILED)
    try:
        writer.write(_request(target, headers, body))
        return await _answer(reader)
    except (OSError, httptools.HttpParserError):
        return Outcome(failure=WebhookFailure.ANSWER_BROKEN)
    finally:
        # No farewell: who doesn't take it would be waited for.
        writer.transport.abort()


async def _connect(target: Target, addresses: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers. Raises what the last one raised."""
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return await _open(target, address)
    return await _open(target, last)


async def _open(target: Target, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            if not target.is_encrypted:
                return await asyncio.open_connection(address, target.port)
            return await asyncio.open_connection(address, target.port, ssl=certificates(), server_hostname=target.host)
    except TimeoutError:
        # Not this function's caller's time is over, but that of one address.
        raise ConnectionError("no connection in time") from None


@lru_cache(maxsize=1)
def certificates() -> ssl.SSLContext:
    """Return how endpoints are known: by the certificates that the operating system trusts."""
    return ssl.create_default_context()


def _request(target: Target, headers: dict[str, str], body: bytes) -> bytes:
    fields = {
        "host": target.authority,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "user-agent": "Flash-Webhooks",
        "accept": "*/*",
        "connection": "close",
    } | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


class _Answer:
    """What httptools tells of an answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.retry_after: float | None = None
        self.ends_with_connection = True
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"retry-after":
                self.retry_after = _seconds(value.decode("latin-1"))
            case b"content-length" | b"transfer-encoding":
                self.ends_with_connection = False

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= _FINAL:
            self.status = status

    def on_message_complete(self) -> None:
        # A status below 200 comes before the answer.
        self.is_whole = self.status is not None


async def _answer(reader: asyncio.StreamReader) -> Outcome:
    """Read an answer to its end, or as much of it as is read of any. Raises HttpParserError for what is none."""
    answer, size = _Answer(), 0
    while not answer.is_whole and size < ANSWER_BYTES_MAX:
        data = await reader.read(_READ_BYTES)
        if not data:
            answer.is_whole = answer.ends_with_connection
            break
        size += len(data)
        answer.parser.feed_data(data)
    if answer.status is None or not (answer.is_whole or size >= ANSWER_BYTES_MAX):
        return Outcome(failure=WebhookFailure.ANSWER_BROKEN)
    failure = None if 200 <= answer.status < 300 else WebhookFailure.STATUS
    return Outcome(answer.status, failure, answer.retry_after)


def _seconds(retry_after: str) -> float | None:
    """Return how long to wait: the header says seconds, or an instant (RFC 9110, 10.2.3)."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
