"""createCampaign and its deliveries. Without these a mailing could skip people, or send their codes astray."""

from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.coupons.ownership import breaches, claim_by_email, send, verify
from tests.factories import CHANGE_STATUS, CREATE_CAMPAIGN, DELIVERIES, REDEEM_CODES, Shop, problems, usd
from tests.orders.presented import end_pool, expire

JANE, JOHN = "jane.doe@example.com", "john@example.com"
NOWHERE = "pool_0123456789abcdef0123456789abcdef"
NOBODY = "member_0123456789abcdef0123456789abcdef"
WALLET = "{ wallet { version codes { edges { node { id text matchedBy } } } } }"
READS = """
SELECT subject_id, actor FROM event WHERE merchant_id = $1 AND type = 'campaign.deliveries_read' ORDER BY id
"""


async def deliveries(shop: Shop, campaign: Any) -> list[Any]:
    """Read all deliveries of a campaign, page by page."""
    found: list[Any] = []
    after = None
    while True:
        page = (await shop.data(DELIVERIES, {"id": campaign["id"], "after": after}))["campaign"]["deliveries"]
        found += [edge["node"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def sent_codes(shop: Shop, answer: Any) -> dict[str, Any]:
    """Return the codes that a campaign sends, by their recipients."""
    found = await deliveries(shop, answer["campaign"])
    assert len({delivery["recipient"] for delivery in found}) == len(found)
    return {delivery["recipient"]: delivery["code"] for delivery in found}


async def test_members_and_addresses_get_a_code_each(shop: Shop) -> None:
    pool = await shop.pool(codes=10)
    member = await shop.member()
    before = await shop.state()

    answer = await send(shop, pool, {"memberId": member["id"]}, {"email": JANE}, {"email": JOHN}, name=" Spring ")

    campaign = answer["campaign"]
    assert answer["replayed"] is False
    assert campaign | {"id": "", "createdAt": ""} == {
        "id": "",
        "name": "Spring",
        "recipientCount": 3,
        "allocatedCount": 3,
        "createdAt": "",
        "pool": {"id": pool["id"]},
    }
    assert campaign["id"].startswith("campaign_")
    assert campaign["createdAt"].endswith("Z")
    assert (await shop.state()).since(before) == {
        "campaign": 1, "delivery": 3, "claim": 3, "code": 0, "wallet": 0, "address": 2, "stock_change": 1, "event": 4,
    }  # fmt: skip
    assert sorted((await shop.event_types())[-4:]) == ["campaign.created", *["code.sent"] * 3]
    assert await shop.wallet_versions(member) == [1]
    assert await shop.stock(pool) == {
        "total": 10, "available": 7, "allocated": 3, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    sent = await sent_codes(shop, answer)
    assert sent.keys() == {member["id"], JANE, JOHN}
    assert {(code["state"], code["matchedBy"]) for code in sent.values()} == {("ALLOCATED", "CAMPAIGN_RECIPIENT")}
    assert sent[member["id"]]["owner"] == {"id": member["id"], "wallet": {"version": 1}}
    assert sent[JANE]["owner"] is sent[JOHN]["owner"] is None
    assert len({code["text"] for code in sent.values()}) == 3
    assert await breaches(shop) == {}


async def test_a_campaign_can_be_read_again(shop: Shop) -> None:
    answer = await send(shop, await shop.pool(), {"email": JANE})
    document = (
        "query ($id: ID!) { campaign(id: $id) { id name recipientCount allocatedCount createdAt pool { id } } "
        "node(id: $id) { ... on Campaign { name } } }"
    )

    for role in ("ADMIN", "CHECKOUT", "ANALYST"):
        read = await shop.data(document, {"id": answer["campaign"]["id"]}, key=await shop.key(role))
        assert read == {"campaign": answer["campaign"], "node": {"name": "Spring"}}


async def test_a_member_has_its_code_in_its_wallet_and_may_spend_it(shop: Shop) -> None:
    pool, member = await shop.pool(), await shop.member()
    sent = (await sent_codes(shop, await send(shop, pool, {"memberId": member["id"]})))[member["id"]]

    wallet = (await shop.data(WALLET, key=await shop.token(member["id"])))["wallet"]
    claimed = await shop.claim(pool, member)
    redeemed = await shop.redeem([sent["text"]], member)

    code = {"id": sent["id"], "text": sent["text"], "matchedBy": "CAMPAIGN_RECIPIENT"}
    assert wallet == {"version": 1, "codes": {"edges": [{"node": code}]}}
    assert claimed["id"] == sent["id"]
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_the_code_of_an_address_waits_for_the_member_that_owns_it(shop: Shop) -> None:
    pool = await shop.pool()
    sent = (await sent_codes(shop, await send(shop, pool, {"email": JANE})))[JANE]

    assert (await claim_by_email(shop, pool, JANE))["id"] == sent["id"]
    member = await shop.member(email=JANE, emailVerified=True)

    wallet = (await shop.data(WALLET, key=await shop.token(member["id"])))["wallet"]
    code = {"id": sent["id"], "text": sent["text"], "matchedBy": "CAMPAIGN_RECIPIENT"}
    assert wallet == {"version": 1, "codes": {"edges": [{"node": code}]}}
    assert await breaches(shop) == {}


async def test_the_code_of_an_address_may_be_spent_by_that_address(shop: Shop) -> None:
    sent = (await sent_codes(shop, await send(shop, await shop.pool(), {"email": JANE})))[JANE]
    order: dict[str, Any] = {"codes": [sent["text"]], "orderId": "order", "orderAmount": usd(1000)}

    refused = await shop.refused(REDEEM_CODES, email=JOHN, **order)
    redeemed = await shop.do(REDEEM_CODES, email=JANE.upper(), **order)

    assert [rejection["reason"] for rejection in refused["rejections"]] == ["NOT_OWNER"]
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_who_is_listed_under_several_names_is_one_recipient(shop: Shop) -> None:
    pool = await shop.pool()
    jane, john = await shop.member(email=JANE, emailVerified=True), await shop.member()

    answer = await send(
        shop,
        pool,
        {"memberId": jane["id"]},
        {"email": JANE},
        {"email": " Jane.Doe@Example.com"},
        {"memberId": john["id"]},
        {"memberId": john["id"]},
        {"email": "new@example.com"},
        {"email": "NEW@example\uff0ecom"},
    )

    assert (answer["campaign"]["recipientCount"], answer["campaign"]["allocatedCount"]) == (3, 3)
    sent = await sent_codes(shop, answer)
    assert {recipient: code["owner"] and code["owner"]["id"] for recipient, code in sent.items()} == {
        JANE: jane["id"], john["id"]: john["id"], "new@example.com": None
    }  # fmt: skip
    assert await shop.wallet_versions(jane) == [1]
    assert await breaches(shop) == {}


async def test_an_unverified_address_is_another_recipient_than_its_member(shop: Shop) -> None:
    pool, jane = await shop.pool(), await shop.member(email=JANE)

    answer = await send(shop, pool, {"memberId": jane["id"]}, {"email": JANE})

    assert answer["campaign"]["recipientCount"] == 2
    sent = await sent_codes(shop, answer)
    assert {recipient: code["owner"] and code["owner"]["id"] for recipient, code in sent.items()} == {
        jane["id"]: jane["id"], JANE: None
    }  # fmt: skip


async def test_a_member_is_written_to_at_its_verified_address_or_named_by_its_id(shop: Shop) -> None:
    verified = await shop.member(email=JANE, emailVerified=True)
    unverified, without = await shop.member(email=JOHN), await shop.member()

    answer = await send(shop, await shop.pool(), *({"memberId": m["id"]} for m in (verified, unverified, without)))

    assert (await sent_codes(shop, answer)).keys() == {JANE, unverified["id"], without["id"]}
    await verify(shop, unverified)
    assert (await sent_codes(shop, answer)).keys() == {JANE, JOHN, without["id"]}


async def test_codes_live_as_long_as_the_pool_says(shop: Shop) -> None:
    answer = await send(
        shop, await shop.pool(codeLifetimeDays=30), {"email": JANE}, {"memberId": (await shop.member())["id"]}
    )

    rows = await database().rows(
        "SELECT expires_at - allocated_at AS lifetime FROM code WHERE merchant_id = $1 AND state = 'ALLOCATED'",
        shop.merchant_id,
    )
    assert [(row["lifetime"].days, row["lifetime"].seconds) for row in rows] == [(30, 0)] * 2
    assert all(code["expiresAt"] for code in (await sent_codes(shop, answer)).values())


async def test_addresses_are_stored_encrypted(shop: Shop) -> None:
    await send(shop, await shop.pool(), {"email": JANE})

    for table in ("campaign", "delivery", "claim", "code", "address", "event"):
        statement = f"SELECT each::text AS row FROM {table} each WHERE merchant_id = $1"
        for row in await database().rows(statement, shop.merchant_id):
            assert "jane" not in row["row"]
            assert b"jane".hex() not in row["row"]


async def test_5000_recipients_fit_in_one_call(shop: Shop) -> None:
    pool = await shop.pool(codes=5000)
    enrolled = await shop.member(email="somebody-with-quite-a-long-name-4999@customers.example.com", emailVerified=True)
    addresses = [f"somebody-with-quite-a-long-name-{number}@customers.example.com" for number in range(5000)]

    answer = await send(shop, pool, *({"email": address} for address in addresses))

    assert (answer["campaign"]["recipientCount"], answer["campaign"]["allocatedCount"]) == (5000, 5000)
    stock = await shop.stock(pool)
    assert (stock["available"], stock["allocated"]) == (0, 5000)
    first = (await shop.data(DELIVERIES, {"id": answer["campaign"]["id"]}))["campaign"]["deliveries"]
    assert len(first["edges"]) == 100
    assert first["pageInfo"]["hasNextPage"] is True
    assert await shop.wallet_versions(enrolled) == [1]
    fell = [event for event in await shop.event_types() if event.startswith("pool.stock_fell_to_")]
    assert fell == [f"pool.stock_fell_to_{level}" for level in (50, 25, 10, 0)]
    # The tables grew at once: without this the looks at all rows are planned for empty ones.
    await database().row("ANALYZE")
    assert await breaches(shop) == {}


# ------------------------------------------------------------------------------------------- who has a code already


@pytest.mark.parametrize("way", ["claimed", "claimed by address", "sent"])
async def test_who_has_its_code_gets_it_delivered_again_and_no_other(shop: Shop, way: str) -> None:
    pool, member = await shop.pool(), await shop.member(email=JANE, emailVerified=True)
    if way == "sent":
        code = (await sent_codes(shop, await send(shop, pool, {"memberId": member["id"]})))[JANE]
    else:
        code = await (shop.claim(pool, member) if way == "claimed" else claim_by_email(shop, pool, JANE))
    before = await shop.state()

    for recipient in ({"memberId": member["id"]}, {"email": JANE}):
        answer = await send(shop, pool, recipient, name="Reminder")
        assert (answer["campaign"]["recipientCount"], answer["campaign"]["allocatedCount"]) == (1, 0)
        delivered = (await sent_codes(shop, answer))[JANE]
        assert (delivered["id"], delivered["text"]) == (code["id"], code["text"])
        assert delivered["matchedBy"] == code["matchedBy"]
    assert (await shop.state()).since(before) == {"campaign": 2, "delivery": 2, "event": 4}
    assert await shop.wallet_versions(member) == [1]


@pytest.mark.parametrize("fate", ["redeemed", "past its lifetime"])
async def test_who_had_its_code_and_cant_spend_it_any_more_gets_nothing(shop: Shop, fate: str) -> None:
    pool, member = await shop.pool(codeLifetimeDays=30), await shop.member()
    code = await shop.claim(pool, member)
    if fate == "redeemed":
        await shop.redeem([code["text"]], member)
    else:
        await expire(shop, code)

    answer = await send(shop, pool, {"memberId": member["id"]}, {"email": JANE})

    assert (answer["campaign"]["recipientCount"], answer["campaign"]["allocatedCount"]) == (2, 1)
    assert (await sent_codes(shop, answer)).keys() == {JANE}


async def test_where_two_are_allowed_each_campaign_gives_one_until_there_are_two(shop: Shop) -> None:
    pool, member = await shop.pool(claimsPerMember=2), await shop.member()
    recipients = [{"memberId": member["id"]}, {"email": JANE}]

    answers = [await send(shop, pool, *recipients, name=name) for name in ("Spring", "Summer", "Autumn")]

    assert [answer["campaign"]["allocatedCount"] for answer in answers] == [2, 2, 0]
    spring, summer, autumn = [await sent_codes(shop, answer) for answer in answers]
    for recipient in (member["id"], JANE):
        assert spring[recipient]["id"] != summer[recipient]["id"]
        assert autumn[recipient]["id"] == summer[recipient]["id"]
    assert await shop.wallet_versions(member) == [1, 2]
    assert await breaches(shop) == {}


async def test_a_code_of_a_fallback_counts_and_is_delivered_again(shop: Shop) -> None:
    last = await shop.pool(codes=5)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])
    await shop.claim(first, await shop.member())
    code = await claim_by_email(shop, first, JANE)

    answer = await send(shop, first, {"email": JANE})

    assert answer["campaign"]["allocatedCount"] == 0
    assert (await sent_codes(shop, answer))[JANE]["id"] == code["id"]


# ------------------------------------------------------------------------------------------------------- again


async def test_the_same_key_is_the_same_campaign(shop: Shop) -> None:
    pool, member = await shop.pool(), await shop.member()
    recipients = [{"memberId": member["id"]}, {"email": JANE}, {"email": JOHN}]
    first = await send(shop, pool, *recipients, idempotencyKey="key")
    before = await shop.state()

    again = await send(shop, pool, *recipients, idempotencyKey="key")
    turned = await send(shop, pool, *recipients[::-1], {"email": JANE.upper()}, name=" Spring", idempotencyKey="key")

    assert again == turned == first | {"replayed": True}
    assert await shop.state() == before


async def test_a_replay_needs_neither_stock_nor_an_open_pool(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    first = await send(shop, pool, {"email": JANE}, idempotencyKey="key")
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    assert await send(shop, pool, {"email": JANE}, idempotencyKey="key") == first | {"replayed": True}


async def test_without_a_key_the_same_call_is_another_campaign(shop: Shop) -> None:
    pool = await shop.pool()
    first, second = [await send(shop, pool, {"email": JANE}) for _ in range(2)]

    assert first["campaign"]["id"] != second["campaign"]["id"]
    assert (second["replayed"], second["campaign"]["allocatedCount"]) == (False, 0)


@pytest.mark.parametrize("difference", ["name", "pool", "one more", "one less", "another"])
async def test_a_key_that_was_used_for_another_campaign_is_refused(shop: Shop, difference: str) -> None:
    pool, other = await shop.pool(), await shop.pool()
    values: dict[str, Any] = {"name": "Spring", "poolId": pool["id"], "idempotencyKey": "key"}
    values["recipients"] = [{"email": JANE}, {"email": JOHN}]
    await shop.do(CREATE_CAMPAIGN, **values)
    changed: dict[str, dict[str, Any]] = {
        "name": {"name": "Summer"},
        "pool": {"poolId": other["id"]},
        "one more": {"recipients": [*values["recipients"], {"email": "new@example.com"}]},
        "one less": {"recipients": values["recipients"][:1]},
        "another": {"recipients": [{"email": JANE}, {"email": "new@example.com"}]},
    }

    refused = await shop.refused(CREATE_CAMPAIGN, **(values | changed[difference]))

    assert refused == {
        "__typename": "IdempotencyKeyReused", "message": "This idempotencyKey was used for another campaign."
    }  # fmt: skip


async def test_two_merchants_may_use_the_same_key(shop: Shop, other_shop: Shop) -> None:
    answers = [
        await send(each, await each.pool(), {"email": JANE}, idempotencyKey="key") for each in (shop, other_shop)
    ]

    assert [answer["replayed"] for answer in answers] == [False, False]


async def test_a_key_whose_campaign_was_refused_can_be_used_again(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    values: dict[str, Any] = {"name": "Spring", "poolId": pool["id"], "idempotencyKey": "key"}
    refused = await shop.refused(CREATE_CAMPAIGN, recipients=[{"email": JANE}, {"email": JOHN}], **values)

    answer = await shop.do(CREATE_CAMPAIGN, recipients=[{"email": JANE}], **values)

    assert refused["__typename"] == "PoolExhausted"
    assert (answer["__typename"], answer["replayed"]) == ("CreateCampaignSuccess", False)


# ---------------------------------------------------------------------------------------------------- deliveries


async def test_each_page_of_deliveries_that_is_read_is_on_record(shop: Shop) -> None:
    pool = await shop.pool(codes=250)
    answer = await send(shop, pool, *({"email": f"stranger-{number}@example.com"} for number in range(250)))
    before = await shop.state()

    found = await deliveries(shop, answer["campaign"])

    assert {delivery["recipient"] for delivery in found} == {f"stranger-{n}@example.com" for n in range(250)}
    assert len({delivery["code"]["text"] for delivery in found}) == 250
    reads = await database().rows(READS, shop.merchant_id)
    key = await database().row("SELECT id FROM api_key WHERE merchant_id = $1", shop.merchant_id)
    assert key is not None
    assert [(ids.encode("campaign", row["subject_id"]), row["actor"]) for row in reads] == [
        (answer["campaign"]["id"], ids.encode("apikey", key["id"]))
    ] * 3
    assert (await shop.state()).since(before) == {"event": 3}


async def test_deliveries_are_for_admins_only(shop: Shop) -> None:
    member = await shop.member(email=JANE, emailVerified=True)
    campaign = (await send(shop, await shop.pool(), {"email": JANE}))["campaign"]
    token = await shop.token(member["id"])
    checkout, analyst = await shop.key("CHECKOUT"), await shop.key("ANALYST")
    by_node = "query ($id: ID!) { node(id: $id) { ... on Campaign { deliveries { edges { node { recipient } } } } } }"
    before = await shop.state()

    for key in (checkout, analyst):
        for document in (DELIVERIES, by_node):
            assert await shop.error_code(document, {"id": campaign["id"]}, key=key) == "FORBIDDEN"
    assert await shop.error_code(DELIVERIES, {"id": campaign["id"]}, key=token) == "FORBIDDEN"
    assert await shop.data(by_node, {"id": campaign["id"]}, key=token) == {"node": None}
    assert await shop.state() == before


async def test_another_merchants_campaign_shows_nothing(shop: Shop, other_shop: Shop) -> None:
    campaign = (await send(other_shop, await other_shop.pool(), {"email": JANE}))["campaign"]
    before = await other_shop.state()

    assert await shop.data(DELIVERIES, {"id": campaign["id"], "after": None}) == {"campaign": None}
    assert await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": campaign["id"]}) == {"node": None}
    assert await other_shop.state() == before


async def test_outside_the_deliveries_the_text_stays_hidden(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    sent = (await sent_codes(shop, await send(shop, pool, {"email": JANE})))[JANE]

    listed = (await shop.data("{ codes { edges { node { id text } } } }"))["codes"]["edges"]

    assert sent["text"].startswith("PCT-")
    assert listed == [{"node": {"id": sent["id"], "text": None}}]


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"name": ""}, {"name": "must not be blank"}),
        ({"name": "x" * 201}, {"name": "must be at most 200 characters"}),
        ({"name": "a\x00b"}, {"name": "must not contain control characters"}),
        ({"idempotencyKey": ""}, {"idempotencyKey": "must not be blank"}),
        ({"idempotencyKey": "x" * 201}, {"idempotencyKey": "must be at most 200 characters"}),
        ({"idempotencyKey": " x"}, {"idempotencyKey": "must not begin or end with white space"}),
        ({"recipients": []}, {"recipients": "must be 1 to 5000 members or addresses"}),
        (
            {"recipients": [{"email": f"{number}@example.com"} for number in range(5001)]},
            {"recipients": "must be 1 to 5000 members or addresses"},
        ),
        ({"recipients": [{}]}, {"recipients.0": "must name a member or an address, and not both"}),
        (
            {"recipients": [{"email": JANE}, {"memberId": NOBODY, "email": JANE}]},
            {"recipients.1": "must name a member or an address, and not both"},
        ),
        (
            {"recipients": [{"email": JANE}, {"email": "nobody"}, {"email": "a\x00@example.com"}]},
            {"recipients.1.email": "must be an e-mail address", "recipients.2.email": "must be an e-mail address"},
        ),
        (
            {"name": " ", "idempotencyKey": "", "poolId": "?", "recipients": [{"memberId": "?"}, {"email": ""}, {}]},
            {
                "name": "must not be blank",
                "idempotencyKey": "must not be blank",
                "recipients.1.email": "must be an e-mail address",
                "recipients.2": "must name a member or an address, and not both",
            },
        ),
    ],
)
async def test_an_impossible_campaign_is_refused_with_every_problem(
    shop: Shop, change: dict[str, Any], found: dict[str, str]
) -> None:
    pool = await shop.pool()
    values: dict[str, Any] = {"name": "Spring", "poolId": pool["id"], "recipients": [{"email": JANE}]}

    assert problems(await shop.refused(CREATE_CAMPAIGN, **(values | change))) == found


