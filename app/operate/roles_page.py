"""Prints docs/roles.md: what each role may do, from the table that every check looks up."""

from collections.abc import Callable
from typing import Final

from graphql import GraphQLEnumType

from app.api.access import ACCESS
from app.api.context import Role
from app.web.graphql_documents import SCHEMA

_ROOTS: Final = frozenset({"Query", "Mutation", "Subscription"})
_SECTIONS: Final[tuple[tuple[str, str, Callable[[str], bool]], ...]] = (
    ("Queries", "", lambda coordinate: coordinate.startswith("Query.")),
    (
        "Mutations",
        "A mutation that selects a field which isn't for the caller is refused before anything is done.",
        lambda coordinate: coordinate.startswith("Mutation."),
    ),
    ("Subscriptions", "", lambda coordinate: coordinate.startswith("Subscription.")),
    (
        "Fields",
        "Fields that aren't for everyone who can reach their object.",
        lambda coordinate: "." in coordinate and coordinate.partition(".")[0] not in _ROOTS,
    ),
    ("By id", "What `node` finds. Members find their own only.", lambda coordinate: "." not in coordinate),
)


def page() -> str:
    """Return the page."""
    kind = SCHEMA.type_map["Role"]
    said = kind.values if isinstance(kind, GraphQLEnumType) else {}
    parts = [
        "# Roles",
        "",
        "Written by `make roles` from the table in `app/api/access.py`, which every check looks up. Other roles get",
        "what the last column says: the error `FORBIDDEN`, null, or a value that is masked. What isn't listed is for",
        "everyone who can reach it. Members see their own wallets, invites and referrals, and nothing of anyone else.",
        "",
        *[f"- **{role.value}**: {said[role.value].description}" for role in Role],
    ]
    for title, about, belongs in _SECTIONS:
        parts += ["", f"## {title}", ""]
        parts += [about, ""] if about else []
        parts += _table([coordinate for coordinate in ACCESS if belongs(coordinate)])
    return "\n".join(parts) + "\n"


def _table(coordinates: list[str]) -> list[str]:
    head = ["", *[role.value for role in Role], "others"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for coordinate in coordinates:
        rule = ACCESS[coordinate]
        root, _, name = coordinate.partition(".")
        cells = [
            f"`{name if root in _ROOTS else coordinate}`",
            *["yes" if role in rule else "" for role in Role],
            "" if len(rule.roles) == len(Role) else rule.otherwise.value,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    print(page(), end="")
