"""The documents of points and rewards, and what their tests look at."""

from typing import Any
from uuid import UUID

from app import ids
from app.points.expire_points import expire_points_of
from app.points.mature_points import mature_points_of
from app.storage.database import database
from tests.factories import CODE, REFUSALS, Shop, usd
from tests.unguarded import unguarded

WALLET_NOW = "version points heldPoints pendingPoints spendablePoints shortfall nextExpiry { points expiresAt }"
ENTRY = """
  id amount balanceAfter reason reference spendableAt expiresAt createdAt
  member { id wallet { version points } }
"""
PURCHASE = """
  id source orderId amount { amountMinor currency } refunded { amountMinor currency } points keptPoints
  paidPoints paidPointsValue { amountMinor currency } occurredAt recordedAt reversedAt
  member { id wallet { version points } }
"""
RETURNED = f"{PURCHASE} refunds {{ id refundId amount {{ amountMinor currency }} refundedAt }}"
REWARD = "id name cost stock active pool { id }"
EXCHANGE = f"""
  id createdAt reversedAt reward {{ {REWARD} }} member {{ id wallet {{ version points }} }} entry {{ {ENTRY} }}
  code {{ {CODE} }}
"""
INSUFFICIENT = "... on InsufficientPoints { balance required }"
RECORD = f"""
mutation ($input: RecordPurchaseInput!) {{
  answer: recordPurchase(input: $input) {{
    __typename ... on RecordPurchaseSuccess {{ replayed entry {{ {ENTRY} }} purchase {{ {PURCHASE} }} }} {REFUSALS}
  }}
}}
"""
REVERSE = f"""
mutation ($input: ReversePurchaseInput!) {{
  answer: reversePurchase(input: $input) {{
    __typename ... on ReversePurchaseSuccess {{ shortfall entry {{ {ENTRY} }} purchase {{ {RETURNED} }} }}
    {REFUSALS} ... on PurchaseAlreadyReversed {{ purchase {{ {RETURNED} }} }}
  }}
}}
"""
REFUND = f"""
mutation ($input: RefundPurchaseInput!) {{
  answer: refundPurchase(input: $input) {{
    __typename
    ... on RefundPurchaseSuccess {{
      replayed shortfall pointsReturned pointsExpired pointsForfeited moneyReturned {{ amountMinor currency }}
      entries {{ {ENTRY} }} purchase {{ {RETURNED} }}
    }}
    {REFUSALS} ... on PurchaseAlreadyReversed {{ purchase {{ {RETURNED} }} }}
    ... on RefundTooLarge {{ refundable {{ amountMinor currency }} }}
  }}
}}
"""
CHECK_REFUND = f"""
query ($input: RefundPurchaseInput!) {{
  answer: checkRefund(input: $input) {{
    __typename
    ... on RefundPreview {{ points shortfall pointsReturned moneyReturned {{ amountMinor currency }} endsReferral }}
    {REFUSALS} ... on PurchaseAlreadyReversed {{ purchase {{ {RETURNED} }} }}
    ... on RefundTooLarge {{ refundable {{ amountMinor currency }} }}
  }}
}}
"""
GRANT = f"""
mutation ($input: GrantPointsInput!) {{
  answer: grantPoints(input: $input) {{
    __typename ... on GrantPointsSuccess {{ replayed entry {{ {ENTRY} }} }} {REFUSALS} {INSUFFICIENT}
  }}
}}
"""
CREATE_REWARD = f"""
mutation ($input: CreateRewardInput!) {{
  answer: createReward(input: $input) {{ __typename ... on CreateRewardSuccess {{ reward {{ {REWARD} }} }} {REFUSALS} }}
}}
"""
EDIT_REWARD = f"""
mutation ($input: EditRewardInput!) {{
  answer: editReward(input: $input) {{ __typename ... on EditRewardSuccess {{ reward {{ {REWARD} }} }} {REFUSALS} }}
}}
"""
RETIRE_REWARD = f"""
mutation ($input: RetireRewardInput!) {{
  answer: retireReward(input: $input) {{ __typename ... on RetireRewardSuccess {{ reward {{ {REWARD} }} }} {REFUSALS} }}
}}
"""
REDEEM_REWARD = f"""
mutation ($input: RedeemRewardInput!) {{
  answer: redeemReward(input: $input) {{
    __typename ... on RedeemRewardSuccess {{ replayed redemption {{ {EXCHANGE} }} }} {REFUSALS} {INSUFFICIENT}
    ... on RewardCostChanged {{ cost }}
  }}
}}
"""
REVERSE_REWARD = f"""
mutation ($input: ReverseRewardRedemptionInput!) {{
  answer: reverseRewardRedemption(input: $input) {{
    __typename
    ... on ReverseRewardRedemptionSuccess {{ replayed entry {{ {ENTRY} }} redemption {{ {EXCHANGE} }} }} {REFUSALS}
  }}
}}
"""
CONFIGURE = f"""
mutation ($input: ConfigureMerchantInput!) {{
  answer: configureMerchant(input: $input) {{
    __typename ... on ConfigureMerchantSuccess {{
      merchant {{
        id
        settings {{
          pointsPerUnit pointValue pointsLifetimeDays pointsWarningDays pointsPendingDays recoverShortfalls
          erasureMemoryDays timeZone
          marginRate advisedPercentMax advisedAmountMax
        }}
      }}
    }}
    {REFUSALS}
  }}
}}
"""
WALLET = f"""
query ($id: ID!, $first: Int, $after: String) {{
  member(id: $id) {{
    wallet {{
      {WALLET_NOW}
      entries(first: $first, after: $after) {{
        edges {{ cursor node {{ {ENTRY} }} }} pageInfo {{ hasNextPage endCursor }}
      }}
    }}
  }}
}}
"""
LIABILITY = """
query ($asOf: DateTime) { pointsLiability(asOf: $asOf) { outstandingPoints value { amountMinor currency } asOf } }
"""
#: Everything that must hold of a merchant's points at any time; each is a list of offenders.
BROKEN = """
WITH chain AS (
    SELECT member_id, amount, balance_after,
        sum(amount) OVER (PARTITION BY member_id ORDER BY created_at, id) AS total
    FROM points_entry WHERE merchant_id = $1
), sums AS (SELECT member_id, sum(amount) AS points FROM points_entry WHERE merchant_id = $1 GROUP BY 1)
SELECT 'balanceAfter' AS broken, member_id FROM chain WHERE total <> balance_after OR balance_after < 0
UNION ALL
SELECT 'balance', w.member_id FROM wallet w LEFT JOIN sums ON sums.member_id = w.member_id
WHERE w.merchant_id = $1 AND w.points <> coalesce(sums.points, 0)
UNION ALL
SELECT 'lots', w.member_id FROM wallet w LEFT JOIN (
    SELECT member_id, sum(remaining) AS points, sum(remaining) FILTER (WHERE is_pending) AS pending
    FROM points_lot WHERE merchant_id = $1 GROUP BY 1
) l ON l.member_id = w.member_id LEFT JOIN (
    SELECT member_id, sum(shortfall) AS shortfall FROM points_return WHERE merchant_id = $1 GROUP BY 1
) r ON r.member_id = w.member_id
WHERE w.merchant_id = $1 AND (w.points, w.pending_points, w.shortfall)
    <> (coalesce(l.points, 0), coalesce(l.pending, 0), coalesce(r.shortfall, 0))
UNION ALL
SELECT 'version', w.member_id FROM wallet w WHERE w.merchant_id = $1 AND w.version <> (
    SELECT count(*) FROM event v WHERE v.merchant_id = $1 AND v.member_id = w.member_id
)
UNION ALL
SELECT 'event', e.member_id FROM points_entry e WHERE e.merchant_id = $1 AND 1 <> (
    SELECT count(*) FROM event v WHERE v.merchant_id = $1 AND v.subject_id = e.id AND v.member_id = e.member_id
        AND v.type = CASE WHEN e.amount > 0 THEN 'points.credited' ELSE 'points.debited' END
)
"""
AGE = """
WITH purchases AS (
    UPDATE purchase SET spendable_at = spendable_at - make_interval(secs => $3)
    WHERE merchant_id = $1 AND ($2::uuid IS NULL OR member_id = $2)
)
UPDATE points_lot SET expires_at = expires_at - make_interval(secs => $3),
    spendable_at = spendable_at - make_interval(secs => $3)
WHERE merchant_id = $1 AND ($2::uuid IS NULL OR member_id = $2)
"""

