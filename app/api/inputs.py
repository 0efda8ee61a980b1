"""Checking inputs: every problem of an input is collected, then refused at once."""

import re
import unicodedata
from typing import Final, TypeVar
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.operations import InputProblem, InvalidInput, Refused, not_found
from app.api.scalars import BigInt

T = TypeVar("T")

MONEY_MAX: Final = 10**15
KEY_LENGTH_MAX: Final = 200
#: Twice what an address may be, because each letter may come apart from its accent.
_EMAIL_TYPED_MAX: Final = 508
_EMAIL: Final = re.compile(
    r"(?=.{3,254}\Z)[^\s@\"(),:;<>\[\\\]]{1,64}@([^\W_]([\w-]{0,61}[^\W_])?\.)+[^\W_]([\w-]{0,61}[^\W_])?"
)


@strawberry.input(description="An amount of money in the merchant's currency.")
class MoneyInput:
    """Minor units and an ISO 4217 code."""

    amount_minor: BigInt = strawberry.field(description="The amount in minor units (cents), at most 10^15.")
    currency: str = strawberry.field(description="ISO 4217 code, like USD.")


@strawberry.type(description="An amount of money.")
class Money:
    """Minor units and an ISO 4217 code."""

    amount_minor: BigInt = strawberry.field(description="The amount in minor units (cents).")
    currency: str = strawberry.field(description="ISO 4217 code.")


def money(amount_minor: int | None, currency: str) -> Money | None:
    """Return the amount, or None where there is none."""
    return None if amount_minor is None else Money(amount_minor=BigInt(amount_minor), currency=currency)


def normalise_email(address: str) -> str:
    """Return the address as it is compared: NFKC, trimmed, lower case. Some capitals compose only once lower.

    What is too long to become an address is empty: accents are put in order in the square of their number, so that a
    megabyte of them would hold the process up for minutes.
    """
    typed = address.strip()
    if len(typed) > _EMAIL_TYPED_MAX:
        return ""
    composed = unicodedata.normalize("NFKC", typed).strip().lower()
    return unicodedata.normalize("NFKC", composed) if len(composed) <= _EMAIL_TYPED_MAX else ""


def node_id(kind: ids.Kind, what: str, text: str) -> UUID:
    """Return the row id behind an outside id. Raises Refused(NotFound) when it can name nothing of this kind."""
    value = ids.decode(kind, text)
    if value is None:
        raise not_found(what, text)
    return value


def member_id_of(viewer: Viewer, text: str) -> UUID:
    """Return the member behind an id, or who stands for it. Raises Refused(NotFound) when it can name nobody."""
    return viewer.standing(node_id("member", "member", text))


def acting_member(viewer: Viewer, named: str | None) -> UUID:
    """Return the member that an operation is for: a member itself, or the one that a key names.

    Raises Refused(NotFound). For a member any other one is missing, as if it didn't exist.
    """
    if viewer.member_id is None:
        return member_id_of(viewer, named or "")
    if named is not None and member_id_of(viewer, named) != viewer.member_id:
        raise not_found("member", named)
    return viewer.member_id


def stored_key(viewer: Viewer, key: str) -> bytes:
    """Return an idempotency key as it is stored: an HMAC, because callers put names and addresses into their keys.

    A member's keys are its own, those of API keys are the merchant's.
    """
    return viewer.tenant.keys.request_index(f"{viewer.member_id.hex if viewer.member_id else ''}/{key}")


class Problems:
    """Collects problems by path; each check returns the value to use."""

    def __init__(self) -> None:
        """Start with none."""
        self.found: list[InputProblem] = []

    def add(self, path: str, message: str) -> None:
        """Note a problem at a dotted path."""
        self.found.append(InputProblem(path=path.split("."), message=message))

    def text(self, path: str, value: str, *, length_max: int) -> str:
        """Check a line of text: something to see, no control characters, not too long. Returns it trimmed."""
        trimmed = value.strip()
        if len(trimmed) > length_max:
            self.add(path, f"must be at most {length_max} characters")
        elif all(unicodedata.category(character) in {"Cf", "Zs"} for character in trimmed):
            self.add(path, "must not be blank")
        elif any(unicodedata.category(character) in {"Cc", "Cs"} for character in trimmed):
            self.add(path, "must not contain control characters")
        return trimmed

    def optional_text(self, path: str, value: str | None, *, length_max: int) -> str | None:
        """Check a line of text where there is one."""
        return None if value is None else self.text(path, value, length_max=length_max)

    def idempotency_key(self, value: str | None) -> str | None:
        """Check an idempotency key where there is one: 1 to 200 characters, taken as it is."""
        trimmed = None if value is None else self.text("idempotencyKey", value, length_max=KEY_LENGTH_MAX)
        if trimmed and trimmed != value:
            self.add("idempotencyKey", "must not begin or end with white space")
        return value

    def email(self, path: str, value: str) -> str:
        """Check an address. Returns it normalised."""
        address = normalise_email(value)
        if not _EMAIL.fullmatch(address) or not (
            # What is printable has none of them, and is told in a thirtieth of the time.
            address.isprintable() or all(unicodedata.category(c) not in {"Cc", "Cf"} for c in address)
        ):
            self.add(path, "must be an e-mail address")
        return address

    def number(self, path: str, value: int | None, *, least: int, most: int) -> int | None:
        """Check a whole number where there is one."""
        if value is not None and not least <= value <= most:
            self.add(path, f"must be between {least} and {most}")
        return value

    def money(self, path: str, value: MoneyInput | None, *, currency: str, least: int = 1) -> int | None:
        """Check an amount in the merchant's own currency. Returns its minor units."""
        if value is None:
            return None
        if value.currency != currency:
            self.add(f"{path}.currency", f"must be {currency}, the merchant's currency")
        if not least <= value.amount_minor <= MONEY_MAX:
            self.add(f"{path}.amountMinor", f"must be between {least} and {MONEY_MAX}")
        return value.amount_minor

    def refuse_if_any(self) -> None:
        """Raise Refused(InvalidInput) with everything found."""
        if self.found:
            first = self.found[0]
            message = f"{'.'.join(first.path)} {first.message}."
            raise Refused(InvalidInput(message=message, problems=self.found))
