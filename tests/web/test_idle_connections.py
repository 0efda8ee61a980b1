"""Connections between requests. Without these one could stay open for ever, or be closed while it is used."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from app.web.http_protocol import LimitedProtocol

KEEP_ALIVE_SECONDS = 75
REQUEST = b"GET / HTTP/1.1\r\nhost: flash\r\n\r\n"
OK = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
]


@dataclass
class Timer:
    """A timer of a clock that only the test moves."""

    at: float
    call: Any
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Clock:
    """The event loop, whose time the test tells."""

    now: float = 1_000.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any) -> Timer:
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def create_task(self, work: Any) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(work)

    def running(self) -> list[float]:
        """Return after how many seconds timers fire."""
        return [timer.at - self.now for timer in self.timers if not timer.is_cancelled]

    def move(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now and not timer.is_cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.call()


class Connection:
    """A transport of which only its state is looked at."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def connected(app: Any) -> tuple[Clock, Connection, LimitedProtocol]:
    config = uvicorn.Config(
        app, lifespan="off", access_log=False, log_config=None, timeout_keep_alive=KEEP_ALIVE_SECONDS
    )
    config.load()
    clock, connection = Clock(), Connection()
    connection.protocol = LimitedProtocol(config, ServerState(), {}, clock)  # type: ignore[arg-type]
    connection.protocol.connection_made(connection)
    return clock, connection, connection.protocol


async def test_a_connection_is_closed_once_it_has_been_idle_for_so_long_after_its_last_answer() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in OK:
            await send(message)

    clock, connection, protocol = connected(app)
    for _ in range(3):
        protocol.data_received(REQUEST)
        await asyncio.gather(*protocol.tasks)
        clock.move(20)
    # An empty line is no request.
    protocol.data_received(b"\r\n")

    assert connection.written.count(b"HTTP/1.1 200 OK") == 3
    assert clock.running() == [KEEP_ALIVE_SECONDS - 60]
    clock.move(KEEP_ALIVE_SECONDS - 60)
    assert (connection.is_closed, clock.running()) == (False, [40])
    clock.move(40)
    assert (connection.is_closed, clock.running()) == (True, [])


async def test_a_connection_stays_open_while_an_answer_is_made_or_a_request_comes() -> None:
    asked = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asked.wait()
        for message in OK:
            await send(message)

    clock, connection, protocol = connected(app)
    asked.set()
    protocol.data_received(REQUEST)
    await asyncio.gather(*protocol.tasks)
    asked.clear()
    protocol.data_received(REQUEST)
    clock.move(KEEP_ALIVE_SECONDS)
    assert (connection.is_closed, clock.running()) == (False, [KEEP_ALIVE_SECONDS])

    asked.set()
    await asyncio.gather(*protocol.tasks)
    clock.move(KEEP_ALIVE_SECONDS - 1)
    protocol.data_received(REQUEST[:20])
    # The request has a deadline of its own, and the timer looks again.
    clock.move(1)
    assert (connection.is_closed, clock.running()) == (False, [9, KEEP_ALIVE_SECONDS])

    protocol.connection_lost(None)
    assert clock.running() == []


async def test_requests_that_come_in_pieces_share_two_timers() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in OK:
            await send(message)

    clock, connection, protocol = connected(app)
    for _ in range(3):
        protocol.data_received(REQUEST[:20])
        protocol.data_received(REQUEST[20:])
        await asyncio.gather(*protocol.tasks)

    assert connection.written.count(b"HTTP/1.1 200 OK") == 3
    assert clock.running() == [10, KEEP_ALIVE_SECONDS]
    clock.move(5)
    protocol.data_received(REQUEST[:20])
    clock.move(5)
    # The timer looks again when this one is late.
    assert (connection.is_closed, clock.running()) == (False, [KEEP_ALIVE_SECONDS - 10, 5])
    clock.move(5)
    assert connection.is_closed
    assert b"HTTP/1.1 408 Request Timeout" in connection.written


async def test_a_connection_whose_peer_is_gone_leaves_no_timer() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in OK:
            await send(message)

    clock, _, protocol = connected(app)
    protocol.data_received(REQUEST)
    await asyncio.gather(*protocol.tasks)
    protocol.connection_lost(ConnectionResetError())

    assert clock.running() == []
