"""How much of a test's work is done: a sample in `make test`, everything in `make full`."""

import os
from typing import Final, TypeVar

T = TypeVar("T")
FULL: Final = os.environ.get("FLASH_TEST_FULL") == "1"


def size(usual: T, full: T) -> T:
    """Return the size that `make test` or `make full` does."""
    return full if FULL else usual
