"""The documents of the advisor, worlds for it to look at, and its runs worked here as a worker would."""

from typing import Any, Final

from app import ids
from app.advisor.advise import advise_waiting
from app.advisor.facts import Facts, PoolFact, SegmentFact
from app.advisor.portfolio import SEGMENTS
from app.storage.database import database
from tests.factories import Shop

MONEY: Final = "{ amountMinor currency }"
PORTFOLIO: Final = f"""
{{
  portfolio {{
    generatedAt
    pools {{
      pool {{ id name }} claimRate redemptionRate redemptionShare redemptionGrowth marginImpact {MONEY} quadrant
    }}
    segments {{ name memberCount redemptionRate spend {MONEY} }}
  }}
}}
"""
DRAFT: Final = f"""
  name kind percentOff amountOff {MONEY} giftSku minimumSpend {MONEY} maximumDiscount {MONEY} claimsPerMember audience
"""
RUN: Final = f"""
  id status source model promptVersion poolsTold fallbackReason requestedAt startedAt finishedAt problem facts rawAnswer
  suggestions {{
    id title rationale segment audience pool {{ id }} draft {{ {DRAFT} }} figures {{ name proposed checked cap basis }}
  }}
  rejected {{ title reason message }}
"""
ASK: Final = f"mutation {{ answer: askAdvisor {{ __typename ... on AskAdvisorSuccess {{ run {{ {RUN} }} }} }} }}"
ADVICE_RUN: Final = f"query ($id: ID!) {{ adviceRun(id: $id) {{ {RUN} }} }}"
FOLLOW: Final = "subscription Live($run: ID!) { adviceRunChanged(id: $run) { id status suggestions { title } } }"

#: Lets what a merchant's customers did be so many days ago.
AGE_REDEMPTIONS: Final = """
UPDATE redemption SET redeemed_at = now() - make_interval(days => $3) WHERE merchant_id = $1 AND order_id = ANY($2)
"""
AGE_PURCHASES: Final = """
WITH b AS (
    UPDATE purchase SET occurred_at = now() - make_interval(days => $3) WHERE merchant_id = $1 AND order_id = ANY($2)
    RETURNING id, member_id, occurred_at
)
UPDATE member SET last_bought_at = greatest((SELECT max(occurred_at) FROM b WHERE b.member_id = member.id), (
    SELECT max(occurred_at) FROM purchase
    WHERE merchant_id = $1 AND member_id = member.id AND reversed_at IS NULL AND id <> ALL(ARRAY(SELECT id FROM b))
)) WHERE merchant_id = $1 AND id IN (SELECT member_id FROM b)
"""
AGE_MEMBERS: Final = """
UPDATE member SET joined_at = now() - make_interval(days => $3) WHERE merchant_id = $1 AND id = ANY($2)
"""


async def ask(shop: Shop) -> Any:
    """Ask the advisor, and return the run."""
    return (await shop.data(ASK))["answer"]["run"]


async def read(shop: Shop, run: Any, **how: Any) -> Any:
    """Return a run as it is now."""
    return (await shop.data(ADVICE_RUN, {"id": run["id"]}, **how))["adviceRun"]


async def advised(shop: Shop) -> Any:
    """Ask the advisor, work the run here, and return it; more than one test may ask at once."""
    run = await ask(shop)
    while run["status"] not in {"DONE", "FAILED"}:
        await advise_waiting(seconds_max=60)
        run = await read(shop, run)
    return run


async def age(statement: str, shop: Shop, what: list[Any], days: int) -> None:
    """Make orders or members so many days older."""
    named = [ids.decode("member", each["id"]) if isinstance(each, dict) else each for each in what]
    await database().row(statement, shop.merchant_id, named, days)


def pool_fact(**known: Any) -> PoolFact:
    """Return the facts of a live pool of 10 %, that reaches everybody."""
    values: dict[str, Any] = {
        "ref": "P1", "name": "Welcome", "status": "ACTIVE", "is_live": True, "kind": "PERCENT", "percent_off": 10.0,
        "amount_off": None, "gift_sku": None, "minimum_spend": None, "codes": 100, "held": 50, "redeemed": 10,
        "redeemed_in_90_days": 10, "claim_rate": 0.5, "redemption_rate": 0.2, "share": 1.0, "growth": 0.0,
        "margin_impact": 1000, "quadrant": "CASH_COW", "reaches": tuple(SEGMENTS),
    }  # fmt: skip
    return PoolFact(**(values | known))


def segment_facts(**members: int) -> tuple[SegmentFact, ...]:
    """Return the facts of all segments, with 100 members each unless told (`high_spend` for `high spend`)."""
    counts = {name.replace("_", " "): count for name, count in members.items()}
    return tuple(
        SegmentFact(
            name=name, definition=definition, members=counts.get(name, 100), spend=500_000, orders=100,
            order_value=5_000, codes=40, redemption_rate=0.25,
        )
        for name, definition in SEGMENTS.items()
    )  # fmt: skip


def facts(**known: Any) -> Facts:
    """Return the facts of a merchant with one pool, a margin rate of 0.4 and orders of 50.00."""
    values: dict[str, Any] = {
        "currency": "USD", "minor_units": 100, "margin_rate": 0.4, "margin_rate_is_known": True, "percent_max": None,
        "amount_max": None, "order_value": 5_000, "redemption_rate": 0.25, "pools": (pool_fact(),),
        "segments": segment_facts(),
    }  # fmt: skip
    return Facts(**(values | known))
