"""Documents about holds, and what tests do with them."""

from typing import Any

from app import ids
from tests.factories import CODE, REFUSALS, Shop, usd
from tests.orders.documents import unguarded

HOLD_FIELDS = f"""
  id status source orderId heldUntil points pointsValue {{ amountMinor currency }} member {{ id wallet {{ version }} }}
  orderAmount {{ amountMinor currency }} totalDiscount {{ amountMinor currency }} amountDue {{ amountMinor currency }}
  rewards {{ cost reward {{ id stock }} redemption {{ id code {{ id state }} entry {{ amount reason }} }} }}
  codes {{ discount {{ amountMinor currency }} code {{ heldUntil {CODE} }} }}
  redemptions {{ id position base {{ amountMinor }} discount {{ amountMinor }} reversedAt code {{ id state }} }}
"""
REJECTIONS = "rejections { masked reason remedy { heldUntil } }"
HOLD_NOT_OPEN = f"... on HoldNotOpen {{ hold {{ {HOLD_FIELDS} }} {REJECTIONS} pointsMissing rewardsMissing }}"
HOLD = f"""
mutation ($input: HoldCheckoutInput!) {{
  answer: holdCheckout(input: $input) {{
    __typename ... on HoldCheckoutSuccess {{ takenOver hold {{ {HOLD_FIELDS} }} }}
    {REFUSALS} ... on OrderNotOpen {{ order {{ id orderId cancelledAt }} }} {HOLD_NOT_OPEN}
    ... on CodesRejected {{ {REJECTIONS} }} ... on InsufficientPoints {{ balance required }}
  }}
}}
"""
CAPTURE = f"""
mutation ($input: CaptureHoldInput!) {{
  answer: captureHold(input: $input) {{
    __typename ... on CaptureHoldSuccess {{ replayed hold {{ {HOLD_FIELDS} }} }} {REFUSALS} {HOLD_NOT_OPEN}
  }}
}}
"""
RELEASE = f"""
mutation ($input: ReleaseHoldInput!) {{
  answer: releaseHold(input: $input) {{
    __typename ... on ReleaseHoldSuccess {{ replayed hold {{ {HOLD_FIELDS} }} }} {REFUSALS} {HOLD_NOT_OPEN}
  }}
}}
"""
EXTEND = f"""
mutation ($input: ExtendHoldInput!) {{
  answer: extendHold(input: $input) {{
    __typename ... on ExtendHoldSuccess {{ hold {{ {HOLD_FIELDS} }} }} {REFUSALS} {HOLD_NOT_OPEN}
  }}
}}
"""
READ_HOLD = f"query ($id: ID!) {{ hold(id: $id) {{ {HOLD_FIELDS} }} }}"
PASS = """
UPDATE hold SET held_at = held_at - interval '8 days', held_until = now() - interval '1 second'
WHERE merchant_id = $1 AND id = $2
"""
PASS_CODES = "UPDATE code SET held_until = now() - interval '1 second' WHERE merchant_id = $1 AND hold_id = $2"


def cart(codes: list[Any], member: Any = None, *, order: str = "A-1", amount: int = 10_000, **input: Any) -> Any:
    """Return the input that holds codes for an order of a member."""
    presenter = {} if member is None else {"memberId": member["id"]}
    texts = [code["text"] for code in codes]
    return {"codes": texts, "orderId": order, "orderAmount": usd(amount)} | presenter | input


async def hold(shop: Shop, codes: list[Any], member: Any = None, **input: Any) -> Any:
    """Hold codes for order A-1 of a member, unless told, and return the hold."""
    answer = await shop.do(HOLD, **cart(codes, member, **input))
    assert answer["__typename"] == "HoldCheckoutSuccess", answer
    return answer["hold"]


async def read(shop: Shop, held: Any, **how: Any) -> Any:
    """Return a hold as it can be read."""
    return (await shop.data(READ_HOLD, {"id": held["id"]}, **how))["hold"]


async def let_pass(shop: Shop, held: Any) -> None:
    """Move the time of a hold into the past."""
    hold_id = ids.decode("hold", held["id"])
    await unguarded(shop, PASS, hold_id)
    await unguarded(shop, PASS_CODES, hold_id)


def reasons(answer: Any) -> list[str]:
    """Return why codes were refused."""
    return [rejection["reason"] for rejection in answer["rejections"]]
