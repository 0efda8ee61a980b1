"""What of a proposal may be shown: figures computed from the facts, discounts within their caps, nothing twice. Pure.

Nothing that a proposal says is believed: its segment and the pools that it cites must exist, its figures are replaced,
and its words are kept only if every number in them, in digits or in words, is a checked figure.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from app.advisor import wording
from app.advisor.facts import Facts, PoolFact, SegmentFact
from app.advisor.numbers import numbers_in
from app.advisor.proposals import Proposal
from app.advisor.suggestions import AdviceRejectionReason, Draft, Figure, Rejection, Suggestion
from app.api.inputs import MONEY_MAX

SUGGESTIONS_MAX: Final = 5
#: Of the margin on an order a discount may give away at most this share: no suggestion sells without profit.
MARGIN_SHARE_MAX: Final = 0.5
#: A minimum spend may be at most so many average orders.
MINIMUM_SPEND_ORDERS_MAX: Final = 4
CLAIMS_PER_MEMBER_MAX: Final = 3
PERCENT_MIN: Final = 0.5
#: Two values of one kind are the same offer when they differ by less than this share of the larger one.
NEAR: Final = 0.2
#: A segment's own redemption rate is believed from so many codes on; below that all members' is.
CODES_MIN: Final = 20
#: What "free" says of an offer that isn't a gift: all is taken off.
FREE_PERCENT: Final = 100.0
_URL: Final = re.compile(r"://|www\.|\S@\S")


class _Dropped(Exception):  # noqa: N818  (an answer on its way out)
    def __init__(self, reason: AdviceRejectionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check(proposals: Iterable[Proposal], facts: Facts) -> tuple[list[Suggestion], list[Rejection]]:
    """Return what may be shown, and what was dropped and why, both in the order of the proposals."""
    suggestions: list[Suggestion] = []
    rejections: list[Rejection] = []
    pools = {pool.ref: pool for pool in facts.pools}
    for proposal in proposals:
        try:
            suggestion = _checked(proposal, facts, pools)
            _refuse_surplus(suggestion, suggestions)
            suggestions.append(suggestion)
        except _Dropped as dropped:
            title = wording.cleaned(proposal.title, length_max=200) or f"{proposal.kind} for {proposal.segment}"
            rejections.append(Rejection(wording.cleaned(title, length_max=200), dropped.reason, str(dropped)))
    return suggestions, rejections


def percent_cap(facts: Facts) -> float:
    """Return the highest percentage that may be suggested: two decimals, rounded down."""
    cap = min(100.0, facts.margin_rate * MARGIN_SHARE_MAX * 100, facts.percent_max or 100.0)
    return math.floor(cap * 100 + 1e-9) / 100


def amount_cap(facts: Facts, order_value: int) -> int:
    """Return the highest amount that may be taken off orders of an average value: whole minor units."""
    cap = math.floor(order_value * facts.margin_rate * MARGIN_SHARE_MAX + 1e-9)
    return cap if facts.amount_max is None else min(cap, facts.amount_max)


def order_value_of(facts: Facts, segment: SegmentFact) -> int | None:
    """Return what an order of the segment is worth, or of all members where the segment has none."""
    return segment.order_value or facts.order_value


def is_near(one: float | str | None, other: float | str | None) -> bool:
    """Whether two values of one kind are the same offer."""
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return one == other
    return abs(one - other) < NEAR * max(one, other) or one == other


def runs_already(facts: Facts, segment: str, kind: str, value: float | str | None) -> PoolFact | None:
    """Return a live pool that gives the segment nearly this."""
    return next((pool for pool in _live_pools(facts, segment, kind) if is_near(value, pool.value)), None)


def given_by_pools(facts: Facts, segment: str, kind: str) -> set[float | str]:
    """Return the values of a kind that live pools give the segment."""
    return {pool.value for pool in _live_pools(facts, segment, kind) if pool.value is not None}


def _live_pools(facts: Facts, segment: str, kind: str) -> Iterator[PoolFact]:
    return (pool for pool in facts.live_pools if pool.kind == kind and segment in pool.reaches)


def _is_same(one: Suggestion, other: Suggestion) -> bool:
    same_place = (one.segment, one.draft.kind) == (other.segment, other.draft.kind)
    return same_place and is_near(one.draft.value, other.draft.value)


def _refuse_surplus(suggestion: Suggestion, before: list[Suggestion]) -> None:
    if any(_is_same(suggestion, other) for other in before):
        raise _Dropped(AdviceRejectionReason.DUPLICATES_SUGGESTION, "An earlier suggestion gives nearly that.")
    if len(before) == SUGGESTIONS_MAX:
        raise _Dropped(AdviceRejectionReason.SURPLUS, f"There are {SUGGESTIONS_MAX} before it.")


def _checked(proposal: Proposal, facts: Facts, pools: Mapping[str, PoolFact]) -> Suggestion:
    segment = facts.segment(proposal.segment)
    if segment is None:
        raise _Dropped(AdviceRejectionReason.UNKNOWN_SEGMENT, "There is no such segment.")
    if not pools.keys() >= set(proposal.pools):
        raise _Dropped(AdviceRejectionReason.UNKNOWN_POOL, "It cites a pool that there isn't.")
    cited = [pools[ref] for ref in proposal.pools]
    order_value = order_value_of(facts, segment)
    figures: list[Figure] = []
    percent_off = amount_off = gift_sku = maximum_discount = None
    least_spend = 0
    if proposal.kind == "PERCENT":
        percent_off = _percent(proposal, facts, figures)
        maximum_discount = _maximum_discount(proposal, facts, percent_off, order_value, figures)
    elif proposal.kind == "AMOUNT":
        amount_off, least_spend = _amount(proposal, facts, segment, figures)
    else:
        gift_sku = _gift(proposal, facts)
    minimum_spend = _minimum_spend(proposal, order_value, least_spend, figures)
    claims = _claims(proposal, figures)
    draft = Draft(
        "", proposal.kind, percent_off, amount_off, gift_sku, minimum_spend, maximum_discount, claims
    )  # fmt: skip
    live = runs_already(facts, segment.name, draft.kind, draft.value)
    if live is not None:
        message = f"{live.ref} ({live.name}) gives the segment nearly that already."
        raise _Dropped(AdviceRejectionReason.DUPLICATES_POOL, message)
    figures += _expectations(proposal, facts, segment, draft, order_value)
    return _worded(proposal, facts, segment, draft, cited, figures)


def _positive(value: float | None, what: str) -> float:
    if value is None or value <= 0:
        raise _Dropped(AdviceRejectionReason.MALFORMED, f"It has no {what} over 0.")
    return value


def _percent(proposal: Proposal, facts: Facts, figures: list[Figure]) -> float:
    proposed = _positive(proposal.percent_off, "percentage")
    cap = percent_cap(facts)
    if cap < PERCENT_MIN:
        raise _Dropped(AdviceRejectionReason.NO_MARGIN, f"At most {cap:g} % may be taken off.")
    checked = max(PERCENT_MIN, math.floor(min(proposed, cap) * 100) / 100)
    basis = f"at most {MARGIN_SHARE_MAX:.0%} of the margin rate {_rate(facts)}"
    if facts.percent_max is not None:
        basis += f", and {facts.percent_max:g} % as the merchant's own limit"
    figures.append(Figure("percentOff", proposed, checked, cap, basis))
    return checked


def _amount(proposal: Proposal, facts: Facts, segment: SegmentFact, figures: list[Figure]) -> tuple[int, int]:
    """Return the amount, and what an order must be worth at least to bear it."""
    proposed = _positive(proposal.amount_off, "amount")
    order_value = order_value_of(facts, segment)
    if order_value is None:
        raise _Dropped(AdviceRejectionReason.UNKNOWN_ORDER_VALUE, "Nobody has bought anything within 365 days.")
    cap = amount_cap(facts, order_value)
    if cap < 1:
        raise _Dropped(AdviceRejectionReason.NO_MARGIN, "The margin of an average order leaves no room.")
    checked = max(1, math.floor(min(proposed, cap)))
    basis = (
        f"at most {MARGIN_SHARE_MAX:.0%} of the margin rate {_rate(facts)} of an average order of {order_value} minor "
        "units"
    )
    if facts.amount_max is not None:
        basis += f", and {facts.amount_max} as the merchant's own limit"
    figures.append(Figure("amountOff", proposed, checked, cap, basis))
    least_spend = math.ceil(checked / (facts.margin_rate * MARGIN_SHARE_MAX) - 1e-9)
    # Whole units of the currency look like an offer.
    whole = -(-least_spend // facts.minor_units) * facts.minor_units
    return checked, whole if least_spend > facts.minor_units else least_spend


def _gift(proposal: Proposal, facts: Facts) -> str | None:
    """Return the article; rules may leave the choice to the person that adopts the suggestion."""
    if proposal.gift_sku is not None and proposal.gift_sku not in facts.gifts:
        raise _Dropped(AdviceRejectionReason.UNKNOWN_GIFT, "No pool has ever given this article.")
    return proposal.gift_sku


def _minimum_spend(proposal: Proposal, order_value: int | None, least_spend: int, figures: list[Figure]) -> int | None:
    """Return what an order must be worth: as proposed, within what the discount needs and a few average orders."""
    proposed = proposal.minimum_spend or 0.0
    if order_value is None or max(proposed, least_spend) < 1:
        if proposed:
            figures.append(Figure("minimumSpend", proposed, 0, 0, "left out: no purchase tells what orders are worth"))
        return None
    cap = min(MONEY_MAX, max(least_spend, MINIMUM_SPEND_ORDERS_MAX * order_value))
    checked = int(min(max(proposed, least_spend), cap))
    basis = f"at most {MINIMUM_SPEND_ORDERS_MAX} average orders of {order_value} minor units"
    if least_spend:
        basis += f"; at least {least_spend}, so that the discount stays within the margin of the smallest order"
    figures.append(Figure("minimumSpend", proposed, checked, cap, basis))
    return checked


def _maximum_discount(
    proposal: Proposal, facts: Facts, percent_off: float, order_value: int | None, figures: list[Figure]
) -> int | None:
    """Return the most that a percentage may take off: within the merchant's limit, and that of a few orders."""
    caps = [] if facts.amount_max is None else [facts.amount_max]
    if order_value is not None:
        caps.append(min(MONEY_MAX, max(1, math.floor(MINIMUM_SPEND_ORDERS_MAX * order_value * percent_off / 100))))
    proposed = proposal.maximum_discount
    if not caps or (facts.amount_max is None and (proposed is None or proposed < 1)):
        if proposed:
            figures.append(
                Figure("maximumDiscount", proposed, 0, 0, "left out: no purchase tells what orders are worth")
            )
        return None
    cap = min(caps)
    checked = int(min(proposed, cap)) if proposed is not None and proposed >= 1 else cap
    basis = "the merchant's own limit" if cap == facts.amount_max else "what it takes off a few average orders"
    figures.append(Figure("maximumDiscount", float(checked if proposed is None else proposed), checked, cap, basis))
    return checked


