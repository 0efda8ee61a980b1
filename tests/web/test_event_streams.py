"""Server-sent events. Without these clients behind proxies could hang, or take a cut stream for a finished one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any, cast

import httpx
import pytest

from app.api.context import Role, Tenant, Viewer
from app.config import Settings
from app.web.authentication import Proof
from app.web.graphql_documents import Asked, Documents
from app.web.graphql_sse import EventStream
from app.web.open_streams import OpenStreams
from tests.factories import CREATE_POOL, Shop
from tests.wallets.sockets import CHANGED
from tests.web.test_sockets import short_token

ROLE = "{ viewer { role } }"
COST = {"nodes": 1, "nodesMax": 20_000, "fields": 2, "fieldsMax": 50_000}


class Events:
    """The events of an open stream."""

    def __init__(self, response: httpx.Response) -> None:
        """Take the response."""
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """Return the next event and its data; ("end", None) when the stream has ended."""
        kind, data = "end", None
        async for line in self._lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data:"):
                text = line.removeprefix("data:").strip()
                data = json.loads(text) if text else None
            elif not line and kind != "end":
                break
        return kind, data

    async def change(self) -> Any:
        """Return the next change."""
        kind, data = await self.next()
        assert kind == "next", (kind, data)
        return data["data"]["walletChanged"]


@asynccontextmanager
async def streaming(
    shop: Shop, key: str, document: str, *, accept: str = "text/event-stream", url: str | None = None, **variables: Any
) -> AsyncIterator[Events]:
    """Open a stream."""
    headers = {"accept": accept, "authorization": f"Bearer {key}"}
    body = {"query": document, "variables": variables}
    async with shop.http.stream("POST", url or shop.url, json=body, headers=headers) as response:
        yield Events(response)


async def test_a_stream_has_no_headers_of_those_before_it(shop: Shop) -> None:
    heads = []
    for _ in range(3):
        async with streaming(shop, shop.admin, ROLE) as events:
            heads.append(events.response.headers)

    assert len({head["x-request-id"] for head in heads}) == 3
    for head in heads:
        assert sorted(name for name, _ in head.multi_items() if name != "date") == [
            "cache-control", "content-type", "referrer-policy", "transfer-encoding", "x-accel-buffering",
            "x-content-type-options", "x-request-id",
        ]  # fmt: skip


async def test_a_wallet_is_followed_by_events(shop: Shop) -> None:
    member = await shop.member()
    first, second = await shop.pool(), await shop.pool()
    await shop.claim(first, member)
    async with streaming(shop, await shop.token(member["id"]), CHANGED, after=0) as events:
        assert events.response.status_code == 200
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.response.headers["cache-control"] == "no-store"
        missed = await events.change()
        await shop.claim(second, member)
        live = await events.change()

    assert [(change["version"], change["code"]["pool"]["id"]) for change in (missed, live)] == [
        (1, first["id"]),
        (2, second["id"]),
    ]


async def test_a_stream_ends_with_the_fault_when_its_credential_cannot_be_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answers(*_: Any) -> None:
        await asyncio.Event().wait()

    async def lapsed(*_: Any) -> None:
        raise RuntimeError("a table is gone")

    monkeypatch.setattr("app.web.graphql_sse.answers", answers)
    monkeypatch.setattr("app.web.graphql_sse.lapsed", lapsed)
    limits = Settings()
    proof = Proof(Viewer(Role.ADMIN, cast("Tenant", None), "apikey_1"), inf, inf)

    async def receive() -> dict[str, Any]:
        return await asyncio.Future[dict[str, Any]]()

    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    stream = EventStream(Documents(limits), Asked("{ x }", None, {}), proof, OpenStreams(limits), is_resumed=True)
    await stream({}, receive, send)

    (event,) = [json.loads(each.partition(b"data: ")[2].partition(b"\n")[0]) for each in sent if b"data: " in each]
    assert [error["extensions"]["code"] for error in event["errors"]] == ["INTERNAL_SERVER_ERROR"]
    assert sent[-2].endswith(b"event: complete\ndata:\n\n")


async def test_a_query_is_one_event_and_complete(shop: Shop) -> None:
    async with streaming(shop, shop.admin, ROLE) as events:
        assert [await events.next() for _ in range(3)] == [
            ("next", {"data": {"viewer": {"role": "ADMIN"}}, "extensions": {"cost": COST}}),
            ("complete", None),
            ("end", None),
        ]


async def test_a_mutation_is_answered_by_events(shop: Shop) -> None:
    terms = {"name": "x", "kind": "PERCENT", "percentOff": 1.0}
    async with streaming(shop, shop.admin, CREATE_POOL, input=terms) as events:
        _, answer = await events.next()

    assert answer["data"]["answer"]["pool"]["name"] == "x"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { viewer { role } } query B { viewer { role } }", "BAD_USER_INPUT"),
        ("subscription { walletChanged(after: 5) { version } }", "FORBIDDEN"),
    ],
)
async def test_errors_are_events_too(shop: Shop, document: str, code: str) -> None:
    async with streaming(shop, shop.admin, document) as events:
        kind, data = await events.next()

        assert (kind, data.keys(), data["errors"][0]["extensions"]["code"]) == ("next", {"errors"}, code)
        assert await events.next() == ("complete", None)


async def test_a_wrong_version_is_an_error(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])
    async with streaming(shop, token, CHANGED, after=1) as events:
        _, data = await events.next()

    assert data["errors"][0]["extensions"] == {"code": "VERSION_UNKNOWN", "version": 0}


async def test_an_event_stream_is_sent_only_to_who_lists_it_first(shop: Shop) -> None:
    for accept in ("text/event-stream, application/json", "text/event-stream;q=1", "TEXT/EVENT-STREAM"):
        async with streaming(shop, shop.admin, ROLE, accept=accept) as events:
            assert events.response.headers["content-type"].startswith("text/event-stream")
    for accept in ("application/json, text/event-stream", "*/*"):
        async with streaming(shop, shop.admin, ROLE, accept=accept) as events:
            assert events.response.headers["content-type"].startswith("application/json")


async def test_a_subscription_for_json_is_told_where_to_go(shop: Shop) -> None:
    answer = await shop.post(CHANGED, key=await shop.token((await shop.member())["id"]))

    assert answer == {
        "errors": [
            {
                "message": "Subscriptions are sent over a WebSocket, or with `Accept: text/event-stream`.",
                "extensions": {"code": "BAD_USER_INPUT"},
            }
        ]
    }


@pytest.mark.parametrize("key", ["", "x", "flash_x"])
async def test_nobody_gets_no_stream(shop: Shop, key: str) -> None:
    async with streaming(shop, key or "none", ROLE) as events:
        body = json.loads(await events.response.aread())

    assert events.response.status_code == 401
    assert body["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_what_is_below_graphql_has_a_status(shop: Shop) -> None:
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {shop.admin}"}

    async def status(method: str = "POST", **how: Any) -> int:
        return (await shop.http.request(method, shop.url, headers=headers | how.pop("headers", {}), **how)).status_code

    assert await status(content=b"{", headers={"content-type": "application/json"}) == 400
    assert await status(json=7) == 400
    assert await status(data={"query": ROLE}) == 415
    assert await status("PUT", json={"query": ROLE}) == 405
    assert await status("GET", params={"query": 'mutation { pausePool(input: { poolId: "x" }) { __typename } }'}) == 405
    assert await status("GET", params={"query": ROLE}) == 200
    assert await status(json={"query": ROLE, "variables": {"x": "y" * 1_100_000}}) == 413


async def test_the_end_of_a_token_ends_its_stream_for_good(shop: Shop) -> None:
    member = await shop.member()
    await shop.claim(await shop.pool(), member)
    async with streaming(shop, await short_token(shop, member), CHANGED, after=0) as events:
        assert (await events.change())["version"] == 1
        kind, data = await events.next()

        assert (kind, data["errors"][0]["extensions"]["code"]) == ("next", "UNAUTHENTICATED")
        assert await events.next() == ("complete", None)
        assert await events.next() == ("end", None)
