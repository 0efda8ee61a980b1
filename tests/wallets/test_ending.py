"""The end of a process. Without these a restart could hang on open sockets, or tell clients that it was for good."""

import asyncio
import contextlib
import signal

from tests.conftest import run_api
from tests.factories import Shop
from tests.wallets.sockets import CHANGED, joined
from tests.web.test_event_streams import streaming

EXIT_SECONDS_MAX = 10


async def test_a_process_that_is_told_to_end_closes_its_streams_and_is_gone(shop: Shop, worker_database: str) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    with run_api(worker_database, FLASH_STREAMS_PER_MEMBER_MAX="25") as api:
        url = f"{api.url}/graphql"
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(joined(url.replace("http", "ws"), token)) for _ in range(12)]
            streams = [
                await stack.enter_async_context(streaming(shop, token, CHANGED, url=url, after=0)) for _ in range(5)
            ]
            for socket in sockets:
                await socket.follow(0)
            await shop.claim(await shop.pool(), member)
            assert {(await socket.change())["version"] for socket in sockets} == {1}
            assert {(await events.change())["version"] for events in streams} == {1}

            api.process.send_signal(signal.SIGTERM)

            assert {(await socket.closed())[0] for socket in sockets} == {1012}
            # Without `complete`: a client resumes.
            assert [await events.next() for events in streams] == [("end", None)] * 5
            status = await asyncio.to_thread(api.process.wait, EXIT_SECONDS_MAX)
        log = api.log.read_text()

    assert status in {0, -signal.SIGTERM}
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_a_reader_that_reads_nothing_does_not_hold_up_the_end(shop: Shop, worker_database: str) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    with run_api(worker_database) as api:
        async with joined(f"{api.url.replace('http', 'ws')}/graphql", token) as socket:
            await socket.follow(0)
            socket.connection.transport.pause_reading()

            api.process.send_signal(signal.SIGTERM)

            await asyncio.to_thread(api.process.wait, EXIT_SECONDS_MAX)
            socket.connection.transport.abort()
