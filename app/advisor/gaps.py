"""What no live pool gives a segment yet, and could: of each kind some values within the caps. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from app.advisor.checks import amount_cap, given_by_pools, is_near, order_value_of, percent_cap
from app.advisor.facts import Facts, SegmentFact
from app.advisor.proposals import ProposedKind

#: Of each kind for a segment, spread over all that there are.
VALUES_MAX: Final = 8
#: A discount below this share of the highest one is no offer that anybody would notice.
SHARE_MIN: Final = 0.25
STEPS_MAX: Final = 100

#: The values of each kind: percentages, amounts in minor units, articles.
Values = Mapping[ProposedKind, Sequence[int | str]]


def gaps(facts: Facts) -> dict[str, Values]:
    """Return the values that are free, by segment and kind; a segment or kind without any isn't there."""
    found = {segment.name: _free(facts, segment) for segment in facts.segments}
    return {name: values for name, values in found.items() if values}


def _free(facts: Facts, segment: SegmentFact) -> Values:
    order_value = order_value_of(facts, segment)
    highest_amount = 0 if order_value is None else amount_cap(facts, order_value)
    given = given_by_pools(facts, segment.name, "GIFT")
    free: dict[ProposedKind, list[int | str]] = {
        "PERCENT": _apart(facts, segment, "PERCENT", _steps(math.floor(percent_cap(facts)), 1)),
        "AMOUNT": _apart(facts, segment, "AMOUNT", _steps(highest_amount, facts.minor_units)),
        "GIFT": [sku for sku in facts.gifts if sku not in given],
    }
    return {kind: _spread(values) for kind, values in free.items() if values}


def _apart(facts: Facts, segment: SegmentFact, kind: ProposedKind, values: Sequence[int]) -> list[int | str]:
    given = given_by_pools(facts, segment.name, kind)
    return [value for value in values if not any(is_near(value, other) for other in given)]


def _steps(highest: int, unit: int) -> Sequence[int]:
    """Return whole units up to a highest value, or single ones where it is below a unit; STEPS_MAX at most, or so."""
    if highest < 1:
        return []
    step = unit if highest >= unit else 1
    step *= max(1, highest // step // STEPS_MAX)
    lowest = max(step, math.ceil(highest * SHARE_MIN / step) * step)
    return range(lowest, highest + 1, step)


def _spread(values: Sequence[int | str]) -> Sequence[int | str]:
    if len(values) <= VALUES_MAX:
        return values
    return [values[round(place * (len(values) - 1) / (VALUES_MAX - 1))] for place in range(VALUES_MAX)]
