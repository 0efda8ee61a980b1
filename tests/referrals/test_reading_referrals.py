"""Reading invites, referrals and quotas. Without these members could read each other, or pages cost by their rows."""

import json
from typing import Any
from uuid import UUID

from app import ids
from app.referrals import conversion, rows
from app.storage.database import database
from app.storage.statements import Statement
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.points.documents import member_uuid
from tests.referrals.documents import (
    ACCEPT_INVITE,
    INVITE,
    INVITE_MEMBERS,
    INVITES,
    READ_QUOTA,
    RECORD_PURCHASE,
    REFERRAL,
    REFERRALS,
    REFERRED_BY,
    accepted,
    address,
    invited,
    program,
)
from tests.referrals.test_conversions import buy, waiting

LAST = UUID(int=2**128 - 1)
NODE = "query ($id: ID!) { node(id: $id) { __typename id ... on Invite { token } ... on Referral { shortfall } } }"
OTHER = "id externalId displayName maskedEmail source referredBy { id }"


def nodes(connection: Any) -> list[Any]:
    """Return the nodes of a connection."""
    return [edge["node"] for edge in connection["answer"]["edges"]]


async def test_a_member_sees_the_invites_that_it_sent_and_keys_see_all(shop: Shop) -> None:
    await program(shop)
    members = [await shop.member() for _ in range(2)]
    sent = [(await invited(shop, member))[0] for member in members]

    for member, invite in zip(members, sent, strict=True):
        assert nodes(await shop.data(INVITES, key=await shop.token(member["id"]))) == [invite]
    for role in ("ADMIN", "CHECKOUT", "ANALYST"):
        listed = nodes(await shop.data(INVITES, key=await shop.key(role)))
        assert listed == [invite | {"token": None} for invite in reversed(sent)]