END = """
UPDATE points_lot SET expires_at = now() - interval '1 second' WHERE merchant_id = $1 AND entry_id IN (
    SELECT entry_id FROM (
        SELECT entry_id, row_number() OVER (PARTITION BY member_id ORDER BY created_at) AS number
        FROM points_lot WHERE merchant_id = $1
    ) numbered WHERE number <= $2
)
"""


async def purchase(shop: Shop, member: Any, order: str, amount: int = 1000, **how: Any) -> Any:
    """Record a purchase in a shop, and return the answer."""
    values: dict[str, Any] = {
        "memberId": member["id"],
        "source": "STORE",
        "orderId": order,
        "amount": usd(amount),
    } | how
    return await shop.do(RECORD, **values)


async def refund(shop: Shop, order: str, refund_id: str, amount: int, **how: Any) -> Any:
    """Refund a part of a purchase, and return the answer."""
    return await shop.do(REFUND, **asked_refund(order, refund_id, amount, **how))


async def check_refund(shop: Shop, order: str, refund_id: str, amount: int, **how: Any) -> Any:
    """Return what a refund would do."""
    return (await shop.data(CHECK_REFUND, {"input": asked_refund(order, refund_id, amount, **how)}))["answer"]


def asked_refund(order: str, refund_id: str, amount: int, **how: Any) -> dict[str, Any]:
    """Return what asks for a refund."""
    values: dict[str, Any] = {
        "source": "STORE", "orderId": order, "refundId": refund_id, "amount": usd(amount), "reason": "returned"
    }  # fmt: skip
    return values | how


