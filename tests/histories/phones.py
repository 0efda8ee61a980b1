"""Phones in a world about people: each follows a wallet, is told of each version once, and ends with its member."""

import asyncio
import json
from functools import partial
from typing import Any, Final

import websockets
from websockets.typing import Subprotocol

from app.stress.clients import Client
from app.stress.worlds import World
from tests.histories.streams import until

CHANGED: Final = "subscription ($after: Int) { walletChanged(after: $after) { version event { type } } }"
MEMBER: Final = "query ($id: ID!) { answer: member(id: $id) { id erasedAt wallet { version } } }"
CONNECT_SECONDS_MAX: Final = 5.0
AGAIN_SECONDS: Final = 0.1
#: What the last version of a record says that was merged.
LAST: Final = "member.merged"
#: With which a server closes a socket whose token has ended, or was never one.
FORBIDDEN: Final = 4403


class Phone:
    """A member's phone, over sockets that it opens again when they are cut.

    It has read its wallet when it begins. `ended` says how its stream ended for good, and `cuts` how often it was cut.
    """

    def __init__(self, member: str, version: int) -> None:
        self.member = member
        self.versions = [version]
        self.last = ""
        self.ended = ""
        self.cuts = 0

    async def follow(self, url: str, token: str) -> None:
        """Follow the wallet until its stream has ended."""
        while not self.ended:
            try:
                await self._listen(url, token)
            except websockets.ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == FORBIDDEN:
                    self.ended = "its token ended"
                self.cuts += 1
            except (websockets.WebSocketException, OSError, EOFError, TimeoutError):
                self.cuts += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self, url: str, token: str) -> None:
        async with websockets.connect(
            url.replace("http", "ws", 1), subprotocols=[Subprotocol("graphql-transport-ws")], compression=None,
            proxy=None, close_timeout=1, open_timeout=CONNECT_SECONDS_MAX,
        ) as connection:  # fmt: skip
            await connection.send(
                json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})
            )
            payload = {"query": CHANGED, "variables": {"after": self.versions[-1]}}
            async for text in connection:
                message = json.loads(text)
                if message["type"] == "connection_ack":
                    await connection.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                elif message["type"] == "ping":
                    await connection.send('{"type":"pong"}')
                elif message["type"] == "next":
                    self.take(message["payload"]["data"]["walletChanged"])
                elif message["type"] == "complete":
                    self.ended = "it was complete"
                    return
                elif message["type"] == "error":
                    if message["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED":
                        self.ended = "its token ended"
                    return

    def take(self, change: dict[str, Any]) -> None:
        """Note a change."""
        self.versions.append(change["version"])
        self.last = change["event"]["type"]

    def wrong(self, found: dict[str, Any]) -> str | None:
        """Return what is wrong with what it was told of a member that is so by now; None if nothing is."""
        told = self.versions
        if told != list(range(told[0], told[0] + len(told))):
            return f"{self.member}: told of versions {told}"
        if found["id"] == self.member and found["erasedAt"] is None:
            if self.ended or told[-1] != found["wallet"]["version"]:
                return f"{self.member}: told until {told[-1]} of {found['wallet']['version']} {self.ended}".rstrip()
            return None
        if not self.ended:
            return f"{self.member}: it is gone, and its phone goes on"
        # A phone that was cut while its member was merged can't come back for the last.
        is_told = self.last == LAST or self.cuts > 0
        return None if is_told or found["erasedAt"] is not None else f"{self.member}: it ended with {self.last}"

    def is_over(self, found: dict[str, Any]) -> bool:
        """Whether it was told of all that there was."""
        is_here = found["id"] == self.member and found["erasedAt"] is None
        return bool(self.versions[-1] >= found["wallet"]["version"] if is_here else self.ended)


async def play_followed(world: World, clients: list[Client], url: str) -> list[Phone]:
    """Make a world, and let clients use it until it is over, while a phone follows each of its first members.

    Adds what phones were told wrongly to the world's faults. Raises Fault and Unanswered if it can't be made.
    """
    patient = clients[0]
    await world.prepare(patient)
    phones = []
    for member in world.members:
        found = await patient.patiently(MEMBER, {"id": member}, is_query=True)
        phones.append(Phone(member, found["wallet"]["version"]))
    following = [asyncio.create_task(phone.follow(url, world.tokens[phone.member])) for phone in phones]
    try:
        await asyncio.gather(*(world.play(client) for client in clients))
        for phone in phones:
            found = await patient.patiently(MEMBER, {"id": phone.member}, is_query=True)
            await until(partial(phone.is_over, found))
            wrong = phone.wrong(found)
            world.faults += [] if wrong is None else [f"{world.name}: {wrong}"]
            world.counts[f"a phone: {_end(phone, found)}"] += 1
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return phones


def _end(phone: Phone, found: dict[str, Any]) -> str:
    if found["erasedAt"] is not None:
        return "its member was erased"
    if found["id"] == phone.member:
        return "told of all"
    return "the last that it was told was the merging" if phone.last == LAST else "cut while its member was merged"
