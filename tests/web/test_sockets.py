"""Sockets. Without these a malformed message could crash one, or a credential that has lapsed keep one open."""

import asyncio
import json
import time
from typing import Any

import pytest
import uvicorn
import websockets
from uvicorn.server import ServerState

from app import ids
from app.members import tokens
from app.merchants.tenants import tenant
from app.web.socket_protocol import SocketProtocol
from tests.conftest import Api, run_api
from tests.factories import CLAIM_CODE, CREATE_POOL, Shop
from tests.wallets.sockets import CHANGED, Socket, address, joined, opened

MESSAGE_BYTES_MAX = 131_072
ROLE = "{ viewer { role } }"


async def _answers(socket: Socket, document: str, *, id: Any = "1", **variables: Any) -> Any:
    """Run a query or mutation and return its payload."""
    await socket.subscribe(document, id=id, **variables)
    answer = await socket.receive()
    assert (answer["id"], answer["type"]) == (id, "next")
    assert await socket.receive() == {"id": id, "type": "complete"}
    assert answer["payload"].pop("extensions")["cost"]["nodes"] > 0
    return answer["payload"]


async def _api_is_well(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        assert await _answers(socket, ROLE) == {"data": {"viewer": {"role": "ADMIN"}}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "7",
        '"x"',
        "[]",
        "{}",
        "{",
        "NaN",
        '{"type": null}',
        '{"type": 7}',
        '{"type": "nothing"}',
        '{"type": "connection_ack"}',
        '{"type": "next", "id": "1"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": 7, "payload": {"query": "{ viewer { role } }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ viewer { role } }"}}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": "1", "payload": null}',
        '{"type": "subscribe", "id": "1", "payload": []}',
        '{"type": "subscribe", "id": "1", "payload": {}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 7}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { role } }", "variables": []}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { role } }", "operationName": 7}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { role } }", "extensions": "x"}}',
        '{"type": "complete"}',
        '{"type": "complete", "id": []}',
        "[" * 50_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        '{"type": "ping", "n": ' + "9" * 5_000 + "} x",
        '{"type": "\\ud800"}',
    ],
    ids=lambda text: text[:40] or "empty",
)
async def test_what_is_no_message_closes_the_socket(shop: Shop, text: str) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.connection.send(text)

        code, reason = await socket.closed()

    assert code == 4400
    assert reason
    await _api_is_well(shop)