@pytest.mark.parametrize(
    "change", [{"recipients": 5}, {"recipients": [None]}, {"recipients": [{"name": "Jane"}]}, {"name": None}]
)
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, change: dict[str, Any]) -> None:
    values: dict[str, Any] = {"name": "Spring", "poolId": NOWHERE, "recipients": [{"email": JANE}]}

    assert await shop.failed(CREATE_CAMPAIGN, **(values | change)) == "BAD_USER_INPUT"


@pytest.mark.parametrize("named", ["", "7", NOWHERE, NOBODY, "pool_\x00"])
async def test_an_id_that_names_no_pool_is_not_found(shop: Shop, named: str) -> None:
    refused = await shop.refused(CREATE_CAMPAIGN, name="Spring", poolId=named, recipients=[{"email": JANE}])

    assert (refused["__typename"], refused["id"]) == ("NotFound", named)


@pytest.mark.parametrize("named", ["", "7", NOBODY, NOWHERE, "member_\x00"])
async def test_one_recipient_that_doesnt_exist_stops_all(shop: Shop, named: str) -> None:
    pool, member = await shop.pool(), await shop.member()
    recipients = [{"memberId": member["id"]}, {"email": JANE}, {"memberId": named}]

    refused = await shop.refused(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=recipients)

    assert (refused["__typename"], refused["id"]) == ("NotFound", named)


