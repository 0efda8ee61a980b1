"""What a suggestion is."""

from dataclasses import dataclass
from enum import Enum

import strawberry

from app.api.scalars import described


@strawberry.enum(description="Why a suggestion was dropped.")
class AdviceRejectionReason(Enum):
    """In the order in which they are checked."""

    MALFORMED = described("MALFORMED", "It has no value of its kind, or not a positive one.")
    UNKNOWN_SEGMENT = described("UNKNOWN_SEGMENT", "It is for a segment that doesn't exist.")
    UNKNOWN_POOL = described("UNKNOWN_POOL", "It cites a pool that doesn't exist.")
    UNKNOWN_GIFT = described("UNKNOWN_GIFT", "It gives an article that no pool of the merchant has ever given.")
    UNKNOWN_ORDER_VALUE = described(
        "UNKNOWN_ORDER_VALUE", "It takes an amount off, and no purchase tells what orders are worth."
    )
    NO_MARGIN = described("NO_MARGIN", "The margin and the merchant's limits leave no room for a discount.")
    DUPLICATES_POOL = described("DUPLICATES_POOL", "A live pool gives the same segment nearly the same.")
    DUPLICATES_SUGGESTION = described("DUPLICATES_SUGGESTION", "An earlier suggestion gives nearly the same.")
    SURPLUS = described("SURPLUS", "There were five better ones before it.")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a suggestion: as proposed, as checked, its cap if it has one, and where the checked one is from."""

    name: str
    proposed: float
    checked: float
    cap: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Draft:
    """Terms of a pool as createPool takes them; amounts in minor units."""

    name: str
    kind: str
    percent_off: float | None
    amount_off: int | None
    gift_sku: str | None
    minimum_spend: int | None
    maximum_discount: int | None
    claims_per_member: int

    @property
    def value(self) -> float | str | None:
        """What the kind gives."""
        return {"PERCENT": self.percent_off, "AMOUNT": self.amount_off, "GIFT": self.gift_sku}[self.kind]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A proposal that passed."""

    title: str
    rationale: str
    segment: str
    draft: Draft
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A proposal that didn't."""

    title: str
    reason: AdviceRejectionReason
    message: str