async def test_bytes_are_no_message(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.connection.send(b'{"type": "ping"}')

        assert (await socket.closed())[0] == 4400


@pytest.mark.parametrize("text", ["null", "[]", '{"type": "connection_init", "payload": 7}', "x"])
async def test_a_bad_first_message_closes_the_socket(shop: Shop, text: str) -> None:
    async with opened(address(shop)) as socket:
        await socket.connection.send(text)

        assert (await socket.closed())[0] == 4400


async def test_text_that_is_not_utf_8_closes_the_socket(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.connection.send(b"\xff\xfe", text=True)

        assert (await socket.closed())[0] == 1007


async def test_a_large_message_closes_the_socket_and_one_of_the_largest_size_does_not(shop: Shop) -> None:
    message = json.dumps({"type": "ping", "payload": {"x": ""}})
    async with joined(address(shop), shop.admin) as socket:
        await socket.connection.send(message.replace('""', '"' + "x" * (MESSAGE_BYTES_MAX - len(message)) + '"'))
        assert await socket.receive() == {"type": "pong"}
        await socket.connection.send(message.replace('""', '"' + "x" * MESSAGE_BYTES_MAX + '"'))

        assert (await socket.closed())[0] == 1009


@pytest.mark.parametrize(
    "payload",
    [
        {"authorization": "Bearer {}"},
        {"Authorization": "bearer {}"},
        {"token": "{}"},
    ],
)
async def test_a_credential_comes_with_connection_init(shop: Shop, payload: dict[str, str]) -> None:
    async with opened(address(shop)) as socket:
        await socket.send(
            type="connection_init", payload={name: value.format(shop.admin) for name, value in payload.items()}
        )

        assert await socket.receive() == {"type": "connection_ack"}
        assert await _answers(socket, ROLE) == {"data": {"viewer": {"role": "ADMIN"}}}


async def test_a_credential_may_come_with_the_handshake(shop: Shop) -> None:
    async with opened(address(shop), authorization=f"Bearer {shop.admin}") as socket:
        await socket.send(type="connection_init")

        assert await socket.receive() == {"type": "connection_ack"}


@pytest.mark.parametrize("payload", [None, {}, {"authorization": None}, {"token": 7}, {"other": "x"}])
async def test_no_credential_is_unauthorized(shop: Shop, payload: Any) -> None:
    async with opened(address(shop)) as socket:
        await socket.send(type="connection_init", payload=payload)

        assert (await socket.closed())[0] == 4401


@pytest.mark.parametrize("token", ["", "x", "flash_x", "a.b.c", "é", "x" * 10_000, "two words"])
async def test_a_credential_that_proves_nobody_is_forbidden(shop: Shop, token: str) -> None:
    async with opened(address(shop)) as socket:
        await socket.send(type="connection_init", payload={"authorization": f"Bearer {token}"})

        assert (await socket.closed())[0] == 4403


async def test_nothing_is_subscribed_to_before_the_acknowledgement(shop: Shop) -> None:
    async with opened(address(shop)) as socket:
        await socket.send(type="ping")
        assert await socket.receive() == {"type": "pong"}
        await socket.subscribe(ROLE)

        assert (await socket.closed())[0] == 4401


async def test_a_socket_that_says_nothing_is_closed(shop: Shop) -> None:
    async with opened(address(shop)) as socket:
        assert (await socket.closed())[0] == 4408


async def test_a_second_initialisation_is_one_too_many(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.send(type="connection_init", payload={"token": shop.admin})

        assert (await socket.closed())[0] == 4429


async def test_an_id_in_use_closes_the_socket(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        await socket.follow(0)

        code, reason = await socket.closed()

    assert (code, reason) == (4409, "Subscriber for 1 already exists")


async def test_reasons_are_cut_to_what_a_close_frame_holds(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.send(type="🎟" * 30)

        assert await socket.closed() == (4400, f"There is no message type '{'🎟' * 24}")


async def test_an_id_is_free_again_as_soon_as_its_operation_ended(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        for _ in range(50):
            assert await _answers(socket, ROLE) == {"data": {"viewer": {"role": "ADMIN"}}}
        for _ in range(50):
            await socket.subscribe(ROLE)
            await socket.send(type="complete", id="1")
        await socket.send(type="complete", id="never begun")
        await socket.send(type="ping")
        while (await socket.receive())["type"] != "pong":
            pass


@pytest.mark.parametrize(
    ("document", "variables", "code"),
    [
        ("{", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("{ viewer { role } } { viewer { role } }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("query A { viewer { role } } query B { viewer { role } }", {}, "BAD_USER_INPUT"),
        ("query ($first: Int!) { pools(first: $first) { edges { cursor } } }", {"first": "x"}, "BAD_USER_INPUT"),
        (CHANGED, {"after": "x"}, "BAD_USER_INPUT"),
        (CHANGED, {"after": 2**31}, "BAD_USER_INPUT"),
        ("subscription { walletChanged { version } more: walletChanged { version } }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_executed_is_an_error_for_its_id(
    shop: Shop, document: str, variables: dict[str, Any], code: str
) -> None:
    async with joined(address(shop), shop.admin) as socket:
        await socket.subscribe(document, id="bad", **variables)
        answer = await socket.receive()

        assert (answer["id"], answer["type"]) == ("bad", "error")
        assert {error["extensions"]["code"] for error in answer["payload"]} == {code}
        assert await _answers(socket, ROLE, id="bad") == {"data": {"viewer": {"role": "ADMIN"}}}


async def test_queries_and_mutations_are_answered_as_over_http(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool()
    token = await shop.token(member["id"])
    claim = {"input": {"poolId": pool["id"]}}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        (token, ROLE, {}),
        (token, "{ members { edges { cursor } } }", {}),
        (token, "{ wallet { version codes { edges { node { text } } } } }", {}),
        (await shop.key("ANALYST"), "{ codes { edges { node { text masked } } } }", {}),
        (await shop.key("ANALYST"), CREATE_POOL, {"input": {"name": "x", "kind": "PERCENT", "percentOff": 1.0}}),
        (shop.admin, CREATE_POOL, {"input": {"name": " ", "kind": "PERCENT"}}),
    ]
    for key, document, variables in asked:
        async with joined(address(shop), key) as socket:
            assert await _answers(socket, document, **variables) == await shop.post(document, variables, key=key)
    async with joined(address(shop), token) as socket:
        claimed = await _answers(socket, CLAIM_CODE, **claim)
        assert claimed["data"]["answer"]["code"]["text"].startswith("PCT-")
        assert claimed["data"]["answer"]["replayed"] is False
    assert (await shop.post(CLAIM_CODE, claim, key=token))["data"]["answer"]["replayed"] is True


async def test_only_so_many_operations_run_on_a_socket(shop: Shop) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    async with joined(address(shop), token) as socket:
        for number in range(20):
            await socket.follow(0, id=f"s{number}")
        await socket.follow(0, id="too many")
        error = await socket.receive()
        await socket.send(type="complete", id="s0")
        await socket.follow(0, id="s20")
        await shop.claim(await shop.pool(), member)
        told = {(await socket.receive())["id"] for _ in range(20)}

    assert (error["id"], error["type"]) == ("too many", "error")
    assert error["payload"][0]["extensions"] == {"code": "TOO_MANY_OPERATIONS"}
    assert told == {f"s{number}" for number in range(1, 21)}


@pytest.mark.parametrize("protocol", ["graphql-ws", "something", None])
async def test_another_subprotocol_is_not_spoken(shop: Shop, protocol: str | None) -> None:
    # A client may refuse a handshake without its subprotocol before it sees the close.
    try:
        async with opened(address(shop), protocol=protocol) as socket:
            assert (await socket.closed())[0] == 4406
    except websockets.NegotiationError:
        assert protocol is not None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "file://"]
)
async def test_a_foreign_page_opens_no_socket(shop: Shop, origin: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with opened(address(shop), origin=origin):
            pass

    assert refused.value.response.status_code == 403


async def test_our_own_page_and_listed_ones_open_sockets(shop: Shop, worker_database: str) -> None:
    async with opened(address(shop), origin=shop.url.removesuffix("/graphql")) as socket:
        await socket.send(type="connection_init", payload={"token": shop.admin})
        assert await socket.receive() == {"type": "connection_ack"}
    with run_api(worker_database, FLASH_CORS_ORIGINS="https://a.example, https://b.example") as api:
        async with opened(f"{api.url.replace('http', 'ws')}/graphql", origin="https://b.example") as socket:
            await socket.send(type="connection_init", payload={"token": shop.admin})
            assert await socket.receive() == {"type": "connection_ack"}


async def test_sockets_open_at_one_address_only(api: Api) -> None:
    for path in ("/", "/healthz", "/graphql/", "/nothing"):
        with pytest.raises(websockets.InvalidStatus):
            async with opened(api.url.replace("http", "ws") + path):
                pass


async def test_the_end_of_a_token_ends_its_sockets(shop: Shop) -> None:
    member = await shop.member()
    token = await shop.token(member["id"], lifetimeSeconds=60)
    short = await short_token(shop, member)
    async with joined(address(shop), token) as going_on, joined(address(shop), short) as ending:
        await going_on.follow(0)
        await ending.follow(0)
        code, reason = await ending.closed()
        await shop.claim(await shop.pool(), member)

        assert (code, reason) == (4403, "Forbidden: The token has expired; get another one.")
        assert (await going_on.change())["version"] == 1


async def short_token(shop: Shop, member: Any) -> str:
    """Return a token that ends in three seconds at most; issueMemberToken gives none under a minute."""
    owner = await tenant(shop.merchant_id)
    member_id = ids.decode("member", member["id"])
    assert owner is not None
    assert member_id is not None
    return tokens.issue(owner, member_id, 3, generation=0)[0]


async def test_a_revoked_key_ends_its_sockets(shop: Shop) -> None:
    made = await shop.data(
        'mutation { createApiKey(input: { label: "x", role: ANALYST }) '
        "{ ... on CreateApiKeySuccess { secret apiKey { id } } } }"
    )
    key = made["createApiKey"]
    async with joined(address(shop), key["secret"]) as socket:
        assert await _answers(socket, ROLE) == {"data": {"viewer": {"role": "ANALYST"}}}
        await shop.data(
            "mutation ($id: ID!) { revokeApiKey(input: { apiKeyId: $id }) { __typename } }", {"id": key["apiKey"]["id"]}
        )

        assert await socket.closed() == (4403, "Forbidden: The key or the token was revoked.")


async def test_a_process_that_is_full_says_so_and_has_room_again(shop: Shop, worker_database: str) -> None:
    token = await shop.token((await shop.member())["id"])
    with run_api(worker_database, FLASH_STREAMS_MAX="2", FLASH_STREAMS_PER_KEY_SHARE="1") as api:
        url = f"{api.url.replace('http', 'ws')}/graphql"
        async with joined(url, shop.admin) as first:
            async with joined(url, token), opened(url) as third:
                await third.send(type="connection_init", payload={"token": shop.admin})
                assert await third.closed() == (1013, "Too many streams are open here; try again.")
                assert await _answers(first, ROLE) == {"data": {"viewer": {"role": "ADMIN"}}}
                stream = await shop.http.post(
                    f"{api.url}/graphql",
                    json={"query": ROLE},
                    headers={"accept": "text/event-stream", "authorization": f"Bearer {shop.admin}"},
                )
                assert stream.status_code == 503
            deadline = time.monotonic() + 20
            while True:
                async with opened(url) as again:
                    await again.send(type="connection_init", payload={"token": shop.admin})
                    try:
                        assert await again.receive() == {"type": "connection_ack"}
                        break
                    except websockets.ConnectionClosed:
                        assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


async def test_a_client_that_is_gone_leaves_nothing_in_the_log(shop: Shop, worker_database: str) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    pool = await shop.pool(codes=30, claimsPerMember=30)
    with run_api(worker_database) as api:
        url = f"{api.url.replace('http', 'ws')}/graphql"
        for number in range(10):
            async with joined(url, token) as socket:
                await socket.follow(0)
                await socket.subscribe("{ wallet { codes { edges { node { id } } } } }", id="q")
                await shop.claim(pool, member, idempotencyKey=f"k-{number}")
                socket.connection.transport.abort()
        async with joined(url, token) as socket:
            await socket.follow(0)
            assert [change["version"] for change in await socket.changes(10)] == list(range(1, 11))
        log = api.log.read_text()

    # On a busy machine Valkey may be slow, of which an operator is warned.
    lines = [line for line in log.splitlines() if "Valkey is away" not in line]
    assert [line for line in lines if "Traceback" in line or " ERROR " in line or " WARNING " in line] == []


async def test_an_open_socket_keeps_no_headers_and_takes_messages_in_order() -> None:
    before: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        before.extend(scope["headers"])
        await send({"type": "websocket.accept", "headers": [(b"x-request-id", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    opened: list[SocketProtocol] = []

    def protocol() -> SocketProtocol:
        opened.append(SocketProtocol(config, ServerState(), {}))
        return opened[-1]

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, websockets.connect(url, additional_headers={"Cookie": "a=b"}, proxy=None) as socket:
        for text in "abc":
            await socket.send(text)
        echoed = [await socket.recv() for _ in "abc"]
        (open_one,) = opened
        kept = [*open_one.scope["headers"], *open_one.request.headers, *open_one.response.headers]

    assert socket.response is not None
    assert socket.response.headers["X-Request-Id"] == "1"
    assert b"a=b" in {value for _, value in before}
    assert kept == []
    assert echoed == ["a", "b", "c"]
