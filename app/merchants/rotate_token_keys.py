"""Rotating token keys: new ones sign member tokens, and what older ones signed is honoured until it has ended."""

import asyncio
from typing import Final
from uuid import UUID

from app.merchants.data_keys import HONOURED_SECONDS, SETTLING_SECONDS, next_key
from app.merchants.reencrypt import DRAINING_SECONDS
from app.storage.database import database
from app.storage.statements import NoRow, statement

# Those that are older than one that has been there for so long.
FORGET: Final = statement(
    NoRow,
    """
DELETE FROM data_key k WHERE k.merchant_id = :merchant_id AND k.purpose = 'TOKEN' AND EXISTS (
    SELECT FROM data_key newer
    WHERE newer.merchant_id = :merchant_id AND newer.purpose = 'TOKEN' AND newer.version > k.version
        AND newer.created_at <= now() - make_interval(secs => :seconds)
)
""",
)
ADOPT: Final = statement(
    NoRow,
    """
UPDATE data_key SET adopted_at = clock_timestamp()
WHERE merchant_id = ANY(:merchant_ids::uuid[]) AND purpose = 'TOKEN' AND adopted_at IS NULL
""",
)


async def rotate_token_keys(merchants: list[UUID], *, at_once: bool) -> None:
    """Make the next token key of each merchant, and forget those that nothing can stand under any more.

    `at_once` waits until every process signs with the new keys, and forgets all others. Safe to run again, at once, and
    to kill: keys are adopted all together at the end, and a run goes on with those that aren't.
    """
    for each in merchants:
        await next_key(each, "TOKEN")
    if at_once:
        await asyncio.sleep(SETTLING_SECONDS + DRAINING_SECONDS)
    for each in merchants:
        await database().row(FORGET, merchant_id=each, seconds=0.0 if at_once else HONOURED_SECONDS)
    await database().row(ADOPT, merchant_ids=merchants)