async def test_another_merchants_pool_and_members_are_not_found(shop: Shop, other_shop: Shop) -> None:
    pool, theirs, member = await shop.pool(), await other_shop.pool(), await other_shop.member()
    before = await other_shop.state()

    foreign_pool = await shop.refused(CREATE_CAMPAIGN, name="Spring", poolId=theirs["id"], recipients=[{"email": JANE}])
    foreign_member = await shop.refused(
        CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[{"memberId": member["id"]}]
    )

    assert (foreign_pool["__typename"], foreign_pool["id"]) == ("NotFound", theirs["id"])
    assert (foreign_member["__typename"], foreign_member["id"]) == ("NotFound", member["id"])
    assert await other_shop.state() == before


@pytest.mark.parametrize("status", ["DRAFT", "PAUSED", "ARCHIVED", "ACTIVE"])
async def test_a_pool_that_isnt_open_sends_nothing(shop: Shop, status: str) -> None:
    pool = await shop.pool(active=status != "DRAFT", endsAt="2999-01-01T00:00:00Z")
    if status == "ACTIVE":
        await end_pool(shop, pool)
    elif status != "DRAFT":
        await shop.do(CHANGE_STATUS % {"PAUSED": "pausePool", "ARCHIVED": "archivePool"}[status], poolId=pool["id"])

    refused = await shop.refused(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[{"memberId": NOBODY}])

    assert (refused["__typename"], refused["status"]) == ("PoolNotActive", status)


