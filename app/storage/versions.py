"""The migrations of this version, by name."""

from functools import lru_cache
from pathlib import Path
from typing import Final

_MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"


@lru_cache(maxsize=1)
def migration_names() -> tuple[str, ...]:
    """Return the names, in the order in which they are applied."""
    return tuple(sorted(path.stem for path in _MIGRATIONS.glob("[0-9]*.py")))
