"""The record across releases. Without these an event of a newer process could hide all others from an older one."""

from typing import Any
from uuid import UUID

from app import ids
from app.storage.database import database
from tests.factories import Shop

EVENTS = "{ events(first: 100) { edges { node { id type subjectId actor reason } } } }"
NODE = "query ($id: ID!) { node(id: $id) { id ... on Event { type subjectId actor reason } } }"
RECORD = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
VALUES ($1, $2, 'voucher.framed', 'voucher', $3, 'system', now())
"""


async def _framed(shop: Shop) -> dict[str, Any]:
    """Record an event of a type and of a kind that nobody here knows; return it as it must be shown."""
    event_id, subject_id = ids.new(), UUID(int=7)
    await database().row(RECORD, shop.merchant_id, event_id, subject_id)
    return {
        "id": ids.encode("event", event_id), "type": "voucher.framed", "subjectId": f"voucher_{subject_id.hex}",
        "actor": "system", "reason": None,
    }  # fmt: skip


async def test_an_event_of_an_unknown_type_is_listed_as_it_is_among_the_others(shop: Shop) -> None:
    framed = await _framed(shop)
    await shop.member()

    edges = (await shop.data(EVENTS))["events"]["edges"]

    assert [edge["node"]["type"] for edge in edges] == [
        "member.enrolled", "voucher.framed", "merchant.created", "api_key.created",
    ]  # fmt: skip
    assert edges[1]["node"] == framed


async def test_an_event_of_an_unknown_type_is_read_by_its_id_and_its_subject_is_nothing(shop: Shop) -> None:
    framed = await _framed(shop)

    assert await shop.data(NODE, {"id": framed["id"]}) == {"node": framed}
    assert await shop.data(NODE, {"id": framed["subjectId"]}) == {"node": None}