async def grant(shop: Shop, member: Any, amount: int, key: str, **how: Any) -> Any:
    """Give or take points, and return the answer."""
    values: dict[str, Any] = {
        "memberId": member["id"],
        "amount": amount,
        "reference": "goodwill",
        "idempotencyKey": key,
    } | how
    return await shop.do(GRANT, **values)


async def reward(shop: Shop, **input: Any) -> Any:
    """Create a reward."""
    return (await shop.do(CREATE_REWARD, **(dict[str, Any](name="Mug", cost=100) | input)))["reward"]


async def redeem(shop: Shop, reward: Any, member: Any, key: str, **how: Any) -> Any:
    """Redeem a reward for a member, and return the answer."""
    return await shop.do(REDEEM_REWARD, rewardId=reward["id"], memberId=member["id"], idempotencyKey=key, **how)


async def points(shop: Shop, member: Any) -> int:
    """Return a member's points."""
    found: int = (await shop.data(WALLET, {"id": member["id"]}))["member"]["wallet"]["points"]
    return found


async def entries(shop: Shop, member: Any) -> list[tuple[int, int, str]]:
    """Return amount, balance and reason of a member's entries, oldest first."""
    listed = (await shop.data(WALLET, {"id": member["id"], "first": 100}))["member"]["wallet"]["entries"]["edges"]
    nodes = [edge["node"] for edge in reversed(listed)]
    return [(node["amount"], node["balanceAfter"], node["reason"]) for node in nodes]


async def broken(shop: Shop) -> list[Any]:
    """Return what doesn't hold of this shop's points: an empty list."""
    return [tuple(row.values()) for row in await database().rows(BROKEN, shop.merchant_id)]


def member_uuid(member: Any) -> UUID:
    """Return the row id of a member."""
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    return member_id


async def days_later(shop: Shop, member: Any, days: float) -> None:
    """Let days pass for a member's points, then end the pending that is over, and expire what is due."""
    await age(shop, member, days)
    await mature_points_of(shop.merchant_id)
    await expire_points_of(shop.merchant_id)


async def age(shop: Shop, member: Any | None, days: float) -> None:
    """Bring the dates of a member's points, or of everybody's, so many days nearer."""
    await _date_anew(shop, AGE, None if member is None else member_uuid(member), days * 86_400)


async def end(shop: Shop, count: int) -> None:
    """Let each member's oldest credits be due for expiry."""
    await _date_anew(shop, END, count)


async def _date_anew(shop: Shop, statement: str, *values: object) -> None:
    """Change dates of lots, which nothing else does."""
    async with unguarded("points_lot") as tx:
        await tx.row(statement, shop.merchant_id, *values)


async def wallet(shop: Shop, member: Any) -> Any:
    """Return a member's wallet."""
    return (
        await shop.data(f"query ($id: ID!) {{ member(id: $id) {{ wallet {{ {WALLET_NOW} }} }} }}", {"id": member["id"]})
    )["member"]["wallet"]
