"""A proxy before PostgreSQL that notes each round trip of the wire protocol.

A round trip is a Sync, a simple Query or a Flush. Statements are prepared on first use, so run an operation once before
you count it.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from app.members import token_feed
from app.merchants import api_keys, tenants

PORT = 5432
#: Authentication's statements; what they read serves all requests of some seconds.
AUTHENTICATION = {api_keys.FIND.text, tenants.FIND.text, token_feed.FIND.text}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waits: list[str]) -> None:
    """Pass a frontend's messages on and note each statement that it waits for."""
    prepared: dict[bytes, str] = {}
    bound = ""
    length = await reader.readexactly(4)
    writer.write(length + await reader.readexactly(int.from_bytes(length) - 4))
    while kind := await reader.read(1):
        length = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(length) - 4)
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            prepared[name] = bound = sql.decode()
        elif kind == b"B":
            bound = prepared[body.split(b"\0", 2)[1]]
        elif kind == b"Q":
            waits.append(body.rstrip(b"\0").decode())
        elif kind in {b"S", b"H"}:
            waits.append(bound)
        writer.write(kind + length + body)
        await writer.drain()


@contextlib.asynccontextmanager
async def counting(database: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Run a proxy in front of a database. Yields the URL through it and the list of its notes."""
    waits: list[str] = []
    parts = urlsplit(database)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    host = query.get("host", parts.hostname or "localhost")
    port = int(query.get("port", parts.port or PORT))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            behind, ahead = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            behind, ahead = await asyncio.open_connection(host, port)
        tasks = [asyncio.create_task(_watch(reader, ahead, waits)), asyncio.create_task(_pump(behind, writer))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ahead.close()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="flash-proxy-") as directory:
        server = await asyncio.start_unix_server(serve, f"{directory}/.s.PGSQL.{PORT}")
        user = parts.netloc.rpartition("@")[0]
        through = urlencode({"host": directory, "sslmode": "disable"})
        async with server:
            yield urlunsplit(parts._replace(netloc=f"{user}@" if user else "", query=through)), waits
