"""Clients that people use. Without these the protocol could be ours alone."""

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport

from tests.factories import Shop
from tests.wallets.sockets import CHANGED, PATIENCE_SECONDS, address

NODE = shutil.which("node")
CLIENTS = Path(__file__).parents[1] / "clients"


@pytest.mark.parametrize("payload", [{"authorization": "Bearer {}"}, {"token": "{}"}])
async def test_gql_follows_and_resumes(shop: Shop, payload: dict[str, str]) -> None:
    member = await shop.member()
    pool = await shop.pool(claimsPerMember=6)
    init = {name: value.format(await shop.token(member["id"])) for name, value in payload.items()}
    seen: list[Any] = []
    for round_ in range(3):
        for number in range(2):
            await shop.claim(pool, member, idempotencyKey=f"k-{round_}-{number}")
        transport = WebsocketsTransport(url=address(shop), init_payload=init)
        async with Client(transport=transport) as session:
            request = GraphQLRequest(CHANGED, variable_values={"after": len(seen)})
            async with contextlib.aclosing(session.subscribe(request)) as changes:
                async for change in changes:
                    seen.append(change["walletChanged"]["version"])
                    if len(seen) % 2 == 0:
                        break

    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules").is_dir(),
    reason="graphql-ws is NOT tried: it needs Node 20 and `npm ci --prefix tests/clients`",
)
async def test_graphql_ws_follows_and_resumes(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool(claimsPerMember=6)
    token = await shop.token(member["id"])
    seen: list[Any] = []
    for round_ in range(3):
        for number in range(2):
            await shop.claim(pool, member, idempotencyKey=f"k-{round_}-{number}")
        asked = {"url": address(shop), "token": token, "query": CHANGED, "after": len(seen), "count": 2}
        process = await asyncio.create_subprocess_exec(
            NODE or "", str(CLIENTS / "follow.mjs"), json.dumps(asked), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode == 0
        seen += [change["version"] for change in json.loads(output)]

    assert seen == [1, 2, 3, 4, 5, 6]
