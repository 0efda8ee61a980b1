"""The text of a code: a prefix for its kind, twelve random characters and a check character, or a pool's pattern.

Characters are Crockford's base32 (https://www.crockford.com/base32.html). Twelve of them carry 60 random bits;
a masked code shows the last two characters and leaves 50 unknown. The check character makes the weighted sum of
the thirteen characters zero in GF(32), with weights that are all different and not zero. So every single wrong
character and every swap of two different characters is caught (a linear code of distance 2 whose weights are
distinct), before the database is asked. A text of a pattern has no check character; it is read as one from elsewhere.
"""

import secrets
import unicodedata
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PREFIXES: Final = {"PERCENT": "PCT", "AMOUNT": "AMT", "GIFT": "GFT"}
RANDOM_CHARACTERS: Final = 12
_BODY_CHARACTERS: Final = RANDOM_CHARACTERS + 1
_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_ALIASES: Final = str.maketrans({"O": "0", "I": "1", "L": "1"})
#: Spaces and dashes as people and word processors put them in, the line's end, too.
_IGNORED: Final = dict.fromkeys([*b"\t\n\v\f\r -", 0x85, 0x2043, 0x2212])
#: All other spaces and dashes, and format and direction marks, by their categories in Unicode.
_IGNORED_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Pd", "Cf"})
_AROUND: Final = "\"'`´“”„‟‘’‚‛«»‹›."  # noqa: RUF001  (quotes as people type them)
_MASK: Final = "••••"
#: What stands for a random character in a pattern, how many bits that is, and how many a mask must leave unknown.
RANDOM: Final = "#"
BITS_OF_CHARACTER: Final = 5
HIDDEN_BITS_MIN: Final = 50
#: How many letters and digits a code from elsewhere has, and below how many it is short enough to be guessed.
FOREIGN_LENGTHS: Final = (4, 64)
SHORT_BELOW: Final = 12


def _times_alpha(value: int) -> int:
    """Multiply by the generator of GF(32) modulo the primitive polynomial x^5 + x^2 + 1."""
    doubled = value << 1
    return doubled ^ 0b100101 if doubled & 0b100000 else doubled


def _weighted(power: int) -> tuple[int, ...]:
    products = tuple(range(32))
    for _ in range(power):
        products = tuple(map(_times_alpha, products))
    return products


#: For each position, what each value contributes to the sum: the value times alpha^(position + 1).
_PRODUCTS: Final = tuple(_weighted(position + 1) for position in range(RANDOM_CHARACTERS))


def new_codes(kind: str, count: int) -> list[str]:
    """Return `count` different codes of a kind, from the operating system's CSPRNG."""
    prefix = PREFIXES[kind]
    bodies: set[str] = set()
    while len(bodies) < count:
        number = secrets.randbits(5 * RANDOM_CHARACTERS)
        values = [number >> 5 * position & 31 for position in range(RANDOM_CHARACTERS)]
        values.append(_check(values))
        bodies.add("".join([ALPHABET[value] for value in values]))
    return [f"{prefix}-{body}" for body in bodies]


def hidden_bits(pattern: str) -> int:
    """Return how many random bits a pattern has besides the two characters that masks show."""
    return BITS_OF_CHARACTER * max(0, pattern.count(RANDOM) - 2)


def new_codes_of(pattern: str, count: int) -> dict[str, str]:
    """Return `count` different texts of a pattern, each with its last two random characters, which masks show.

    None of them reads as one of our own form. The pattern has random characters enough (HIDDEN_BITS_MIN).
    """
    places = [place for place, character in enumerate(pattern) if character == RANDOM]
    made: dict[str, str] = {}
    while len(made) < count:
        number = secrets.randbits(BITS_OF_CHARACTER * len(places))
        drawn = [ALPHABET[number >> BITS_OF_CHARACTER * each & 31] for each in range(len(places))]
        characters = list(pattern)
        for place, character in zip(places, drawn, strict=True):
            characters[place] = character
        text = "".join(characters)
        if parse(text) is None:
            made[text] = "".join(drawn[-2:])
    return made


def parse(text: str) -> str | None:
    """Return the one spelling of a typed code, or None if it can't be a code.

    Case, spaces, dashes, quotes and a full stop around it don't matter, O reads as 0, I and L as 1 (not in the prefix).
    """
    typed = _bare(text)
    if len(typed) != 3 + _BODY_CHARACTERS or not typed.isascii():
        return None
    typed = typed.upper()
    prefix, body = typed[:3], typed[3:].translate(_ALIASES)
    if prefix not in PREFIXES.values() or not all(character in _VALUES for character in body):
        return None
    values = [_VALUES[character] for character in body]
    return f"{prefix}-{body}" if _check(values[:-1]) == values[-1] else None


def foreign(text: str) -> str | None:
    """Return the one spelling of a typed code from elsewhere, or None if it can't be one.

    Letters A to Z after NFKC, and digits. Case, spaces, dashes, quotes and a full stop around it don't matter.
    """
    typed = _bare(text)
    least, most = FOREIGN_LENGTHS
    return typed.upper() if least <= len(typed) <= most and typed.isascii() and typed.isalnum() else None


def _bare(text: str) -> str:
    """Return a typed text without what doesn't matter around and between its letters and digits, in NFKC."""
    if not text.isascii():
        # Quotes go first: NFKC makes a space and an accent of an acute.
        text = _without_ignored(unicodedata.normalize("NFKC", _without_ignored(text).strip(_AROUND)))
    return text.translate(_IGNORED).strip(_AROUND)


def _without_ignored(text: str) -> str:
    return "".join(each for each in text if unicodedata.category(each) not in _IGNORED_CATEGORIES)


def folded(text: str) -> str:
    """Return a spelling with O as 0, and I and L as 1, as people read them."""
    return text.translate(_ALIASES)


def foreign_suffix(text: str) -> str:
    """Return what a mask shows of a code from elsewhere: nothing of one that is short."""
    return "" if len(text) < SHORT_BELOW else text[-2:]


def is_short(text: str) -> bool:
    """Whether a typed text has so few letters and digits that, if it is a code, it can be guessed."""
    return len(_bare(text)) < SHORT_BELOW


def mask(kind: str, suffix: str, *, is_foreign: bool = False) -> str:
    """Return how a code is shown to those who may not read it."""
    return f"{_MASK}{suffix}" if is_foreign else f"{PREFIXES[kind]}-{_MASK}{suffix}"


def mask_typed(text: str) -> str:
    """Return a mask for whatever was typed, code or not; it shows at most what a code's mask shows."""
    if is_short(text):
        return f"???-{_MASK}"
    typed = _bare(text).upper()
    prefix = typed[:3] if typed[:3] in PREFIXES.values() else "???"
    suffix = "".join(c if c in _VALUES else "?" for c in typed[3:][-2:].translate(_ALIASES))
    return f"{prefix}-{_MASK}{suffix}"


def _check(values: list[int]) -> int:
    total = 0
    for products, value in zip(_PRODUCTS, values, strict=True):
        total ^= products[value]
    return total
