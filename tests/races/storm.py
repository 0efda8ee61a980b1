"""Many calls at once, alternately to two API processes on one database."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from app import ids
from app.storage.database import Tx, database
from tests.conftest import Api
from tests.factories import Shop

T = TypeVar("T")

SECONDS_MAX = 30
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
#: Somebody who waits for somebody who waits for this transaction.
BEHIND_IT = """
SELECT FROM pg_locks other JOIN pg_locks first ON first.pid = ANY(pg_blocking_pids(other.pid))
WHERE NOT other.granted AND NOT first.granted AND pg_backend_pid() = ANY(pg_blocking_pids(first.pid))
"""
LOCK_WALLET = "SELECT FROM wallet WHERE merchant_id = $1 AND member_id = $2 FOR UPDATE"

ENROL = """
WITH m AS (
    INSERT INTO member (merchant_id, id, external_id, email_verified, source, joined_at)
    SELECT $1, id, id::text, false, 'IMPORT', now() FROM unnest($2::uuid[]) AS id RETURNING merchant_id, id
), named AS (
    INSERT INTO external_id (merchant_id, member_id, source, external_id)
    SELECT $1, id, 'IMPORT', id::text FROM unnest($2::uuid[]) AS id
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
    SELECT merchant_id, gen_random_uuid(), 'member.enrolled', 'member', id, 'system', now() FROM m
)
INSERT INTO wallet (merchant_id, member_id, version) SELECT merchant_id, id, 0 FROM m
"""


class Processes:
    """Sends each call to the next API process."""

    def __init__(self, shop: Shop, *apis: Api) -> None:
        """Take the merchant and the processes."""
        self.shop = shop
        self._urls = itertools.cycle([f"{api.url}/graphql" for api in apis])

    def do(self, document: str, **input: Any) -> Awaitable[Any]:
        """Return a call on its way to the next process."""
        return self.shop.do(document, url=next(self._urls), **input)


async def at_once(calls: Iterable[Awaitable[T]], *, most: int = 100) -> list[T]:
    """Await all calls, up to `most` at the same time, and return their answers in order."""
    room = asyncio.Semaphore(most)

    async def enter(call: Awaitable[T]) -> T:
        async with room:
            return await call

    return await asyncio.gather(*(enter(call) for call in calls))


async def members(shop: Shop, count: int) -> list[str]:
    """Enrol many members in one statement, and return their ids."""
    new = [ids.new() for _ in range(count)]
    await database().rows(ENROL, shop.merchant_id, new)
    return [ids.encode("member", each) for each in new]


def kinds(answers: Iterable[Any]) -> dict[str, int]:
    """Count answers by type."""
    counted: dict[str, int] = {}
    for answer in answers:
        counted[answer["__typename"]] = counted.get(answer["__typename"], 0) + 1
    return counted


async def until_somebody_waits(tx: Tx, waiting: str = WAITING) -> None:
    """Wait until another transaction waits for a lock of this one, or whatever else a statement finds."""
    deadline = time.monotonic() + SECONDS_MAX
    while not await tx.rows(waiting):
        assert time.monotonic() < deadline, "nobody waits"
        await asyncio.sleep(0.01)