def _claims(proposal: Proposal, figures: list[Figure]) -> int:
    checked = int(min(max(proposal.claims_per_member, 1), CLAIMS_PER_MEMBER_MAX))
    basis = f"1 to {CLAIMS_PER_MEMBER_MAX} codes for each member"
    figures.append(Figure("claimsPerMember", proposal.claims_per_member, checked, CLAIMS_PER_MEMBER_MAX, basis))
    return checked


def redemption_rate_of(facts: Facts, segment: SegmentFact) -> tuple[float, str]:
    """Return which share of their codes the segment's members redeem, and where that is from."""
    if segment.codes >= CODES_MIN:
        return segment.redemption_rate, f"codes redeemed of the {segment.codes} that the segment's members had"
    return facts.redemption_rate, f"of all members: the segment's had only {segment.codes} codes"


def _expectations(
    proposal: Proposal, facts: Facts, segment: SegmentFact, draft: Draft, order_value: int | None
) -> list[Figure]:
    rate, rate_basis = redemption_rate_of(facts, segment)
    figures = [
        Figure(
            "audience", float(segment.members if proposal.audience is None else proposal.audience), segment.members,
            segment.members, f"members that {segment.definition}",
        ),
        Figure("redemptionRate", rate if proposal.redemption_rate is None else proposal.redemption_rate, rate, 1.0,
               rate_basis),
    ]  # fmt: skip
    if order_value is not None and draft.kind != "GIFT":
        order = max(order_value, draft.minimum_spend or 0)
        discount = order * (draft.percent_off or 0) / 100 + (draft.amount_off or 0)
        discount = min(discount, draft.maximum_discount or discount)
        gain = float(round(segment.members * rate * (order * facts.margin_rate - discount)))
        basis = "audience x redemption rate x (order x margin rate - discount), in minor units, if all get a code"
        figures.append(Figure("marginImpact", gain, gain, None, basis))
    return figures


