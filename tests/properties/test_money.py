"""The sums of an order. Without these codes could take off more than there is, or a cent could go astray."""

from decimal import Decimal
from fractions import Fraction
from math import floor

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.coupons.rules import Terms, discount, stack

AMOUNTS = st.one_of(st.integers(0, 20_000), st.integers(0, 10**15))
POSITIVE = st.one_of(st.integers(1, 20_000), st.integers(1, 10**15))
#: Shares as the database keeps them: over 0, at most 100, four decimals.
SHARES = st.integers(1, 1_000_000).map(lambda tenthousandths: Decimal(tenthousandths).scaleb(-4))


def terms(kind: str, *, percent: Decimal | None = None, amount: int | None = None, most: int | None = None) -> Terms:
    """Return terms without any condition."""
    return Terms(kind, percent, amount, None, most, "STACKABLE", transferable=False)


ANY_TERMS = st.one_of(
    st.builds(lambda share, most: terms("PERCENT", percent=share, most=most), SHARES, st.none() | POSITIVE),
    st.builds(lambda amount: terms("AMOUNT", amount=amount), POSITIVE),
    st.just(terms("GIFT")),
)


@given(AMOUNTS, SHARES)
@example(5, Decimal(10))
@example(10**15, Decimal("99.9999"))
@example(10**15, Decimal("0.0001"))
@settings(deadline=None, max_examples=500)
def test_a_share_is_the_exact_fraction_rounded_half_up(base: int, share: Decimal) -> None:
    exact = Fraction(base) * Fraction(share) / 100

    assert discount(terms("PERCENT", percent=share), base) == floor(exact + Fraction(1, 2))


@given(AMOUNTS, SHARES, POSITIVE)
@settings(deadline=None)
def test_a_cap_is_the_most_that_a_share_takes_off(base: int, share: Decimal, most: int) -> None:
    free = discount(terms("PERCENT", percent=share), base)

    assert discount(terms("PERCENT", percent=share, most=most), base) == min(free, most)


@given(AMOUNTS, POSITIVE)
@settings(deadline=None)
def test_an_amount_takes_itself_off_or_what_there_is(base: int, amount: int) -> None:
    assert discount(terms("AMOUNT", amount=amount), base) == min(amount, base)


@given(AMOUNTS)
@settings(deadline=None)
def test_a_gift_takes_nothing_off(base: int) -> None:
    assert discount(terms("GIFT"), base) == 0


@given(st.lists(st.tuples(ANY_TERMS, st.none() | AMOUNTS), min_size=1, max_size=20), AMOUNTS)
@settings(deadline=None, max_examples=300)
def test_stacked_codes_share_the_order_and_never_take_more(
    stacked: list[tuple[Terms, int | None]], amount: int
) -> None:
    applied = stack(stacked, amount)

    assert len(applied) == len(stacked)
    left = amount
    for (each, eligible), share in zip(stacked, applied, strict=True):
        assert share.base == min(left, left if eligible is None else eligible)
        assert share.discount == discount(each, share.base)
        assert 0 <= share.discount <= share.base
        left -= share.discount
    assert left >= 0
    assert amount - left == sum(share.discount for share in applied)


@given(ANY_TERMS, AMOUNTS, AMOUNTS)
@settings(deadline=None)
def test_a_larger_order_is_never_discounted_less(each: Terms, one: int, other: int) -> None:
    smaller, larger = sorted((one, other))

    assert discount(each, smaller) <= discount(each, larger)
