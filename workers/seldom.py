"""What a worker looks for less often than its job runs, because looking costs a little for every merchant."""

import time


class Seldom:
    """When each thing was looked for last, and nothing was found. A worker that begins looks for everything."""

    def __init__(self) -> None:
        """Begin with everything due."""
        self._idle_until: dict[str, float] = {}

    def is_due(self, what: str) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() >= self._idle_until.get(what, 0.0)

    def found(self, what: str, count: int, *, idle_seconds: float) -> int:
        """Take how much was found; after nothing the next look comes so many seconds later. Returns the count."""
        if not count:
            self._idle_until[what] = time.monotonic() + idle_seconds
        return count