def _worded(
    proposal: Proposal, facts: Facts, segment: SegmentFact, draft: Draft, cited: list[PoolFact], figures: list[Figure]
) -> Suggestion:
    """Name and explain a suggestion: in its own words where these hold, in ours where they don't."""
    title = wording.cleaned(proposal.title, length_max=120)
    if not _holds(title, facts, draft, figures):
        title = wording.title(facts, segment.name, draft)
    rationale = wording.cleaned(proposal.rationale, length_max=1_000)
    if not _holds(rationale, facts, draft, figures):
        rationale = wording.rationale(facts, segment, draft, cited)
    named = Draft(**(_fields(draft) | {"name": title}))
    return Suggestion(title, rationale, segment.name, named, tuple(figures))


def _fields(draft: Draft) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in Draft.__slots__}


def _holds(text: str, facts: Facts, draft: Draft, figures: list[Figure]) -> bool:
    """Whether a text says something, leads nowhere, and every number in it is a checked figure."""
    if _URL.search(text) or not any(character.isalpha() for character in text):
        return False
    true = {round(figure.checked, 2) for figure in figures if figure.name not in {"redemptionRate", "marginImpact"}}
    true |= {round(amount / facts.minor_units, 2) for amount in (
        draft.amount_off, draft.minimum_spend, draft.maximum_discount
    ) if amount}  # fmt: skip
    true |= {round(figure.checked * 100) for figure in figures if figure.name == "redemptionRate"}
    said = numbers_in(text, free=None if draft.kind == "GIFT" else FREE_PERCENT)
    return all(number is not None and round(number, 2) in true for number in said)


def _rate(facts: Facts) -> str:
    return f"{facts.margin_rate:g}{'' if facts.margin_rate_is_known else ' (assumed)'}"
