"""Node ids: `pool_` and 32 hex digits, so that an id says what it names and has exactly one spelling.

They are asyncpg's UUIDs, as the ids in rows are: a `uuid.UUID` whose methods are written in C.
"""

import re
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as PostgresUUID  # noqa: N811
from uuid_utils import uuid7

Kind = Literal[
    "advicerun", "apikey", "batch", "campaign", "code", "entry", "event", "graph", "graphjob", "hold", "invite", "job",
    "member", "merchant", "order", "pool", "purchase", "redemption", "referral", "refund", "reward",
    "rewardredemption", "suggestion", "wallet", "webhook", "webhookdelivery",
]  # fmt: skip

_DIGITS: Final = re.compile("[0-9a-f]{32}")


def new() -> UUID:
    """Return a UUIDv7: ordered by creation time, so it is also the order of every list."""
    return PostgresUUID(uuid7().bytes)


def first_at(instant: datetime) -> UUID:
    """Return what all ids that are made at or after an instant are at least (UUIDv7: milliseconds first, RFC 9562)."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def encode(kind: Kind, value: UUID) -> str:
    """Return the outside spelling of a row's id."""
    return f"{kind}_{value.hex}"


def decode(kind: Kind, text: str) -> UUID | None:
    """Return the row id that `text` spells, or None if it names nothing of this kind."""
    prefix, _, digits = text.partition("_")
    if prefix != kind or _DIGITS.fullmatch(digits) is None:
        return None
    return PostgresUUID(digits)


def kind_of(text: str) -> str:
    """Return what an id claims to name; the claim is checked by `decode`."""
    return text.partition("_")[0]
