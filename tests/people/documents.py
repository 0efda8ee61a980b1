"""What tests of people ask, and how they look at what a member has of addresses."""

from typing import Any

from tests.factories import REFUSALS, Shop

MERGE = f"""
mutation ($input: MergeMembersInput!) {{
  answer: mergeMembers(input: $input) {{
    __typename
    ... on MergeMembersSuccess {{
      replayed
      member {{
        id maskedEmail emailVerified pendingMaskedEmail mergedFrom {{ id }} wallet {{ points }}
      }}
    }}
    {REFUSALS}
    ... on MembersNotMergeable {{ referrals {{ id }} }}
  }}
}}
"""
CHECK_MERGE = f"""
query ($keptId: ID!, $mergedId: ID!) {{
  answer: checkMerge(keptId: $keptId, mergedId: $mergedId) {{
    __typename
    ... on MergePreview {{ displayName maskedEmail codes codesRevoked points purchases referralCount holds }}
    {REFUSALS}
    ... on MembersNotMergeable {{ referrals {{ id }} }}
  }}
}}
"""
ADDRESSES = """
query ($id: ID!) { member(id: $id) { maskedEmail emailVerified pendingMaskedEmail } }
"""


async def addresses(shop: Shop, member: Any) -> tuple[str | None, bool, str | None]:
    """Return a member's present address, masked, whether it is proven, and the pending one."""
    found = (await shop.data(ADDRESSES, {"id": member["id"]}))["member"]
    return found["maskedEmail"], found["emailVerified"], found["pendingMaskedEmail"]


async def merge(shop: Shop, kept: Any, merged: Any, **how: Any) -> Any:
    """Merge two members, and return the answer."""
    values: dict[str, Any] = {"keptId": kept["id"], "mergedId": merged["id"], "reason": "One person."} | how
    return await shop.do(MERGE, **values)


async def check_merge(shop: Shop, kept: Any, merged: Any) -> Any:
    """Return what a merging would do, which leaves no trace."""
    before = await shop.state()
    found = (await shop.data(CHECK_MERGE, {"keptId": kept["id"], "mergedId": merged["id"]}))["answer"]
    assert await shop.state() == before
    return found
