"""The share of a small real model's suggestions that survives the checks; not part of `make bench`.

It needs an OpenAI-compatible endpoint; docs/advisor.md says how to run one from two wheels. For example:
`FLASH_ADVISOR_BASE_URL=http://127.0.0.1:8080/v1 FLASH_ADVISOR_TIMEOUT_SECONDS=240 python -m bench.advisor_model 10`
"""

import asyncio
import sys
from collections import Counter
from dataclasses import replace

from app.advisor.checks import check
from app.advisor.endpoint import Endpoint
from app.advisor.facts import Facts, PoolFact, SegmentFact
from app.advisor.portfolio import SEGMENTS
from app.advisor.proposals import Unanswered
from app.config import settings


def _pool(ref: str, name: str, **known: object) -> PoolFact:
    start = PoolFact(
        ref=ref, name=name, status="ACTIVE", is_live=True, kind="PERCENT", percent_off=None, amount_off=None,
        gift_sku=None, minimum_spend=None, codes=500, held=200, redeemed=60, redeemed_in_90_days=40, claim_rate=0.4,
        redemption_rate=0.3, share=1.0, growth=0.2, margin_impact=52_000, quadrant="STAR", reaches=("new", "active"),
    )  # fmt: skip
    return replace(start, **known)  # type: ignore[arg-type]


def merchant(number: int) -> Facts:
    """Return the made-up facts of a shop; each shop is a little different."""
    members = {"new": 120, "active": 640, "lapsed": 300 + 40 * number, "high spend": 64, "advocates": 9 + number}
    return Facts(
        currency="USD", minor_units=100, margin_rate=0.35 + 0.01 * number, margin_rate_is_known=True, percent_max=None,
        amount_max=None, order_value=4_200 + 100 * number, redemption_rate=0.26,
        pools=(
            _pool("P1", "Welcome", percent_off=10.0),
            _pool("P2", "Five off", kind="AMOUNT", amount_off=500, quadrant="CASH_COW", growth=0.0, share=0.8),
            _pool("P3", "Free mug", kind="GIFT", gift_sku="mug", quadrant="DOG", share=0.1, growth=-0.4, redeemed=4),
        ),
        segments=tuple(
            SegmentFact(
                name=name, definition=definition, members=members[name], spend=members[name] * 9_000,
                orders=members[name] * 2, order_value=4_500, codes=members[name], redemption_rate=0.2 + 0.02 * place,
            )
            for place, (name, definition) in enumerate(SEGMENTS.items())
        ),
    )  # fmt: skip


async def main(shops: int) -> None:
    """Ask for suggestions for each shop, and print what became of them."""
    outcomes: Counter[str] = Counter()
    answered = corrected = figures = 0
    for number in range(shops):
        known = merchant(number)
        endpoint = Endpoint(settings(), known)
        try:
            proposals = await endpoint.propose()
        except Unanswered as unanswered:
            outcomes[f"no answer: {unanswered}"] += 1
            print(f"{number + 1}: {unanswered}")
            continue
        answered += 1
        kept, dropped = check(proposals, known)
        outcomes["survived"] += len(kept)
        outcomes.update(each.reason.value for each in dropped)
        figures += sum(len(each.figures) for each in kept)
        corrected += sum(figure.proposed != figure.checked for each in kept for figure in each.figures)
        print(f"{number + 1}: {len(proposals)} proposed, {len(kept)} survived, asked {len(endpoint.said)} times")
    print(f"{answered} of {shops} answered. {dict(outcomes)}. {corrected} of {figures} figures were corrected.")


if __name__ == "__main__":
    if settings().advisor_base_url is None:
        sys.exit("FLASH_ADVISOR_BASE_URL names no endpoint.")
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
