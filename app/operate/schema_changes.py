"""What changed in the schema since an older version, and which changes break clients."""

from dataclasses import dataclass
from pathlib import Path

from graphql import GraphQLError, build_schema, find_breaking_changes, find_dangerous_changes

from app.errors import ConfigurationError


@dataclass(frozen=True)
class Change:
    """A change, in graphql-core's words."""

    kind: str
    description: str
    breaks: bool

    def __str__(self) -> str:
        return f"{'BREAKS' if self.breaks else 'may surprise'}  {self.kind}: {self.description}"


def changes(older: Path, newer: str) -> list[Change]:
    """Return the changes that clients of the older schema may notice, those that break them first.

    Raises ConfigurationError when the older schema can't be read.
    """
    try:
        before, after = build_schema(older.read_text("utf-8")), build_schema(newer)
    except (OSError, UnicodeDecodeError, GraphQLError) as error:
        raise ConfigurationError(f"{older} can't be read as a schema: {error}") from None
    breaking = [Change(each.type.name, each.description, breaks=True) for each in find_breaking_changes(before, after)]
    dangerous = [
        Change(each.type.name, each.description, breaks=False) for each in find_dangerous_changes(before, after)
    ]
    return breaking + dangerous
