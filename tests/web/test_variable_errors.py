"""Variables that don't fit. Without these a mistyped request could print the codes in it, to whoever reads errors."""

from typing import Any

import pytest

from tests.factories import Shop

REDEEM = "mutation ($i: RedeemCodesInput!) { redeemCodes(input: $i) { __typename } }"
REVERSE = "mutation ($i: ReverseRedemptionInput!) { reverseRedemption(input: $i) { __typename } }"
LIST = "query ($i: Int, $state: CodeState) { codes(first: $i, state: $state) { __typename } }"
CAMPAIGN = "mutation ($i: CreateCampaignInput!) { createCampaign(input: $i) { __typename } }"
ORDER: dict[str, Any] = {"codes": ["PCT-1"], "orderId": "1", "orderAmount": {"amountMinor": 1, "currency": "USD"}}
SECRET = "PCT-7K2SECRET2A"
FIELDS = (
    "which doesn't have all these fields: it has codes, orderId, orderAmount, source, memberId, member, email, eligible"
)
SOURCES = "STORE, SHOPIFY, RECEIPT, REFERRAL, IMPORT"
STATES = "AVAILABLE, ALLOCATED, REDEEMED, EXPIRED, REVOKED"
INSTANT = "DateTime must be RFC 3339 with an offset, like 2026-01-31T09:30:00Z"
EXPECTED = [
    (REDEEM, {"i": ORDER | {"codes": [5]}}, ["Variable '$i' has invalid value at .codes[0]: expected String!."]),
    (
        REDEEM,
        {"i": ORDER | {"codes": [SECRET, {"code": SECRET}, 7]}},
        [
            "Variable '$i' has invalid value at .codes[1]: expected String!.",
            "Variable '$i' has invalid value at .codes[2]: expected String!.",
        ],
    ),
    (
        REDEEM,
        {"i": {"codes": [SECRET], "orderId": SECRET}},
        ["Variable '$i' has invalid value: expected RedeemCodesInput, which needs 'orderAmount'."],
    ),
    (
        REDEEM,
        {"i": ORDER | {SECRET: 5}},
        [f"Variable '$i' has invalid value: expected RedeemCodesInput, {FIELDS}."],
    ),
    (
        REDEEM,
        {"i": ORDER | {"source": SECRET}},
        [f"Variable '$i' has invalid value at .source: expected MemberSource: {SOURCES}."],
    ),
    (REDEEM, {"i": SECRET}, ["Variable '$i' has invalid value: expected RedeemCodesInput!."]),
    (REDEEM, {"i": [ORDER]}, ["Variable '$i' has invalid value: expected RedeemCodesInput!."]),
    (REDEEM, {"i": None}, ["Variable '$i' has invalid value: expected RedeemCodesInput!."]),
    (REDEEM, {}, ["Variable '$i' has invalid value: expected RedeemCodesInput!."]),
    (
        REDEEM,
        {"i": ORDER | {"orderAmount": {"amountMinor": SECRET, "currency": "USD"}}},
        ["Variable '$i' has invalid value at .orderAmount.amountMinor: BigInt must be an integer of 64 bits."],
    ),
    (
        REVERSE,
        {"i": {"redemptionId": 1.5, "reason": "x", "reinstate": SECRET, "expiresAt": SECRET}},
        [
            "Variable '$i' has invalid value at .redemptionId: expected ID!.",
            "Variable '$i' has invalid value at .reinstate: expected Boolean!.",
            f"Variable '$i' has invalid value at .expiresAt: {INSTANT}.",
        ],
    ),
    (
        CAMPAIGN,
        {"i": {"name": "x", "poolId": "x", "recipients": {"email": {"at": SECRET}}}},
        ["Variable '$i' has invalid value at .recipients.email: expected String."],
    ),
    (
        LIST,
        {"i": SECRET, "state": f"{SECRET}: expected, found: "},
        [
            "Variable '$i' has invalid value: expected Int.",
            f"Variable '$state' has invalid value: expected CodeState: {STATES}.",
        ],
    ),
]


@pytest.mark.parametrize(("document", "variables", "messages"), EXPECTED)
async def test_a_variable_is_refused_by_what_was_expected(
    shop: Shop, caplog: pytest.LogCaptureFixture, document: str, variables: dict[str, Any], messages: list[str]
) -> None:
    caplog.set_level("DEBUG")
    answer = await shop.post(document, variables)

    assert [each["message"] for each in answer["errors"]] == messages
    assert {each["extensions"]["code"] for each in answer["errors"]} == {"BAD_USER_INPUT"}
    assert all(each["locations"] for each in answer["errors"])
    assert SECRET not in str(answer)
    assert SECRET not in caplog.text


async def test_of_very_many_the_first_are_told(shop: Shop) -> None:
    answer = await shop.post(REDEEM, {"i": ORDER | {"codes": [{"code": SECRET}] * 200}})

    assert SECRET not in str(answer)
    assert answer["errors"][-1]["message"].startswith("Too many errors processing variables")