async def test_invites_are_filtered_by_status_and_paged(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()
    token = await shop.token(member["id"])
    joined = (await accepted(shop, member))["invite"]
    pending = [(await invited(shop, member))[0] for _ in range(3)]

    for key in (token, shop.admin):
        page = await shop.data(INVITES, {"status": "PENDING", "first": 2}, key=key)
        rest = await shop.data(
            INVITES, {"status": "PENDING", "first": 2, "after": page["answer"]["pageInfo"]["endCursor"]}, key=key
        )
        assert [node["id"] for node in [*nodes(page), *nodes(rest)]] == [each["id"] for each in reversed(pending)]
        assert [page["answer"]["pageInfo"]["hasNextPage"], rest["answer"]["pageInfo"]["hasNextPage"]] == [True, False]
        converted = nodes(await shop.data(INVITES, {"status": "CONVERTED"}, key=key))
        assert [node["id"] for node in converted] == [joined["id"]]
        assert nodes(await shop.data(INVITES, {"status": "EXPIRED"}, key=key)) == []


async def test_a_members_quota_is_its_own_and_keys_have_none(shop: Shop) -> None:
    await program(shop)
    sender, other = await shop.member(), await shop.member()
    await invited(shop, sender)

    quotas = [
        (await shop.data(READ_QUOTA, key=await shop.token(each["id"])))["inviteQuota"] for each in (sender, other)
    ]

    assert [quota["remainingToday"] for quota in quotas] == [999, 1000]
    assert (await shop.data(READ_QUOTA))["inviteQuota"] is None


async def test_a_member_sees_whom_it_brought_and_keys_see_all(shop: Shop) -> None:
    await program(shop)
    first = await shop.member()
    second = (await accepted(shop, first))["member"]
    third = (await accepted(shop, second))["member"]

    async def seen(key: str) -> list[tuple[str, str]]:
        return [(node["referrer"]["id"], node["referee"]["id"]) for node in nodes(
            await shop.data("{ answer: referrals { edges { node { referrer { id } referee { id } } } } }", key=key)
        )]  # fmt: skip

    assert await seen(shop.admin) == [(second["id"], third["id"]), (first["id"], second["id"])]
    assert await seen(await shop.token(first["id"])) == [(first["id"], second["id"])]
    assert await seen(await shop.token(second["id"])) == [(second["id"], third["id"])]
    assert await seen(await shop.token(third["id"])) == []
    assert len(nodes(await shop.data(REFERRALS, key=await shop.key("ANALYST")))) == 2


async def test_members_do_not_read_each_other_through_a_referral(shop: Shop) -> None:
    await program(shop)
    top = await shop.member(displayName="Top", email="top@example.com")
    upper = (await accepted(shop, top, displayName="Upper"))["member"]
    lower = (await accepted(shop, upper, displayName="Lower", externalId="c-lower"))["member"]
    up, down = await shop.token(upper["id"]), await shop.token(lower["id"])
    hidden = {"externalId": None, "displayName": None, "maskedEmail": None, "referredBy": None}

    brought = nodes(
        await shop.data(f"{{ answer: referrals {{ edges {{ node {{ referee {{ {OTHER} }} }} }} }} }}", key=up)
    )
    by = await shop.data(
        f"{{ viewer {{ member {{ displayName referredBy {{ referrer {{ {OTHER} }} }} }} }} }}", key=down
    )
    amounts = nodes(
        await shop.data(
            "{ answer: referrals { edges { node { refereeEntry { amount reason member { displayName } } } } } }", key=up
        )
    )

    assert brought == [{"referee": hidden | {"id": lower["id"], "source": "REFERRAL"}}]
    assert by["viewer"]["member"]["displayName"] == "Lower"
    assert by["viewer"]["member"]["referredBy"]["referrer"] == hidden | {"id": upper["id"], "source": "REFERRAL"}
    assert amounts == [{"refereeEntry": {"amount": 50, "reason": "REFERRAL_REFEREE", "member": {"displayName": None}}}]
    inside = "referee { wallet { points } } refereeEntry { amount balanceAfter member { wallet { points } } }"
    document = f"{{ answer: referrals {{ edges {{ node {{ {inside} }} }} }} }}"
    assert nodes(await shop.data(document, key=up)) == [
        {"referee": {"wallet": None}, "refereeEntry": {"amount": 50, "balanceAfter": None, "member": {"wallet": None}}}
    ]
    assert [node["refereeEntry"]["balanceAfter"] for node in nodes(await shop.data(document))] == [50, 50]


async def test_nodes_are_for_those_that_lists_show_them_to(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    answer = await accepted(shop, referrer)
    invite, referral, referee = answer["invite"]["id"], answer["referral"]["id"], answer["member"]["id"]

    async def sees(node: str, member: str) -> bool:
        return (await shop.data(NODE, {"id": node}, key=await shop.token(member)))["node"] is not None

    assert [await sees(invite, each) for each in (referrer["id"], referee)] == [True, False]
    assert [await sees(referral, each) for each in (referrer["id"], referee)] == [True, True]
    assert not await sees(referral, (await shop.member())["id"])
    analyst = await shop.data(NODE, {"id": invite}, key=await shop.key("ANALYST"))
    assert analyst["node"] == {"__typename": "Invite", "id": invite, "token": None}


async def test_what_one_call_asks_of_the_database(counter: Counter, counted_shop: Shop) -> None:
    shop = counted_shop
    await program(shop, convertsOn="FIRST_PURCHASE")
    member = await shop.member()

    async def count(*calls: Any) -> list[int]:
        return [len(await counter.during(call)) for call in calls]

    async def sends(size: int) -> Any:
        emails = [address() for _ in range(size)]
        return lambda: shop.do(INVITE_MEMBERS, emails=emails, memberId=member["id"])

    async def accepts() -> Any:
        invite, email = await invited(shop, member)
        return lambda: shop.do(ACCEPT_INVITE, token=invite["token"], email=email)

    async def converts(order: str) -> Any:
        referee = (await accepted(shop, member))["member"]
        return lambda: shop.do(
            RECORD_PURCHASE, memberId=referee["id"], source="STORE", orderId=order,
            amount={"amountMinor": 1000, "currency": "USD"},
        )  # fmt: skip

    for _ in range(2):
        await count(await sends(1), await sends(100), await accepts(), await converts(f"warm {_}"))

    # Look, then BEGIN, SEND and COMMIT, for one address or a hundred.
    assert await count(await sends(1), await sends(100)) == [4, 4]
    # The token, then BEGIN, lock, enrol, accept, look whether it converts and COMMIT, and what is shown.
    assert await count(await accepts()) == [9]
    # BEGIN, the purchase, convert, wallets, two credits, the edge, its own credit and COMMIT, and what is shown.
    assert await count(await converts("a"), await converts("b")) == [10, 10]


async def test_a_page_costs_the_same_for_1_and_100_rows(counter: Counter, counted_shop: Shop) -> None:
    shop = counted_shop
    await program(shop)
    member = await shop.member()
    for _ in range(101):
        await accepted(shop, member)
    member_fields = "id displayName maskedEmail wallet { version points }"
    whole = f"{REFERRAL} referrer {{ {member_fields} }} referee {{ {member_fields} }}"
    lists = {
        "invites": (f"{INVITE} referrer {{ {member_fields} }}", 1),
        "referrals": (whole, 1),
        "members": (f"id referredBy {{ {whole} }}", 2),
    }

    for name, (fields, expected) in lists.items():
        document = f"query ($first: Int) {{ answer: {name}(first: $first) {{ edges {{ node {{ {fields} }} }} }} }}"
        counts = []
        for first in (1, 100, 1, 100):
            answers: list[Any] = []

            async def ask(size: int = first, asked: str = document, to: list[Any] = answers) -> None:
                to.append(await shop.data(asked, {"first": size}))

            counts.append(len(await counter.during(ask)))
            assert len(answers[0]["answer"]["edges"]) == first
        assert counts[2:] == [expected, expected], name


CROWD = """
WITH people AS (
    INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
    SELECT $1, gen_random_uuid(), false, 'REFERRAL', now() FROM generate_series(1, $3::int) RETURNING merchant_id, id
), wallets AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT merchant_id, id, 0 FROM people
), sent AS (
    INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, domain_index, token,
                        token_hash, created_at, expires_at, accepted_at, referee_id, converts_on, converted_at)
    SELECT $1, gen_random_uuid(), $2, 'CONVERTED', '', sha256(id::text::bytea), sha256(id::text::bytea), 'one', '',
        sha256(id::text::bytea), now(), now() + interval '30 days', now(), id, 'JOIN', now()
    FROM people RETURNING *
)
INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, referrer_points, referee_points, flags,
                      converted_at, reversed_at, shortfall, falls)
SELECT $1, gen_random_uuid(), id, $2, referee_id, 1, 1, '{}', now(), now(), 0, 1 FROM sent
"""


async def buffers(asked: Statement[Any], **values: object) -> int:
    """Return how many buffers a statement touches; what it changes is changed."""
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked.text}"
    row = await database().row(explained, *asked.arguments(values))
    assert row is not None
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def test_a_conversion_costs_the_same_for_a_referrer_of_10_and_of_10_000(shop: Shop) -> None:
    """Flags count what a referrer did, and must not read all of it."""
    await program(shop, convertsOn="FIRST_PURCHASE")
    costs = []
    for size in (10, 10_000):
        referrer = await shop.member()
        # Analysed on the way, or the forest's check would be planned for an empty table.
        for chunk in (10, *[999] * (size // 1000)):
            await database().row(CROWD, shop.merchant_id, member_uuid(referrer), chunk)
            await database().row("ANALYZE invite, referral, member, wallet")
        waiting_id = None
        for _ in range(3):
            answer = await accepted(shop, referrer)
            waiting_id = ids.decode("invite", answer["invite"]["id"])
            await database().row(
                "INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, recorded_amount, "
                "currency, points, points_per_unit, minor_units, credits, occurred_at, recorded_at) "
                "VALUES ($1, $2, $3, 'STORE', $2::uuid::text, 100, 100, 'USD', 0, 0, 100, 0, now(), now())",
                shop.merchant_id, ids.new(), member_uuid(answer["member"]),
            )  # fmt: skip
            cost = await buffers(
                conversion.CONVERT,
                merchant_id=shop.merchant_id,
                invite_id=waiting_id,
                memory_pads=bytes(128),
                event_id=ids.new(),
                actor="system",
            )
            # Only the invite was converted here; give it an end that holds.
            await database().row(
                "INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, referrer_points, "
                "referee_points, flags, converted_at) SELECT $1, $3, id, referrer_id, referee_id, 1, 1, '{}', now() "
                "FROM invite WHERE merchant_id = $1 AND id = $2",
                shop.merchant_id, waiting_id, ids.new(),
            )  # fmt: skip
        costs.append(cost)
    page = await buffers(rows.LIST_REFERRALS, merchant_id=shop.merchant_id, before=LAST, limit=51)
    print(f"buffers: a conversion {costs}, an empty page of referrals beside 10,000 held ones {page}")

    assert costs[1] <= costs[0] * 2
    assert page < 50


async def test_referred_by_is_null_for_who_came_by_itself(shop: Shop) -> None:
    _, referee = await waiting(shop)
    before = (await shop.data(REFERRED_BY, {"id": referee["id"]}))["member"]["referredBy"]
    await buy(shop, referee, "o-1")

    document = "{ viewer { member { referredBy { refereeEntry { amount balanceAfter } } } } }"
    after = await shop.data(document, key=await shop.token(referee["id"]))

    assert before is None
    assert after["viewer"]["member"]["referredBy"] == {"refereeEntry": {"amount": 50, "balanceAfter": 50}}
