"""Made-up networks: forests that grow as members refer each other, and their rows stored in bulk."""

import random
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from app.graph.network import Edge
from app.storage.database import transaction

#: A third of the members had no referrer; half of the others were referred by somebody who refers a lot already.
_ROOTS: Final = 0.33
_PREFERENCE: Final = 0.5
_CHUNK: Final = 10_000
_BEGUN: Final = datetime(2026, 1, 1, tzinfo=UTC)

ADD_MEMBERS: Final = """
INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
SELECT $1, id, false, 'IMPORT', now() FROM unnest($2::uuid[]) AS t (id)
"""
ADD_WALLETS: Final = (
    "INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM unnest($2::uuid[]) AS t (id)"
)
#: Invites and entries are left out. Foreign keys to them are checked by triggers, which this turns off.
WITHOUT_TRIGGERS: Final = "SET LOCAL session_replication_role = replica"
ADD_REFERRALS: Final = """
INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, referrer_points, referee_points, flags,
                      referrer_entry_id, referee_entry_id, converted_at, released_at)
SELECT $1, gen_random_uuid(), gen_random_uuid(), referrer, referee, 1, 1, '{}', gen_random_uuid(), gen_random_uuid(),
    at, at
FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[]) AS t (referrer, referee, at)
"""


def grown(members: int, seed: int = 1) -> list[Edge]:
    """Return the referrals of a network of `members` (give or take one), in the order of their conversion."""
    chance = random.Random(seed)
    everybody: list[UUID] = []
    tied: set[int] = set()
    ends: list[int] = []
    edges: list[Edge] = []
    while len(tied) < members:
        number = len(everybody)
        everybody.append(UUID(int=chance.getrandbits(128)))
        if not number or chance.random() < _ROOTS:
            continue
        brought_by = chance.choice(ends) if ends and chance.random() < _PREFERENCE else chance.randrange(number)
        edges.append(Edge(everybody[brought_by], everybody[number], _BEGUN + timedelta(minutes=len(edges))))
        ends.append(brought_by)
        tied |= {brought_by, number}
    return edges


async def store(merchant_id: UUID, edges: list[Edge], known: list[Edge] | None = None) -> None:
    """Write the members and the released referrals of edges; the members of `known` edges exist already."""
    there = {member for edge in known or [] for member in edge[:2]}
    members = sorted({member for edge in edges for member in edge[:2]} - there)
    async with transaction(None) as tx:
        for start in range(0, len(members), _CHUNK):
            await tx.row(ADD_MEMBERS, merchant_id, members[start : start + _CHUNK])
            await tx.row(ADD_WALLETS, merchant_id, members[start : start + _CHUNK])
        await tx.row(WITHOUT_TRIGGERS)
        for start in range(0, len(edges), _CHUNK):
            columns = zip(*edges[start : start + _CHUNK], strict=True)
            await tx.row(ADD_REFERRALS, merchant_id, *map(list, columns))
