"""What the runs of this folder share: how many cases, and what holds of every answer whatever was sent."""

import asyncio
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.factories import Shop

#: Documents, and a twelfth of the hostile values: 2,000 with `make conformance`, a sample otherwise.
CASES: Final = int(os.environ.get("FLASH_CONFORMANCE_CASES", "50"))
_AT_ONCE: Final = 8
#: Words of the driver, the database, the language and the libraries, that no answer may hold.
_LEAKS: Final = (
    "Traceback", "asyncpg", "psycopg", "tortoise", "strawberry", "starlette", ".py", "SELECT ", "INSERT ", "UPDATE ",
    "relation ", "column ", "constraint", "syntax error at", "NoneType", "KeyError", "0x7f",
)  # fmt: skip
_FAULTS: Final = {"INTERNAL_SERVER_ERROR", "TIMEOUT", "UNAVAILABLE"}


@pytest.fixture
def seed() -> int:
    """Print the seed of a run, which FLASH_CONFORMANCE_SEED repeats."""
    chosen = int(os.environ.get("FLASH_CONFORMANCE_SEED", random.randrange(2**32)))
    print(f"FLASH_CONFORMANCE_SEED={chosen}")
    return chosen


def body_of(document: str, variables: dict[str, Any] | None = None) -> bytes:
    """Return a request's body; what isn't Unicode is escaped, as JSON allows."""
    return json.dumps({"query": document, "variables": variables or {}}).encode()


async def refuted(shop: Shop, bodies: Iterable[bytes], *, key: str | None = None) -> list[str]:
    """Send every body and return what contradicts that answers are well-formed, whatever was sent."""
    found: list[str] = []
    gate = asyncio.Semaphore(_AT_ONCE)
    headers = {"authorization": f"Bearer {key or shop.admin}", "content-type": "application/json"}

    async def send(body: bytes) -> None:
        async with gate:
            response = await shop.http.post(shop.url, content=body, headers=headers)
        found.extend(f"{wrong}: {body!r} → {response.text[:300]}" for wrong in _wrong(response))

    await asyncio.gather(*(send(body) for body in bodies))
    return found


def _wrong(response: httpx.Response) -> list[str]:
    if response.status_code not in {200, 400}:
        return [f"status {response.status_code}"]
    answer = response.json()
    errors = answer.get("errors", [])
    codes = [error.get("extensions", {}).get("code") for error in errors]
    wrong = [f"leaks {word!r}" for word in _LEAKS if word in json.dumps(errors)]
    if None in codes:
        wrong.append("an error without a code")
    if _FAULTS & set(codes):
        wrong.append("a fault")
    if "data" not in answer and not errors:
        wrong.append("no answer")
    return wrong


class Log:
    """The log of an API process from here on: a line at most for each request, and none that is long."""

    def __init__(self, path: Path) -> None:
        """Begin at its end."""
        self._path = path
        self._begin = len(path.read_bytes())

    def lines(self) -> list[str]:
        """Return what was written since."""
        return self._path.read_bytes()[self._begin :].decode().splitlines()

    def is_small(self, requests: int) -> bool:
        """Whether it holds a short line at most per request."""
        return len(self.lines()) <= requests and all(len(line) <= 200 for line in self.lines())
