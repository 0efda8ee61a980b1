"""Members that are gone: a merged one's id stands for the member that was kept, an erased one's names nobody."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.storage.database import database, transaction
from app.storage.gone import MemberGoneError
from tests.factories import CLAIM_CODE, ISSUE_MEMBER_TOKEN, REDEEM_CODES, REFUSALS, Shop, usd
from tests.points.documents import GRANT, RECORD, REDEEM_REWARD, reward
from tests.points.documents import points as points_of

EDIT = f"""
mutation ($input: EditMemberInput!) {{
  answer: editMember(input: $input) {{ __typename ... on EditMemberSuccess {{ member {{ id }} }} {REFUSALS} }}
}}
"""
END_TOKENS = f"""
mutation ($input: RevokeMemberTokensInput!) {{
  answer: revokeMemberTokens(input: $input) {{
    __typename ... on RevokeMemberTokensSuccess {{ member {{ id }} }} {REFUSALS}
  }}
}}
"""
READ = """
query ($member: ID!, $wallet: ID!) {
  member(id: $member) { id }
  wallet: node(id: $wallet) { id }
  node: node(id: $member) { id }
  members { edges { node { id } } }
}
"""
#: Documents that name a member, and their other input.
VERBS: dict[str, tuple[str, dict[str, Any]]] = {
    "purchase": (RECORD, {"source": "STORE", "orderId": "order", "amount": usd(1000)}),
    "purchase of nothing": (RECORD, {"source": "STORE", "orderId": "order", "amount": usd(0)}),
    "grant": (GRANT, {"amount": 5, "reference": "welcome", "idempotencyKey": "grant"}),
    "debit": (GRANT, {"amount": -5, "reference": "mistake", "idempotencyKey": "debit"}),
    "token": (ISSUE_MEMBER_TOKEN, {}),
    "tokens": (END_TOKENS, {}),
    "name": (EDIT, {"displayName": "Jane"}),
}


async def _mark(shop: Shop, member: Any, mark: str, value: object) -> None:
    """Write down that a member is gone, as merging and erasing end."""
    member_id = ids.decode("member", member["id"])
    async with transaction(shop.merchant_id) as tx:
        await tx.row(
            f"UPDATE member SET {mark} = $3 WHERE merchant_id = $1 AND id = $2", shop.merchant_id, member_id, value
        )
        await tx.row(
            "UPDATE wallet SET closed_at = now() WHERE merchant_id = $1 AND member_id = $2", shop.merchant_id, member_id
        )


async def _merged(shop: Shop) -> tuple[Any, Any]:
    """Return a member with points, and one that was merged into it."""
    kept, merged = await shop.member(), await shop.member()
    await shop.do(GRANT, memberId=kept["id"], amount=500, reference="welcome", idempotencyKey="first")
    await _mark(shop, merged, "merged_into_id", ids.decode("member", kept["id"]))
    return kept, merged


async def _erased(shop: Shop) -> Any:
    member = await shop.member()
    await _mark(shop, member, "erased_at", datetime.now(UTC))
    return member


def _named(answer: Any) -> set[str]:
    """Return the members that an answer names."""
    found = {answer["id"]} if str(answer.get("id", "")).startswith("member_") else set()
    for each in answer.values():
        found |= _named(each) if isinstance(each, dict) else set()
    return found


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_acts_for_who_was_kept(shop: Shop, verb: str) -> None:
    kept, merged = await _merged(shop)
    document, rest = VERBS[verb]

    done = await shop.do(document, memberId=merged["id"], **rest)

    assert done["__typename"].endswith("Success")
    assert _named(done) <= {kept["id"]}
    assert await shop.count("event") > 0
    assert await database().rows("SELECT FROM event WHERE member_id = $1", _row_id(merged)) == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_finds_nobody_who_was_erased(shop: Shop, verb: str) -> None:
    erased = await _erased(shop)
    document, rest = VERBS[verb]

    refused = await shop.refused(document, memberId=erased["id"], **rest)

    assert (refused["__typename"], refused.get("id", erased["id"])) == ("NotFound", erased["id"])


async def test_codes_and_rewards_go_to_who_was_kept(shop: Shop) -> None:
    kept, merged = await _merged(shop)
    pool = await shop.pool()

    first = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=merged["id"])
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=kept["id"])
    had = await shop.do(
        REDEEM_REWARD, rewardId=(await reward(shop, cost=100))["id"], memberId=merged["id"], idempotencyKey="key"
    )
    spent = await shop.do(
        REDEEM_CODES, codes=[first["code"]["text"]], orderId="order", orderAmount=usd(10_000), memberId=merged["id"]
    )

    assert (first["code"]["id"], first["replayed"]) == (again["code"]["id"], False)
    assert (had["__typename"], spent["__typename"]) == ("RedeemRewardSuccess", "RedeemCodesSuccess")
    assert (await points_of(shop, kept)) == 400


async def test_reads_of_a_merged_id_give_who_was_kept(shop: Shop) -> None:
    kept, merged = await _merged(shop)
    wallet = ids.encode("wallet", _row_id(merged))

    read = await shop.data(READ, {"member": merged["id"], "wallet": wallet})

    assert (read["member"], read["node"]) == ({"id": kept["id"]}, {"id": kept["id"]})
    assert read["wallet"] == {"id": ids.encode("wallet", _row_id(kept))}
    assert [edge["node"]["id"] for edge in read["members"]["edges"]] == [kept["id"]]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE wallet SET version = version + 1 WHERE member_id = $1",
        "UPDATE member SET token_generation = 5 WHERE id = $1",
    ],
)
async def test_the_database_changes_nothing_of_who_is_gone(shop: Shop, change: str) -> None:
    _, merged = await _merged(shop)

    with pytest.raises(MemberGoneError) as gone:
        await database().row(change, _row_id(merged))

    assert gone.value.member_id == _row_id(merged)


def _row_id(member: Any) -> UUID:
    return ids.decode("member", member["id"]) or UUID(int=0)