async def test_a_campaign_may_go_out_before_the_pool_begins_and_lifetimes_count_from_then(shop: Shop) -> None:
    pool, member = await shop.pool(startsAt="2999-01-01T00:00:00Z", codeLifetimeDays=2), await shop.member()

    sent = await shop.do(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[{"memberId": member["id"]}])

    assert sent["__typename"] == "CreateCampaignSuccess"
    wallet = await shop.data("{ wallet { codes { edges { node { state expiresAt text } } } } }",
                             key=await shop.token(member["id"]))  # fmt: skip
    (edge,) = wallet["wallet"]["codes"]["edges"]
    assert (edge["node"]["state"], edge["node"]["expiresAt"]) == ("ALLOCATED", "2999-01-03T00:00:00Z")
    refused = await shop.redeem([edge["node"]["text"]], member)
    assert refused["rejections"][0]["reason"] == "POOL_NOT_ACTIVE"


async def test_too_few_codes_are_none_and_a_campaign_never_falls_back(shop: Shop) -> None:
    last = await shop.pool(codes=10)
    pool = await shop.pool(codes=2, fallbackPoolId=last["id"])
    recipients = [{"email": JANE}, {"email": JOHN}, {"memberId": (await shop.member())["id"]}]

    refused = await shop.refused(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=recipients)

    assert refused == {
        "__typename": "PoolExhausted",
        "message": "The pool has too few codes left.",
        "poolsTried": [pool["id"]],
    }
    missing = await shop.refused(
        CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[*recipients, {"memberId": NOBODY}]
    )
    assert missing["__typename"] == "NotFound"


async def test_who_needs_no_code_needs_no_stock(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    code = await claim_by_email(shop, pool, JANE)

    answer = await send(shop, pool, {"email": JANE})

    assert (await sent_codes(shop, answer))[JANE]["id"] == code["id"]


async def test_campaigns_are_for_admins(shop: Shop) -> None:
    pool, member = await shop.pool(), await shop.member()
    values: dict[str, Any] = {"name": "Spring", "poolId": pool["id"], "recipients": [{"memberId": member["id"]}]}

    for key in (await shop.key("CHECKOUT"), await shop.key("ANALYST"), await shop.token(member["id"])):
        assert await shop.failed(CREATE_CAMPAIGN, key=key, **values) == "FORBIDDEN"
