"""Checks and rules, without a database. Without these a suggestion could leave the caps, or double what runs."""

import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.advisor import rules
from app.advisor.checks import MARGIN_SHARE_MAX, SUGGESTIONS_MAX, amount_cap, check, is_near, percent_cap
from app.advisor.facts import Facts, without_persons
from app.advisor.portfolio import SEGMENTS
from app.advisor.prompt import SIZES, Size, response_formats
from app.advisor.proposals import Proposal, read_answer
from app.advisor.suggestions import AdviceRejectionReason, Suggestion
from app.api.inputs import MONEY_MAX, MoneyInput
from app.api.scalars import BigInt
from app.coupons.create_pool import CreatePoolInput, checked_terms
from app.coupons.types import CodeKind
from tests.advisor.documents import facts, pool_fact, segment_facts

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**18), 10**18))
TEXTS = st.one_of(st.text(max_size=300), st.sampled_from(["Save 99 %", "www.evil.example", "", "5", "\x00\u202e"]))
RATES = st.one_of(st.sampled_from([0.0, 0.0001, 0.3, 1.0]), st.floats(0, 1).map(lambda rate: round(rate, 4)))
AMOUNTS = st.one_of(st.none(), st.integers(1, MONEY_MAX))


def proposal(**known: Any) -> Proposal:
    """Return a proposal of 12 % for those who lapsed."""
    values: dict[str, Any] = {
        "title": "T",
        "rationale": "R",
        "segment": "lapsed",
        "kind": "PERCENT",
        "percent_off": 12.0,
    }
    return Proposal(**(values | known))


PROPOSALS = st.builds(
    Proposal,
    title=TEXTS,
    rationale=TEXTS,
    segment=st.sampled_from([*SEGMENTS, "ghosts"]),
    pools=st.lists(st.sampled_from(["P1", "P2", "P9"]), max_size=2),
    kind=st.sampled_from(["PERCENT", "AMOUNT", "GIFT"]),
    percent_off=NUMBERS,
    amount_off=NUMBERS,
    gift_sku=st.sampled_from([None, "mug", "car"]),
    minimum_spend=NUMBERS,
    maximum_discount=NUMBERS,
    claims_per_member=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 10**9)),
    audience=NUMBERS,
    redemption_rate=NUMBERS,
)
POOLS = st.lists(
    st.one_of(
        st.builds(pool_fact, percent_off=st.floats(0.01, 100), held=st.integers(0, 100), is_live=st.booleans()),
        st.builds(
            pool_fact, kind=st.just("AMOUNT"), percent_off=st.none(), amount_off=st.integers(1, MONEY_MAX),
            quadrant=st.sampled_from(sorted(rules.QUADRANT_WEIGHTS)),
        ),
        st.builds(pool_fact, kind=st.just("GIFT"), percent_off=st.none(), gift_sku=st.just("mug"),
                  reaches=st.just(("new",))),
    ),
    max_size=6,
).map(tuple)  # fmt: skip
MERCHANTS = st.builds(
    facts,
    margin_rate=RATES,
    percent_max=st.one_of(st.none(), st.floats(0.0001, 100).map(lambda share: round(share, 4) or 0.0001)),
    amount_max=AMOUNTS,
    order_value=AMOUNTS,
    minor_units=st.sampled_from([1, 100, 1000]),
    pools=POOLS,
    segments=st.sampled_from([
        segment_facts(), segment_facts(lapsed=0, high_spend=3), segment_facts(**dict.fromkeys(map(str.lower, [
            "new", "active", "lapsed", "high_spend", "advocates"]), 0)),
    ]),
)  # fmt: skip


def holds(suggestion: Suggestion, known: Facts) -> None:
    """Everything that a suggestion promises, held against the facts by other means than the checks' own."""
    draft = suggestion.draft
    figures = {figure.name: figure for figure in suggestion.figures}
    assert len(figures) == len(suggestion.figures)
    assert all(figure.cap is None or figure.checked <= figure.cap for figure in suggestion.figures)
    segment = known.segment(suggestion.segment)
    assert segment is not None
    assert figures["audience"].checked == segment.members
    order = segment.order_value or known.order_value or 0
    share = known.margin_rate * MARGIN_SHARE_MAX
    if draft.kind == "PERCENT":
        assert draft.percent_off is not None
        assert 0 < draft.percent_off <= min(100 * share, known.percent_max or 100) + 1e-6
        assert draft.percent_off == figures["percentOff"].checked
        assert known.amount_max is None or (draft.maximum_discount or 0) <= known.amount_max
        assert known.amount_max is None or draft.maximum_discount is not None
    if draft.kind == "AMOUNT":
        assert draft.amount_off is not None
        assert draft.minimum_spend is not None
        assert 0 < draft.amount_off <= min(order * share, known.amount_max or MONEY_MAX) * (1 + 1e-9)
        # The smallest order that it is good for bears it.
        assert draft.amount_off <= (draft.minimum_spend + 1) * share * (1 + 1e-9)
        assert draft.amount_off == figures["amountOff"].checked
    for pool in known.live_pools:
        same_place = pool.kind == draft.kind and suggestion.segment in pool.reaches
        given = {"PERCENT": pool.percent_off, "AMOUNT": pool.amount_off, "GIFT": pool.gift_sku}[pool.kind]
        assert not (same_place and is_near(draft.value, given))
    assert draft.name == suggestion.title
    _can_be_created(suggestion, known)


