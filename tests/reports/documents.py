"""A shop with rows for every report, reading reports whole, and what their rows must be by the tables themselves."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from graphql import GraphQLObjectType, get_named_type

from app import ids
from app.api.scalars import serialize_date_time
from app.reports.tables import REPORTS
from app.storage.database import Row, database
from app.web.graphql_documents import SCHEMA
from tests.factories import CREATE_CAMPAIGN, VERIFY_MEMBER_EMAIL, Shop, usd
from tests.points.documents import REVERSE, grant, purchase, redeem, reward
from tests.referrals.documents import accepted, invited, program

REVERSE_REDEMPTION = """
mutation ($input: ReverseRedemptionInput!) {
  answer: reverseRedemption(input: $input) { __typename ... on Refusal { message } }
}
"""
PREFIXES = {"PERCENT": "PCT", "AMOUNT": "AMT", "GIFT": "GFT"}
#: What no report may hold: parts of names, of addresses and, with the texts of codes, all that names or is worth.
SECRETS = ("Lovelace", "ada@", "@example.com", "friend-", "Hopper")


def field_of(name: str) -> str:
    """Return what the API calls a report."""
    return f"report{name[0].upper()}{name[1:]}"


def row_type(name: str) -> GraphQLObjectType:
    """Return the type of a report's rows."""
    kind: Any = SCHEMA.get_type("Query")
    for step in (field_of(name), "edges", "node"):
        kind = get_named_type(kind.fields[step].type)
    assert isinstance(kind, GraphQLObjectType)
    return kind


def page_document(name: str) -> str:
    """Return the document of a page of a report: every column of it."""
    return (
        "query ($first: Int, $after: String, $since: DateTime, $until: DateTime) { answer: "
        f"{field_of(name)}(first: $first, after: $after, since: $since, until: $until) {{ "
        f"edges {{ cursor node {{ {' '.join(row_type(name).fields)} }} }} "
        "pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"
    )


async def page_of(shop: Shop, name: str, **arguments: Any) -> Any:
    """Read a page as an ANALYST."""
    return (await shop.data(page_document(name), arguments, key=await shop.key("ANALYST")))["answer"]


async def read(shop: Shop, name: str, **arguments: Any) -> list[dict[str, Any]]:
    """Read a whole report, page by page, as an ANALYST."""
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        page = await page_of(shop, name, after=after, **arguments)
        rows += [edge["node"] for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return rows


async def read_all(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """Read every report."""
    return {name: await read(shop, name) for name in REPORTS}


async def world(shop: Shop) -> list[str]:
    """Let everything happen once. Returns the texts of the codes that were told."""
    ada = await shop.member(displayName="Ada Lovelace", email="ada@example.com")
    grace = await shop.member(displayName="Grace Hopper", source="IMPORT")
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=ada["id"])
    percent = await shop.pool(codes=6, percentOff=12.5, maximumDiscount=usd(700), codeLifetimeDays=30)
    amount = await shop.pool(
        codes=4, kind="AMOUNT", amountOff=usd(799), minimumSpend=usd(5000), stacking="STACKABLE", claimsPerMember=5,
        fallbackPoolId=percent["id"],
    )  # fmt: skip
    gift = await shop.pool(codes=2, kind="GIFT", giftSku='mug, "blue"', startsAt="2020-01-01T00:00:00.123456Z")
    claimed = [await shop.claim(pool, member) for pool in (percent, amount, gift) for member in (ada, grace)]
    claimed.append(await shop.claim(amount, ada, idempotencyKey="second"))
    texts = [code["text"] for code in claimed]
    kept = await shop.redeem([texts[0]], ada, order='A "quoted", order', amount=4_999)
    taken_back = await shop.redeem([texts[3]], grace, amount=123_456_789_012)
    pair = await shop.redeem([texts[2], texts[6]], ada, amount=9_990)
    assert {each["__typename"] for each in (kept, taken_back, pair)} == {"RedeemCodesSuccess"}
    for reinstate, redemption in ((True, taken_back["redemptions"][0]), (False, pair["redemptions"][1])):
        answer = await shop.do(
            REVERSE_REDEMPTION, redemptionId=redemption["id"], reinstate=reinstate, reason="Ada Lovelace asked"
        )
        assert answer["__typename"] == "ReverseRedemptionSuccess", answer
    await shop.do(
        CREATE_CAMPAIGN, name="Spring", poolId=percent["id"], recipients=[{"email": "hopper@example.com"}]
    )  # fmt: skip
    bought = await purchase(shop, ada, "p-1", 12_345)
    await purchase(shop, grace, "p-2", 2**31 + 7, source="SHOPIFY", occurredAt="2024-02-29T12:00:00Z")
    await shop.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="Ada Lovelace asked")
    await grant(shop, ada, 500, "welcome", reference="goodwill")
    await redeem(shop, await reward(shop, cost=100), ada, "mug")
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, ada)
    await program(shop, reviewPolicy="NONE")
    await accepted(shop, ada)
    await invited(shop, grace)
    return texts


