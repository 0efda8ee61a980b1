"""What stands for PgDog in tests: it sends each statement to the server of its merchant, and can freeze or refuse one.

It speaks PostgreSQL's protocol and does as PgDog 0.1.54 does in strict mode (`cross_shard_disabled`), where that
matters to Flash:

- A statement goes where its merchant is (`merchant_id = $n`, or the VALUES of a top-level INSERT); one that names none,
  or two, is refused.
- A transaction goes where `SET LOCAL pgdog.sharding_key` or `pgdog.shard` sends it, COPY included. One that begins
  without is refused; PgDog would connect to every server, which fails with the first that is away.
- BEGIN and SET LOCAL are answered by the router itself, and not taken in one message.
- What only prepares a statement goes to any server in turn, and so does a statement without tables of merchants.
- An error of the router's own is 58000.
"""

import asyncio
import struct
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

from pglast import parse_sql

from app.storage.database import dsn
from tests.storage.routing import is_one, merchants_of, tables_of

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
PORT = 5432
#: Of the client's messages: what ends a request.
ENDS: Final = b"SHQcfX"


class _RefusedError(Exception):
    """What the router answers itself: a message, and whether the client's connection ends with it."""

    def __init__(self, message: str, *, is_fatal: bool = False) -> None:
        super().__init__(message)
        self.is_fatal = is_fatal


@dataclass(frozen=True, slots=True)
class _Message:
    code: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.code + struct.pack("!i", len(self.body) + 4) + self.body

    def text(self, place: int = 0) -> str:
        return self.body.split(b"\0")[place].decode()


async def _read(reader: asyncio.StreamReader) -> _Message:
    code, length = struct.unpack("!ci", await reader.readexactly(5))
    return _Message(code, await reader.readexactly(length - 4))


@lru_cache(maxsize=2_000)
def _merchant(sql: str) -> int | None:
    """Return the number of the parameter that names the merchant, or None for a statement without merchants' tables.

    Raises _RefusedError for what crosses.
    """
    merchants = merchants_of(sql) if tables_of(sql) else None
    if merchants is None:
        return None
    if not is_one(merchants):
        raise _RefusedError("cross-shard queries are disabled")
    return int(merchants.pop().removeprefix("$"))


def _parameter(bind: _Message, number: int) -> UUID:
    """Return a parameter of a Bind as a UUID."""
    place = bind.body.index(b"\0", bind.body.index(b"\0") + 1) + 1
    (formats,) = struct.unpack_from("!h", bind.body, place)
    kinds = struct.unpack_from(f"!{formats}h", bind.body, place + 2)
    place += 4 + 2 * formats
    for _ in range(number - 1):
        (length,) = struct.unpack_from("!i", bind.body, place)
        place += 4 + max(length, 0)
    (length,) = struct.unpack_from("!i", bind.body, place)
    value = bind.body[place + 4 : place + 4 + length]
    is_binary = kinds[min(number, formats) - 1] if formats else 0
    return UUID(bytes=value) if is_binary else UUID(value.decode())


def _error(message: str, *, is_fatal: bool = False) -> _Message:
    severity = "FATAL" if is_fatal else "ERROR"
    fields = {"S": severity, "V": severity, "C": "58000", "M": message}
    return _Message(b"E", b"".join(f"{code}{value}".encode() + b"\0" for code, value in fields.items()) + b"\0")


def _done(tag: str) -> _Message:
    return _Message(b"C", tag.encode() + b"\0")


