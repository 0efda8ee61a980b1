"""Sentences about suggestions, made of checked figures only; and what may be kept of a model's."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from app.advisor.facts import Facts, PoolFact, SegmentFact

if TYPE_CHECKING:
    from app.advisor.suggestions import Draft

_OF_SEGMENT: Final = {
    "new": "new members",
    "active": "active members",
    "lapsed": "members who stopped buying",
    "high spend": "those who spend the most",
    "advocates": "members who bring others",
}
_UNSEEN: Final = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_HIDDEN: Final = "…"
_SCHEMES: Final = {"bearer", "basic"}
_SECRET_LENGTH_MIN: Final = 20
_QUOTES: Final = "`'\".,:;()[]{}"


def cleaned(text: str, *, length_max: int) -> str:
    """Return a text as one line of visible characters, cut to a length."""
    visible = "".join(" " if unicodedata.category(character) in _UNSEEN else character for character in text)
    return " ".join(visible.split())[:length_max].strip()


def without_secrets(text: str, hidden: Sequence[str], *, known: str, length_max: int) -> str:
    """Return what somebody else's program says as one line, without credentials, addresses and what is to be hidden.

    A word counts as a credential if it is long and has letters and digits, or follows "Bearer"; one that is `known`
    doesn't.
    """
    shortened = text[: 10 * length_max]
    for each in hidden:
        shortened = shortened.replace(each, _HIDDEN)
    words = cleaned(shortened, length_max=10 * length_max).split(" ")
    shown = [
        _HIDDEN if before.casefold().rstrip(":") in _SCHEMES or _is_secret(word.strip(_QUOTES), known) else word
        for before, word in pairwise(["", *words])
    ]
    return cleaned(" ".join(shown), length_max=length_max)


def _is_secret(word: str, known: str) -> bool:
    if word == known:
        return False
    is_mixed = any(character.isdigit() for character in word) and any(character.isalpha() for character in word)
    return "@" in word or "://" in word or word.startswith("sk-") or (len(word) >= _SECRET_LENGTH_MIN and is_mixed)


def title(facts: Facts, segment: str, draft: "Draft") -> str:
    """Return the name of an offer."""
    parts = [offer(facts, draft)]
    if draft.minimum_spend is not None:
        parts.append(f"from {amount(facts, draft.minimum_spend)}")
    return f"{' '.join(parts)}, for {_OF_SEGMENT[segment]}"


def offer(facts: Facts, draft: "Draft") -> str:
    """Return what a draft gives."""
    if draft.percent_off is not None:
        return f"{draft.percent_off:g} % off"
    if draft.amount_off is not None:
        return f"{amount(facts, draft.amount_off)} off"
    return "A gift of your choice" if draft.gift_sku is None else "A gift"


def rationale(facts: Facts, segment: SegmentFact, draft: "Draft", cited: Sequence[PoolFact]) -> str:
    """Return why an offer is worth a thought."""
    members = "1 member" if segment.members == 1 else f"{segment.members:,} members"
    sentences = [f"Segment: {members} that {segment.definition}."]
    if segment.codes:
        sentences.append(f"They redeemed {segment.redemption_rate:.0%} of the codes that they had.")
    given = offer(facts, draft)
    sentences.append(f"No live pool gives them {given[0].lower()}{given[1:]} or nearly that.")
    sentences += [
        f"“{pool.name}” is a {pool.quadrant.replace('_', ' ').lower()}: {pool.redemption_rate:.0%} of its codes were "
        "redeemed."
        for pool in cited[:2]
    ]
    if draft.kind == "GIFT" and draft.gift_sku is None:
        sentences.append("Choose an article that costs less than an order's margin.")
    return " ".join(sentences)


def amount(facts: Facts, minor: int) -> str:
    """Return an amount for people, like 12.50 USD."""
    decimals = len(str(facts.minor_units)) - 1
    return f"{minor / facts.minor_units:,.{decimals}f} {facts.currency}"