def _id(kind: ids.Kind, value: UUID | None) -> str | None:
    return None if value is None else f"{kind}_{value.hex}"


def _at(value: datetime | None) -> str | None:
    return None if value is None else serialize_date_time(value)


def _inserted(row_id: UUID) -> str:
    return serialize_date_time(datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=row_id.int >> 80))


def _usd(name: str, amount: int | None) -> dict[str, float | None]:
    return {name: None if amount is None else amount / 100, f"{name}Minor": amount}


def _purchase(row: Row) -> dict[str, Any]:
    money = row["amount"] - row["refunded"] - row["paid_value"] + row["returned_value"]
    return {
        "id": _id("purchase", row["id"]),
        "memberId": _id("member", row["member_id"]),
        "source": row["source"],
        "orderId": row["order_id"],
        **_usd("amount", row["amount"]),
        **_usd("refunded", row["refunded"]),
        "currency": "USD",
        "paidPoints": row["paid_points"],
        **_usd("money", money),
        "points": row["points"],
        "keptPoints": int(money * row["points_per_unit"] // row["minor_units"]),
        "occurredAt": _at(row["occurred_at"]),
        "recordedAt": _at(row["recorded_at"]),
        "reversedAt": _at(row["reversed_at"]),
        "insertedAt": _inserted(row["id"]),
    }


def _entry(row: Row) -> dict[str, Any]:
    return {
        "id": _id("entry", row["id"]),
        "memberId": _id("member", row["member_id"]),
        "amount": row["amount"],
        "balanceAfter": row["balance_after"],
        "reason": row["reason"],
        "reference": row["reference"],
        "expiresAt": _at(row["expires_at"]),
        "createdAt": _at(row["created_at"]),
        "insertedAt": _inserted(row["id"]),
    }


def _invite(row: Row) -> dict[str, Any]:
    return {
        "id": _id("invite", row["id"]),
        "referrerId": _id("member", row["referrer_id"]),
        "refereeId": _id("member", row["referee_id"]),
        "status": row["status"],
        "createdAt": _at(row["created_at"]),
        "expiresAt": _at(row["expires_at"]),
        "acceptedAt": _at(row["accepted_at"]),
        "convertedAt": _at(row["converted_at"]),
        "insertedAt": _inserted(row["id"]),
    }


def _referral(row: Row) -> dict[str, Any]:
    return {
        "id": _id("referral", row["id"]),
        "inviteId": _id("invite", row["invite_id"]),
        "referrerId": _id("member", row["referrer_id"]),
        "refereeId": _id("member", row["referee_id"]),
        "purchaseId": _id("purchase", row["purchase_id"]),
        "status": "HELD" if row["released_at"] is None else "RELEASED",
        "referrerPoints": row["referrer_points"],
        "refereePoints": row["referee_points"],
        "shortfall": row["shortfall"],
        "flags": ",".join(row["flags"]) or None,
        "convertedAt": _at(row["converted_at"]),
        "releasedAt": _at(row["released_at"]),
        "declinedAt": _at(row["declined_at"]),
        "reversedAt": _at(row["reversed_at"]),
        "insertedAt": _inserted(row["id"]),
    }


async def expected(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """Return what every report must be, newest first, from the tables and nothing else."""

    async def rows(table: str) -> list[Row]:
        return await database().rows(f"SELECT * FROM {table} WHERE merchant_id = $1", shop.merchant_id)

    def newest(found: list[Row]) -> list[Row]:
        return sorted(found, key=lambda row: row["id"].int, reverse=True)

    def by(column: str, found: list[Row]) -> dict[Any, Row]:
        return {row[column]: row for row in found}

    codes, redemptions = await rows("code"), await rows("redemption")
    pools, wallets = by("id", await rows("pool")), by("member_id", await rows("wallet"))
    live = by("code_id", [row for row in redemptions if row["reversed_at"] is None])
    deliveries, owners = by("code_id", await rows("delivery")), {row["id"]: row["member_id"] for row in codes}

    def value(pool: Row) -> dict[str, Any]:
        percent = pool["percent_off"]
        return {
            "percentOff": None if percent is None else float(percent),
            "giftSku": pool["gift_sku"],
            "currency": "USD",
            **_usd("amountOff", pool["amount_off"]),
        }

    def code(row: Row) -> dict[str, Any]:
        pool = pools[row["pool_id"]]
        spent: Mapping[str, Any] = live.get(row["id"], dict.fromkeys(("id", "order_id", "order_amount", "discount")))
        return {
            "id": _id("code", row["id"]),
            "poolId": _id("pool", row["pool_id"]),
            "batchId": _id("batch", row["batch_id"]),
            "campaignId": _id("campaign", deliveries[row["id"]]["campaign_id"]) if row["id"] in deliveries else None,
            "memberId": _id("member", row["member_id"]),
            "redemptionId": _id("redemption", spent["id"]),
            "masked": f"{PREFIXES[pool['kind']]}-••••{row['suffix']}",
            "kind": pool["kind"],
            "state": row["state"],
            "matchedBy": row["matched_by"],
            "bearer": row["bearer"],
            **value(pool),
            "allocatedAt": _at(row["allocated_at"]),
            "expiresAt": _at(row["expires_at"]),
            "redeemedAt": _at(row["redeemed_at"]),
            "orderId": spent["order_id"],
            **_usd("orderAmount", spent["order_amount"]),
            **_usd("discount", spent["discount"]),
            "insertedAt": _inserted(row["id"]),
        }

    def pool(row: Row) -> dict[str, Any]:
        states = [each["state"] for each in codes if each["pool_id"] == row["id"]]
        counted = ("AVAILABLE", "ALLOCATED", "REDEEMED", "EXPIRED", "REVOKED")
        return {
            "id": _id("pool", row["id"]),
            **{name: row[name] for name in ("name", "status", "kind", "stacking", "transferable")},
            **value(row),
            **_usd("minimumSpend", row["minimum_spend"]),
            **_usd("maximumDiscount", row["maximum_discount"]),
            "startsAt": _at(row["starts_at"]),
            "endsAt": _at(row["ends_at"]),
            "codeLifetimeDays": row["code_lifetime_days"],
            "claimsPerMember": row["claims_per_member"],
            "recycleExpired": row["recycle_expired"],
            "fallbackPoolId": _id("pool", row["fallback_pool_id"]),
            "total": len(states),
            **{state.lower(): states.count(state) for state in counted},
            "createdAt": _at(row["created_at"]),
            "insertedAt": _inserted(row["id"]),
        }

    def member(row: Row) -> dict[str, Any]:
        return {
            "id": _id("member", row["id"]),
            "externalId": row["external_id"],
            "source": row["source"],
            "emailVerified": row["email_verified"],
            "points": wallets[row["id"]]["points"],
            "joinedAt": _at(row["joined_at"]),
            "insertedAt": _inserted(row["id"]),
        }

    def redemption(row: Row) -> dict[str, Any]:
        return {
            "id": _id("redemption", row["id"]),
            "codeId": _id("code", row["code_id"]),
            "poolId": _id("pool", row["pool_id"]),
            "memberId": _id("member", owners[row["code_id"]]),
            "source": row["source"],
            "orderId": row["order_id"],
            "position": row["position"],
            **_usd("orderAmount", row["order_amount"]),
            **_usd("base", row["base"]),
            **_usd("discount", row["discount"]),
            "currency": "USD",
            "redeemedAt": _at(row["redeemed_at"]),
            "reversedAt": _at(row["reversed_at"]),
            "insertedAt": _inserted(row["id"]),
        }

    return {
        "pools": [pool(row) for row in newest(list(pools.values()))],
        "codes": [code(row) for row in newest(codes)],
        "members": [member(row) for row in newest(await rows("member"))],
        "purchases": [_purchase(row) for row in newest(await rows("purchase"))],
        "pointsEntries": [_entry(row) for row in newest(await rows("points_entry"))],
        "redemptions": [redemption(row) for row in newest(redemptions)],
        "invites": [_invite(row) for row in newest(await rows("invite"))],
        "referrals": [_referral(row) for row in newest(await rows("referral"))],
    }