class _Link:
    """A client's connection to one server."""

    def __init__(self, way: "_Way", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._way = way
        self._reader = reader
        self._writer = writer
        self.prepared: dict[str, _Message] = {}

    async def send(self, *messages: _Message) -> None:
        await self._way.flows.wait()
        try:
            self._writer.write(b"".join(message.raw for message in messages))
            await self._writer.drain()
        except OSError:
            raise _RefusedError("server closed", is_fatal=True) from None

    async def receive(self) -> _Message:
        try:
            message = await _read(self._reader)
            await self._way.flows.wait()
        except (OSError, asyncio.IncompleteReadError):
            raise _RefusedError("server closed", is_fatal=True) from None
        if self._way.is_refused:
            raise _RefusedError("server closed", is_fatal=True)
        return message

    async def ask(self, *messages: _Message, until: bytes) -> None:
        """Send something of the router's own, and pass over the answer."""
        await self.send(*messages)
        while (await self.receive()).code != until:
            pass

    @property
    def is_open(self) -> bool:
        return self in self._way.links and not self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()


@dataclass(eq=False)
class _Way:
    """The way to one server."""

    url: str
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    is_refused: bool = False
    links: set[_Link] = field(default_factory=set)

    async def open(self, startup: dict[str, str]) -> tuple[_Link, list[_Message]]:
        """Connect as the client did. Returns also what the server said of itself."""
        if self.is_refused:
            raise _RefusedError("checkout timeout")
        parts = urlsplit(self.url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            if (host := query.get("host", parts.hostname or "localhost")).startswith("/"):
                reader, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{PORT}")
            else:
                reader, writer = await asyncio.open_connection(host, parts.port or PORT)
        except OSError:
            raise _RefusedError("checkout timeout") from None
        named = startup | {"user": parts.username or "postgres", "database": parts.path.removeprefix("/")}
        said = b"".join(f"{name}\0{value}\0".encode() for name, value in named.items()) + b"\0"
        writer.write(struct.pack("!ii", len(said) + 8, 196608) + said)
        link = _Link(self, reader, writer)
        self.links.add(link)
        greeting: list[_Message] = []
        while (message := await link.receive()).code != b"Z":
            if message.code == b"E":
                raise _RefusedError("checkout timeout")
            greeting.append(message)
        return link, greeting


class Router:
    """A router before several databases, which are all of one schema."""

    def __init__(self, databases: Sequence[str], loop: asyncio.AbstractEventLoop) -> None:
        """Take the databases, in the order in which servers are numbered."""
        self.url = ""
        #: Where merchants are, and where all others are, new ones above all.
        self.places: dict[UUID, int] = {}
        self.others = 0
        #: What was sent to which server, without what the router answered itself.
        self.sent: list[tuple[int, str]] = []
        #: How often somebody wanted a statement to be cancelled. PgDog may cancel another client's.
        self.cancels = 0
        self._ways = [_Way(dsn(url)) for url in databases]
        self._turns = count()
        self._loop = loop
        self._greeting: list[_Message] = []
        self._clients: set[asyncio.Task[None]] = set()
        for way in self._ways:
            way.flows.set()

    def place(self, merchant_id: UUID) -> int:
        """Return the number of a merchant's server."""
        return self.places.get(merchant_id, self.others)

    def anywhere(self) -> int:
        """Return the number of the server whose turn it is."""
        return next(self._turns) % len(self._ways)

    def freeze(self, number: int) -> None:
        """Let nothing come through to a server or from it; connections stay open."""
        self._do(self._ways[number].flows.clear)

    def thaw(self, number: int) -> None:
        """Let through what has waited."""
        self._do(self._ways[number].flows.set)

    def refuse(self, number: int) -> None:
        """Cut all connections to a server and refuse new ones, as if it were dead."""

        def cut() -> None:
            way = self._ways[number]
            way.is_refused = True
            way.flows.set()
            while way.links:
                way.links.pop().close()

        self._do(cut)

    def accept(self, number: int) -> None:
        """Connect to a server again."""
        self._do(lambda: setattr(self._ways[number], "is_refused", False))

    def _do(self, act: Callable[[], object]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    async def start(self, socket: str) -> asyncio.Server:
        """Listen."""
        _, greeting = await self._ways[0].open({})
        self._greeting = [message for message in greeting if message.code in b"RS"]
        return await asyncio.start_unix_server(self._serve, socket)

    async def stop(self) -> None:
        """Leave everybody."""
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for way in self._ways:
            for link in way.links:
                link.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        client = None
        try:
            startup = await _startup(reader, writer)
            if startup is None:
                self.cancels += 1
            else:
                writer.write(b"".join(message.raw for message in self._greeting))
                writer.write(_Message(b"K", struct.pack("!ii", 1, 1)).raw + _Message(b"Z", b"I").raw)
                client = _Client(self, self._ways, startup, reader, writer)
                await client.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(task)
            if client is not None:
                client.close()
            writer.close()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str] | None:
    while True:
        length, code = struct.unpack("!ii", await reader.readexactly(8))
        body = await reader.readexactly(length - 8)
        if code in {SSL_REQUEST, GSS_REQUEST}:
            writer.write(b"N")
        elif code == CANCEL_REQUEST:
            return None
        else:
            words = body.decode().split("\0")
            return {name: value for name, value in zip(words[::2], words[1::2], strict=False) if name}


class _Client:
    """One connection of a client, which sends one request after the other."""

    def __init__(
        self, router: "Router", ways: list[_Way], startup: dict[str, str],
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._router = router
        self._ways = ways
        self._startup = startup
        self._reader = reader
        self._writer = writer
        self._links: dict[int, _Link] = {}
        self._parsed: dict[str, _Message] = {}
        #: BEGIN, which waits for the first statement.
        self._begin: _Message | None = None
        self._status = b"I"
        self._chosen: int | None = None
        self._pinned: int | None = None

    async def run(self) -> None:
        """Answer requests until the client leaves."""
        while (request := await self._request())[-1].code != b"X":
            try:
                await self._answer(request)
            except _RefusedError as error:
                self._tell(_error(str(error), is_fatal=error.is_fatal))
                if error.is_fatal:
                    return
                self._status = b"I" if self._status == b"I" else b"E"
                if request[-1].code in b"SQ":
                    self._ready()
            await self._writer.drain()

    def close(self) -> None:
        """Leave the servers."""
        for number, link in self._links.items():
            self._ways[number].links.discard(link)
            link.close()

    async def _request(self) -> list[_Message]:
        messages = [await _read(self._reader)]
        while messages[-1].code not in ENDS and messages[-1].code != b"d":
            messages.append(await _read(self._reader))
        return messages

    def _tell(self, *messages: _Message) -> None:
        self._writer.write(b"".join(message.raw for message in messages))

    def _ready(self) -> None:
        self._tell(_Message(b"Z", self._status))

    async def _answer(self, request: list[_Message]) -> None:
        codes = b"".join(message.code for message in request)
        for message in request:
            if message.code == b"P":
                self._parsed[message.text()] = message
        if codes in {b"d", b"c", b"f"}:
            assert self._pinned is not None
            await self._links[self._pinned].send(*request)
            if codes != b"d":
                await self._relay(self._links[self._pinned], b"Z")
        elif codes == b"Q":
            await self._simple(request[0])
        elif codes == b"S" and self._pinned is None:
            self._ready()
        elif codes.strip(b"C") == b"S" and self._pinned is None:
            self._tell(*[_Message(b"3", b"")] * (len(codes) - 1))
            self._ready()
        else:
            await self._extended(request, codes)

    async def _simple(self, message: _Message) -> None:
        sql = message.text().strip().rstrip(";")
        words = sql.split()
        first = words[0].upper()
        if ";" in sql and len(parse_sql(sql)) > 1:
            raise _RefusedError("a multi-statement message that mixes SET with others")
        if first == "BEGIN":
            self._begin, self._status = message, b"T"
            self._tell(_done("BEGIN"))
            self._ready()
        elif first == "SET":
            if self._pinned is not None or words[1:4:2] != ["LOCAL", "TO"] or self._status != b"T":
                raise _RefusedError(f"this router takes SET LOCAL ... TO before a transaction's first statement: {sql}")
            value = words[4].strip("'")
            self._chosen = int(value) if words[2] == "pgdog.shard" else self._router.place(UUID(value))
            self._tell(_done("SET"))
            self._ready()
        elif first in {"COMMIT", "ROLLBACK"} and self._pinned is None:
            self._end()
            self._tell(_done(first))
            self._ready()
        else:
            number = self._place_of_simple(sql)
            link = await self._link(number)
            self._router.sent.append((number, sql))
            await link.send(message)
            await self._relay(link, b"ZG")

    def _place_of_simple(self, sql: str) -> int:
        if self._pinned is not None:
            return self._pinned
        if self._status != b"I":
            return self._of_transaction()
        if sql.upper().startswith("COPY") or _merchant(sql) is not None:
            raise _RefusedError("cross-shard queries are disabled")
        return self._router.anywhere()

    async def _extended(self, request: list[_Message], codes: bytes) -> None:
        names = [_statement(message) for message in request if message.code in b"PBD" and _names(message)]
        sql = self._parsed[names[0]].text(1) if names else ""
        number = self._place(request, sql, is_executed=b"E" in codes)
        link = await self._link(number)
        for name in dict.fromkeys(names):
            parsed = self._parsed[name]
            if any(message.code == b"P" and message.text() == name for message in request):
                link.prepared[name] = parsed
            elif link.prepared.get(name) is not parsed:
                await link.ask(parsed, _Message(b"H", b""), until=b"1")
                link.prepared[name] = parsed
        if b"E" in codes:
            self._router.sent.append((number, sql))
        await link.send(*request)
        if codes[-1:] == b"S":
            await self._relay(link, b"Z")
        else:
            # Flush: nothing says where the answer ends but what was asked.
            for message in request:
                if message.code == b"D" and message.body[:1] == b"S" and await self._relay(link, b"tE"):
                    return
                ends = {b"P": b"1", b"B": b"2", b"D": b"Tn", b"E": b"CIs", b"C": b"3"}.get(message.code)
                if ends is not None and await self._relay(link, ends + b"E"):
                    return

    def _place(self, request: list[_Message], sql: str, *, is_executed: bool) -> int:
        if self._pinned is not None:
            return self._pinned
        if self._status != b"I":
            return self._of_transaction()
        number = _merchant(sql) if is_executed else None
        if number is None:
            return self._router.anywhere()
        bind = next(message for message in request if message.code == b"B")
        return self._router.place(_parameter(bind, number))

    def _of_transaction(self) -> int:
        if self._chosen is None:
            raise _RefusedError("a transaction that names no merchant connects to every server")
        return self._chosen

    async def _link(self, number: int) -> _Link:
        """Return the connection to a server, in the client's transaction if there is one."""
        if number >= len(self._ways):
            raise _RefusedError(f"no such shard: {number}", is_fatal=True)
        way = self._ways[number]
        link = self._links.get(number)
        if link is None or not link.is_open:
            link, _ = await way.open(self._startup)
            self._links[number] = link
        if self._begin is not None:
            self._pinned = number
            begin, self._begin = self._begin, None
            await link.ask(begin, until=b"Z")
        return link

    async def _relay(self, link: _Link, ends: bytes) -> bool:
        """Pass on what a server says, up to one of these messages. Returns whether that is an error."""
        said: list[_Message] = []
        while True:
            message = await link.receive()
            if message.code == b"Z":
                self._status = message.body
                if self._status == b"I":
                    self._end()
            said.append(message)
            if message.code in ends:
                # At once, as PostgreSQL does: a client wakes up for each piece.
                self._tell(*said)
                return message.code == b"E"

    def _end(self) -> None:
        self._begin = self._chosen = self._pinned = None
        self._status = b"I"


def _names(message: _Message) -> bool:
    return message.code != b"D" or message.body[:1] == b"S"


def _statement(message: _Message) -> str:
    """Return the name of the statement that a Parse, Bind or Describe is about."""
    match message.code:
        case b"P":
            return message.text()
        case b"B":
            return message.text(1)
        case _:
            return message.text()[1:]


@contextmanager
def router(databases: Sequence[str]) -> Iterator[Router]:
    """Run a router before these databases until the block ends, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=30)

    async def made() -> Router:
        return Router(databases, loop)

    try:
        with tempfile.TemporaryDirectory(prefix="flash-router-") as folder:
            running: Router = do(made())
            running.url = f"postgresql://postgres@/flash?{urlencode({'host': folder, 'sslmode': 'disable'})}"
            server = do(running.start(f"{folder}/.s.PGSQL.{PORT}"))
            try:
                yield running
            finally:
                with suppress(TimeoutError):
                    do(_closed(server))
                do(running.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()


async def _closed(server: asyncio.Server) -> None:
    server.close()
