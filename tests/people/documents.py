"""What tests of people ask, and how they look at what a member has of addresses."""

from typing import Any

from tests.factories import Shop

ADDRESSES = """
query ($id: ID!) { member(id: $id) { maskedEmail emailVerified pendingMaskedEmail } }
"""


async def addresses(shop: Shop, member: Any) -> tuple[str | None, bool, str | None]:
    """Return a member's present address, masked, whether it is proven, and the pending one."""
    found = (await shop.data(ADDRESSES, {"id": member["id"]}))["member"]
    return found["maskedEmail"], found["emailVerified"], found["pendingMaskedEmail"]
