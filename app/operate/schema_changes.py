"""What changed in the schema since another version of it, and which of that breaks clients."""

from dataclasses import dataclass
from pathlib import Path

from graphql import GraphQLError, build_schema, find_breaking_changes, find_dangerous_changes

from app.errors import ConfigurationError


@dataclass(frozen=True)
class Change:
    """One change, as graphql-core words it."""

    kind: str
    description: str
    breaks: bool

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{'BREAKS' if self.breaks else 'may surprise'}  {self.kind}: {self.description}"


def changes(older: Path, newer: str) -> list[Change]:
    """Return what may matter to clients of the older schema, what breaks them first.

    Raises ConfigurationError when the older schema can't be read.
    """
    try:
        before, after = build_schema(older.read_text("utf-8")), build_schema(newer)
    except (OSError, UnicodeDecodeError, GraphQLError) as error:
        raise ConfigurationError(f"{older} is no schema that can be read: {error}") from None
    breaking = [Change(each.type.name, each.description, breaks=True) for each in find_breaking_changes(before, after)]
    dangerous = [
        Change(each.type.name, each.description, breaks=False) for each in find_dangerous_changes(before, after)
    ]
    return breaking + dangerous
