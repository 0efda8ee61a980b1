"""Flags. Without these a subscriber could wait for what has happened, or one that leaves take others with it."""

import asyncio

from app.storage.flag import Flag


async def _waiting(flag: Flag, count: int) -> list[asyncio.Task[None]]:
    """Return so many tasks that wait for a flag."""
    tasks = [asyncio.create_task(flag.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_nobody_waits_for_a_flag_that_is_set() -> None:
    flag = Flag()
    flag.set()
    (task,) = await _waiting(flag, 1)

    assert flag.is_set()
    assert task.done()


async def test_setting_it_lets_all_go_on_who_wait_even_if_it_is_cleared_at_once() -> None:
    flag = Flag()
    tasks = await _waiting(flag, 3)
    flag.set()
    flag.set()
    flag.clear()

    assert await asyncio.gather(*tasks) == [None, None, None]
    (late,) = await _waiting(flag, 1)
    assert not flag.is_set()
    assert not late.done()
    late.cancel()


async def test_who_leaves_keeps_nobody_waiting() -> None:
    flag = Flag()
    first, second, third = await _waiting(flag, 3)
    first.cancel()
    await asyncio.sleep(0)
    flag.set()
    # It was let go on, and is cancelled before it does.
    third.cancel()
    await asyncio.wait([first, second, third])

    assert [task.cancelled() for task in (first, second, third)] == [True, False, True]
    flag.set()
