"""The text of codes. Without these a typing error could reach the database, or a good code be refused as mistyped."""

import math
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.coupons import code_text
from app.coupons.code_text import ALPHABET, PREFIXES

KINDS = st.sampled_from(list(PREFIXES))
#: How each character of a code's body may be typed.
TYPED = {character: {character, character.lower()} for character in ALPHABET}
TYPED["0"] |= set("Oo")
TYPED["1"] |= set("IiLl")
#: What may stand between and around them: spaces, dashes, and what a scanner, a mail or a word processor adds.
GAPS = " -\t\r\n\u00a0\u00ad\u2009\u200b\u2011\u2013\u2014\u2028\u202f\u2212\u3000\ufeff"
GAPS += "\u061c\u200f\u202a\u202c\u2043\u2068\u2069\u2e3a\ufe63\uff0d"
#: And what may stand around it.
QUOTES = ["", '"', "'", "“", "„", "«", "´", ".", " ’", "”."]  # noqa: RUF001
#: As some keyboards type it.
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


@st.composite
def codes(draw: st.DrawFn) -> str:
    """Draw a valid code: any prefix and random characters, and the check character that belongs to them."""
    prefix = PREFIXES[draw(KINDS)]
    body = draw(st.text(ALPHABET, min_size=12, max_size=12))
    (code,) = [f"{prefix}-{body}{last}" for last in ALPHABET if code_text.parse(f"{prefix}-{body}{last}")]
    return code


@st.composite
def typed(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a code, and a way to type it."""
    code = draw(codes())
    prefix = "".join(draw(st.sampled_from([character, character.lower()])) for character in code[:3])
    body = "".join(draw(st.sampled_from(sorted(TYPED[character]))) for character in code[4:])
    gaps = draw(st.lists(st.text(GAPS, max_size=3), min_size=17, max_size=17))
    text = "".join(gap + character for gap, character in zip(gaps, prefix + body + " ", strict=True))
    around = draw(st.sampled_from(QUOTES)) + text + draw(st.sampled_from(QUOTES))
    return code, around.translate(WIDE) if draw(st.booleans()) else around


@given(typed())
@settings(deadline=None)
def test_every_way_to_type_a_code_reads_as_its_one_spelling(typed: tuple[str, str]) -> None:
    code, text = typed

    assert code_text.parse(text) == code
    # One that is imported is read in the same way.
    spelling = code_text.foreign(text)
    assert spelling is not None
    assert code_text.parse(spelling) == code


@pytest.mark.parametrize("text", ["STRA\u00dfE10", "\u0131NVITE10", "CAF\u00c9-2019", "ABC", "A" * 65, "AB_12"])
def test_letters_that_are_not_from_a_to_z_are_no_code(text: str) -> None:
    assert code_text.foreign(text) is None


@given(codes())
@settings(deadline=None)
def test_any_twelve_characters_have_exactly_one_check_character(code: str) -> None:
    valid = [last for last in ALPHABET if code_text.parse(code[:-1] + last) is not None]

    assert valid == [code[-1]]


def wrong_characters(code: str) -> list[str]:
    """Return every text that differs from a code in one character, the prefix included."""
    everything = ALPHABET + "U"
    return [
        code[:place] + other + code[place + 1 :]
        for place in range(len(code))
        if code[place] != "-"
        for other in (everything if place > 3 else "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
        if other != code[place]
    ]


def swaps(code: str) -> list[str]:
    """Return every text in which two neighbours of a code's body have changed places."""
    return [
        code[:place] + code[place + 1] + code[place] + code[place + 2 :]
        for place in range(4, len(code) - 1)
        if code[place] != code[place + 1]
    ]


@pytest.mark.parametrize("kind", PREFIXES)
def test_every_wrong_character_and_every_swap_is_caught(kind: str) -> None:
    for code in code_text.new_codes(kind, 100):
        assert len(wrong_characters(code)) == 3 * 35 + 13 * 32
        assert [text for text in wrong_characters(code) if code_text.parse(text) is not None] == []
        assert [text for text in swaps(code) if code_text.parse(text) is not None] == []


@given(codes(), st.data())
@settings(deadline=None)
def test_two_places_that_changed_their_characters_are_caught_however_far_apart(code: str, data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.lists(st.integers(4, 16), min_size=2, max_size=2, unique=True)))
    swapped = code[:first] + code[second] + code[first + 1 : second] + code[first] + code[second + 1 :]

    assert code_text.parse(swapped) == (code if swapped == code else None)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_a_code_in_its_one_spelling_or_none(text: str) -> None:
    parsed = code_text.parse(text)

    assert parsed is None or code_text.parse(parsed) == parsed


@given(codes())
@settings(deadline=None)
def test_a_missing_or_an_extra_character_is_no_code(code: str) -> None:
    shorter = [code[:place] + code[place + 1 :] for place in range(4, len(code))]

    assert [text for text in shorter if code_text.parse(text) is not None] == []
    assert [last for last in ALPHABET if code_text.parse(code + last) is not None] == []


@given(codes())
@settings(deadline=None)
def test_a_mask_shows_the_kind_and_two_characters(code: str) -> None:
    kind = next(name for name, prefix in PREFIXES.items() if prefix == code[:3])

    assert code_text.mask(kind, code[-2:]) == f"{code[:3]}-••••{code[-2:]}"
    assert code_text.mask_typed(code) == code_text.mask(kind, code[-2:])


@given(st.text(max_size=200))
@example("0000000000ß")
@settings(deadline=None)
def test_a_mask_of_whatever_was_typed_shows_two_characters_at_most(text: str) -> None:
    prefix, _, rest = code_text.mask_typed(text).partition("-")

    assert prefix in {*PREFIXES.values(), "???"}
    assert rest.startswith("••••")
    assert len(rest) <= 6
    assert rest == "••••" or len(unicodedata.normalize("NFKC", text)) >= code_text.SHORT_BELOW
    assert all(character in ALPHABET + "?" for character in rest[4:])


@pytest.mark.parametrize("kind", PREFIXES)
def test_new_codes_are_different_and_spelled_the_one_way(kind: str) -> None:
    made = code_text.new_codes(kind, 2000)

    assert len(set(made)) == 2000
    assert all(code_text.parse(code) == code for code in made)
    assert {code[:4] for code in made} == {f"{PREFIXES[kind]}-"}


def test_every_character_is_as_likely_as_any_other_in_every_place() -> None:
    made = code_text.new_codes("PERCENT", 5000)

    # A count of 5,000 draws at 1/32 has mean 156 and standard deviation 12.3; eight of them never happen by chance.
    mean, deviation = 5000 / 32, math.sqrt(5000 * 31) / 32
    for place in range(4, 17):
        counted = Counter(code[place] for code in made)
        assert set(counted) == set(ALPHABET)
        assert all(abs(count - mean) < 8 * deviation for count in counted.values())