def _can_be_created(suggestion: Suggestion, known: Facts) -> None:
    draft = suggestion.draft

    def money(minor: int | None) -> MoneyInput | None:
        return None if minor is None else MoneyInput(amount_minor=BigInt(minor), currency=known.currency)

    chosen = draft.gift_sku or ("chosen-by-a-person" if draft.kind == "GIFT" else None)
    terms = CreatePoolInput(
        name=draft.name, kind=CodeKind(draft.kind), percent_off=draft.percent_off, amount_off=money(draft.amount_off),
        gift_sku=chosen, minimum_spend=money(draft.minimum_spend), maximum_discount=money(draft.maximum_discount),
        claims_per_member=draft.claims_per_member,
    )  # fmt: skip
    assert checked_terms(terms, known.currency)


@settings(max_examples=150, deadline=None)
@given(st.lists(PROPOSALS, max_size=8), MERCHANTS)
@example([proposal(percent_off=1e308, minimum_spend=1e308, maximum_discount=1e308)], facts())
@example([proposal(kind="AMOUNT", amount_off=1e18)], facts(order_value=MONEY_MAX, segments=()))
def test_no_suggestion_ever_leaves_the_caps_whatever_is_proposed(proposed: list[Proposal], known: Facts) -> None:
    suggestions, rejections = check(proposed, known)

    assert len(suggestions) + len(rejections) == len(proposed)
    assert len(suggestions) <= SUGGESTIONS_MAX
    for number, suggestion in enumerate(suggestions):
        holds(suggestion, known)
        for other in suggestions[:number]:
            same_place = (other.segment, other.draft.kind) == (suggestion.segment, suggestion.draft.kind)
            assert not (same_place and is_near(other.draft.value, suggestion.draft.value))
    for rejection in rejections:
        assert rejection.message
        assert len(rejection.title) <= 200


@settings(max_examples=150, deadline=None)
@given(MERCHANTS)
@example(facts(margin_rate=0.0))
@example(
    facts(pools=(), segments=segment_facts(new=0, active=0, lapsed=0, high_spend=0, advocates=0), order_value=None)
)
def test_rules_always_leave_a_suggestion_that_passes_the_checks(known: Facts) -> None:
    proposed = rules.propose(known)
    suggestions, _ = check(proposed, known)

    assert suggestions
    assert proposed == rules.propose(known)
    for suggestion in suggestions:
        holds(suggestion, known)
        assert "None" not in suggestion.rationale + suggestion.title


def test_what_rules_propose_follows_from_the_facts() -> None:
    loved = pool_fact(ref="P2", kind="AMOUNT", percent_off=None, amount_off=500, held=400, redeemed=300,
                      quadrant="STAR", is_live=False, status="ARCHIVED")  # fmt: skip
    ignored = pool_fact(ref="P2", kind="AMOUNT", percent_off=None, amount_off=500, held=400, redeemed=1, quadrant="DOG",
                        is_live=False, status="ARCHIVED")  # fmt: skip
    percent = pool_fact(held=1000, redeemed=200)

    after_success = rules.propose(facts(pools=(percent, loved)))
    after_failure = rules.propose(facts(pools=(percent, ignored)))
    many_lapsed = rules.propose(facts(pools=(percent,), segments=segment_facts(lapsed=5_000)))

    assert after_success[0].kind == "AMOUNT"
    assert after_success[0].pools == ["P2"]
    assert after_failure[0].kind == "PERCENT"
    assert many_lapsed[0].segment == "lapsed"
    assert max(sum(each.segment == name for each in after_success) for name in SEGMENTS) <= rules.PER_SEGMENT_MAX


def test_a_gap_is_what_no_live_pool_gives_that_reaches_the_segment() -> None:
    everywhere = facts(pools=(pool_fact(percent_off=20.0),))
    elsewhere = facts(pools=(pool_fact(percent_off=20.0, reaches=("active",)),))
    ended = facts(pools=(pool_fact(percent_off=20.0, is_live=False),))
    asked = [proposal(percent_off=19.0)]

    (dropped,) = check(asked, everywhere)[1]
    assert (dropped.reason, dropped.message) == (
        AdviceRejectionReason.DUPLICATES_POOL, "P1 (Welcome) gives the segment nearly that already."
    )  # fmt: skip
    for free in (elsewhere, ended):
        assert [each.draft.percent_off for each in check(asked, free)[0]] == [19.0]


@pytest.mark.parametrize(
    ("known", "expected"),
    [({}, 20.0), ({"percent_max": 7.125}, 7.12), ({"margin_rate": 0.0333}, 1.66), ({"margin_rate": 1.0}, 50.0)],
)
def test_the_cap_of_percentages_is_the_margin_or_the_merchants_limit(known: dict[str, Any], expected: float) -> None:
    assert percent_cap(facts(**known)) == expected


