"""Caches whose values last. Without these a revoked key could go on, or the memory fill with strangers' keys."""

import time
from math import inf

from app.storage.lasting import Lasting


def test_a_value_lasts_until_its_time() -> None:
    cache = Lasting[str, int](10)
    cache.keep("over", 1, time.monotonic())
    cache.keep("lasts", 2, inf)

    assert (cache.get("over"), cache.get("lasts"), cache.get("never")) == (None, 2, None)
    assert "over" not in cache


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = Lasting[str, int](2)
    cache.keep("a", 1, inf)
    cache.keep("b", 2, inf)
    cache.get("a")
    cache.keep("c", 3, inf)

    assert [name for name in "abc" if name in cache] == ["a", "c"]


def test_what_nobody_asks_for_again_goes_when_its_time_is_over() -> None:
    cache = Lasting[int, int](100)
    for number in range(5):
        cache.keep(number, number, time.monotonic())
    cache.keep(5, 5, inf)
    cache.keep(6, 6, inf)

    assert [number for number in range(7) if number in cache] == [5, 6]


def test_a_value_that_is_kept_again_has_its_new_time() -> None:
    cache = Lasting[str, int](2)
    cache.keep("a", 1, inf)
    cache.keep("a", 2, time.monotonic())

    assert cache.get("a") is None
    cache.keep("a", 3, inf)
    cache.drop("a")
    assert len(cache) == 0
