"""A way to a database that can be frozen: connections open and stay open, and nothing comes through."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

PORT = 5432


@dataclass
class Way:
    """The URL of the database by this way, and whether anything comes through."""

    url: str
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes."""
        while data := await reader.read(65_536):
            await self.flows.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def way_to(database: str) -> AsyncIterator[Way]:
    """Open a way to a database's server."""
    parts = urlsplit(database)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    host, port = query.get("host", parts.hostname or "localhost"), int(query.get("port", parts.port or PORT))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            behind, ahead = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            behind, ahead = await asyncio.open_connection(host, port)
        tasks = [asyncio.create_task(way.pump(reader, ahead)), asyncio.create_task(way.pump(behind, writer))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ahead.close()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="flash-way-") as directory:
        user = parts.netloc.rpartition("@")[0]
        through = urlencode({"host": directory, "sslmode": "disable"})
        way = Way(urlunsplit(parts._replace(netloc=f"{user}@" if user else "", query=through)))
        way.flows.set()
        async with await asyncio.start_unix_server(serve, f"{directory}/.s.PGSQL.{PORT}"):
            yield way
            # What still waits would keep the server open.
            way.flows.set()
