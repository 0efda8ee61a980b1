"""A cache whose values last until a time of their own."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lasting(Generic[Key, Value]):
    """Bounded; drops what was used longest ago. Every request looks into several of these.

    What nobody asks for again goes with later values, once its time is over: each member's token comes once.
    """

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int) -> None:
        """Keep at most so many values."""
        self._most = most
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return a value whose time isn't over."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        until, value = kept
        if until <= time.monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return value

    def keep(self, key: Key, value: Value, until: float) -> None:
        """Keep a value until then (monotonic seconds)."""
        now = time.monotonic()
        # Two, so that they go faster than they come.
        for oldest, (over, _) in list(islice(self._kept.items(), 2)):
            if over <= now:
                del self._kept[oldest]
        self._kept[key] = (until, value)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Keep it no longer."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept
