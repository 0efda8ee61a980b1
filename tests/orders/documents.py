"""Documents about orders, and what tests do with them."""

import itertools
from typing import Any

from app.storage.database import transaction
from tests.factories import CODE, REFUSALS, Shop, usd

ORDER_FIELDS = """
  id source orderId cancelledAt purchase { id amount { amountMinor } reversedAt }
  redemptions { id source orderId position discount { amountMinor } reversedAt code { id } }
"""
ORDER = f"""
query ($source: MemberSource! = STORE, $orderId: String!) {{
  order(source: $source, orderId: $orderId) {{ {ORDER_FIELDS} }}
}}
"""
NOT_OPEN = "... on OrderNotOpen { order { id source orderId cancelledAt redemptions { id } } }"
AMEND = f"""
mutation ($input: AmendOrderInput!) {{
  answer: amendOrder(input: $input) {{
    __typename
    ... on AmendOrderSuccess {{
      replayed shortfall pointsReturned totalDiscount {{ amountMinor currency }} amountDue {{ amountMinor currency }}
      purchase {{
        id amount {{ amountMinor }} paidPoints paidPointsValue {{ amountMinor }} points keptPoints
        member {{ wallet {{ version points }} }}
      }}
      redemptions {{
        id position orderAmount {{ amountMinor }} base {{ amountMinor }} discount {{ amountMinor }}
        redeemedAt reversedAt code {{ {CODE} }}
      }}
    }}
    {REFUSALS} ... on CodesRejected {{ rejections {{ masked reason }} }} {NOT_OPEN}
    ... on InsufficientPoints {{ balance required }}
  }}
}}
"""
CANCEL = f"""
mutation ($input: CancelOrderInput!) {{
  answer: cancelOrder(input: $input) {{
    __typename
    ... on CancelOrderSuccess {{
      replayed moneyReturned {{ amountMinor currency }} pointsReturned pointsExpired shortfall kept {{ id }}
      order {{ {ORDER_FIELDS} }}
    }}
    {REFUSALS}
  }}
}}
"""
_numbers = itertools.count(1)


async def order_of(shop: Shop, order_id: str, source: str = "STORE", **how: Any) -> Any:
    """Return an order as it can be read."""
    return (await shop.data(ORDER, {"source": source, "orderId": order_id}, **how))["order"]


def amendment(codes: list[Any], member: Any = None, amount: int = 10_000, **input: Any) -> dict[str, Any]:
    """Return the input of an amendment of order A-1, with a key of its own unless told."""
    presenter = {} if member is None else {"memberId": member["id"]}
    return {
        "codes": [code["text"] for code in codes],
        "orderId": "A-1",
        "orderAmount": usd(amount),
        "reason": "a changed cart",
        "idempotencyKey": f"amendment-{next(_numbers)}",
    } | presenter | input  # fmt: skip


def cancellation(**input: Any) -> dict[str, Any]:
    """Return the input that calls order A-1 off."""
    return {"orderId": "A-1", "reason": "out of stock"} | input


def shares(answer: Any) -> list[tuple[int, int, int]]:
    """Return position, base and discount of each redemption of an answer."""
    assert answer["__typename"].endswith("Success"), answer
    return [
        (each["position"], each["base"]["amountMinor"], each["discount"]["amountMinor"])
        for each in answer["redemptions"]
    ]


async def stackable(shop: Shop, member: Any, count: int) -> list[Any]:
    """Claim codes of one stackable pool."""
    pool = await shop.pool(codes=count, claimsPerMember=count, stacking="STACKABLE")
    return [await shop.claim(pool, member, idempotencyKey=f"{pool['id']} {number}") for number in range(count)]


async def stacked(shop: Shop, member: Any, *percents: float, amount: int = 10_000) -> tuple[list[Any], list[Any]]:
    """Redeem codes of stackable pools on order A-1. Returns the codes and the redemptions."""
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE", percentOff=each), member) for each in percents]
    redeemed = await shop.redeem([code["text"] for code in codes], member, order="A-1", amount=amount)
    assert redeemed["__typename"] == "RedeemCodesSuccess", redeemed
    return codes, redeemed["redemptions"]


async def unguarded(shop: Shop, statement: str, *values: Any) -> None:
    """Change rows of a merchant's that triggers hold; they are put aside for this transaction."""
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        await tx.rows(statement, shop.merchant_id, *values)