@pytest.mark.parametrize(
    ("known", "proposed", "expected"),
    [
        ({}, {"amount_off": 700}, (700, 3_500, None)),
        ({}, {"amount_off": 99_999}, (1_000, 5_000, None)),
        ({}, {"amount_off": 700, "minimum_spend": 4_000}, (700, 4_000, None)),
        ({}, {"amount_off": 700, "minimum_spend": 9e9}, (700, 20_000, None)),
        ({"amount_max": 250}, {"amount_off": 700}, (250, 1_300, None)),
        ({"amount_max": 250}, {"kind": "PERCENT", "percent_off": 15.0}, (None, None, 250)),
        ({}, {"kind": "PERCENT", "percent_off": 15.0, "maximum_discount": 1e9}, (None, None, 3_000)),
    ],
)
def test_amounts_are_borne_by_the_orders_that_they_are_good_for(
    known: dict[str, Any], proposed: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    (suggestion,), _ = check([proposal(**({"kind": "AMOUNT", "percent_off": None} | proposed))], facts(**known))

    draft = suggestion.draft
    assert (draft.amount_off, draft.minimum_spend, draft.maximum_discount) == expected
    assert amount_cap(facts(**known), 5_000) == known.get("amount_max", 1_000)


@pytest.mark.parametrize(
    ("known", "proposed", "reason"),
    [
        ({}, {"percent_off": None, "amount_off": 5.0}, "MALFORMED"),
        ({}, {"segment": "Lapsed"}, "UNKNOWN_SEGMENT"),
        ({}, {"pools": ["P1", "P2"]}, "UNKNOWN_POOL"),
        ({}, {"kind": "GIFT", "gift_sku": "car"}, "UNKNOWN_GIFT"),
        ({"margin_rate": 0.009}, {}, "NO_MARGIN"),
        ({"margin_rate": 0.0}, {"kind": "AMOUNT", "amount_off": 5.0}, "NO_MARGIN"),
        ({}, {"percent_off": 10.0}, "DUPLICATES_POOL"),
    ],
)
def test_a_proposal_is_dropped_for_a_reason(known: dict[str, Any], proposed: dict[str, Any], reason: str) -> None:
    suggestions, (rejection,) = check([proposal(**proposed)], facts(**known))

    assert suggestions == []
    assert rejection.reason.value == reason


def test_an_amount_without_any_order_to_measure_it_by_is_dropped() -> None:
    from dataclasses import replace

    silent = tuple(replace(each, order_value=None, orders=0) for each in segment_facts())

    _, (rejection,) = check([proposal(kind="AMOUNT", amount_off=5.0)], facts(order_value=None, segments=silent))

    assert rejection.reason is AdviceRejectionReason.UNKNOWN_ORDER_VALUE


def test_of_six_good_ones_five_are_shown_and_of_two_equal_ones_one() -> None:
    known = facts(pools=())
    six = [proposal(segment=name) for name in SEGMENTS] + [proposal(percent_off=5.0), proposal(percent_off=12.5)]

    suggestions, rejections = check(six, known)

    assert len(suggestions) == 5
    assert [each.reason.value for each in rejections] == ["SURPLUS", "DUPLICATES_SUGGESTION"]


@given(st.text(string.printable, max_size=200))
def test_a_pools_name_is_told_in_one_line_without_addresses(name: str) -> None:
    told = without_persons(name + " ada@example.com")

    assert "\n" not in told
    assert "ada@example.com" not in told
    assert len(told) <= 80


@settings(max_examples=100, deadline=None)
@given(MERCHANTS, st.sampled_from(SIZES), st.data())
def test_whatever_the_schema_lets_a_model_suggest_passes_the_checks(known: Facts, size: Size, data: Any) -> None:
    *formats, last = response_formats(known, size)

    assert last is None
    for each in formats:
        assert each is not None
        schema = each["json_schema"]["schema"]
        suggestions = schema["properties"]["suggestions"]
        assert (schema["required"], schema["additionalProperties"]) == (["suggestions"], False)
        assert suggestions["maxItems"] == size.suggestions
        offer = data.draw(st.sampled_from(suggestions["items"]["anyOf"]))
        assert (offer["required"], offer["additionalProperties"]) == (list(offer["properties"]), False)
        said = {name: data.draw(st.sampled_from(field["enum"])) for name, field in offer["properties"].items()
                if "enum" in field}  # fmt: skip
        proposals, problems = read_answer({"suggestions": [said | {"title": "T", "rationale": "R"}]})
        assert problems == []
        (suggestion,), rejections = check(proposals, known)
        assert rejections == []
        assert suggestion.draft.value in said.values()
        holds(suggestion, known)


def test_of_an_answer_that_is_partly_right_that_part_is_read() -> None:
    good = proposal().model_dump()

    fitting, problems = read_answer({"suggestions": [good, {"kind": "MAGIC"}, 7]})

    assert fitting == [proposal()]
    assert problems[0] == "suggestions.1.title: Field required"
    assert read_answer(7) == ([], ["answer: Input should be a valid dictionary or instance of _Answer"])
