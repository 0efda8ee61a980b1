"""CPU per claim of the engine, of a bare route, and of PostGraphile 5 with the same statement as a function."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psutil

from app.api.context import Viewer
from app.config import settings
from app.coupons.claims import CLAIM
from app.storage.database import database
from bench.claim_cpu import Claims, Server, engine_and_bare, table

HERE: Final = Path(__file__).parent
SCHEMA: Final = "claiming"
#: What the statement takes beside the three arguments of the function.
CONSTANTS: Final = {
    "is_paid": "false", "key": "NULL::bytea", "after": "'00000000-0000-0000-0000-000000000000'::uuid",
    "event_id": "uuidv7()", "actor": "'bench'::text", "memory_pads": "decode(repeat('00', 128), 'hex')",
}  # fmt: skip
ARGUMENTS: Final = ("merchant_id", "pool_id", "member_id")
ASK: Final = """
mutation ($merchant: UUID!, $pool: UUID!, $member: UUID!) {
  claimCode(input: { merchantId: $merchant, poolId: $pool, memberId: $member }) { result { codeId codeState } }
}
"""


async def measure(_viewer: Viewer) -> list[str]:
    """Claim from all three in turns and return the table. Raises FileNotFoundError without Node or PostGraphile."""
    if not (HERE / "node_modules" / "postgraphile").exists():
        raise FileNotFoundError("PostGraphile is not installed: `npm install --no-package-lock` in bench/comparisons")
    async with engine_and_bare() as (claims, engine, bare), _postgraphile(claims) as other:
        await claims.take_turns([engine, bare, other])
    return [
        *table([engine, bare, other]),
        "",
        f"The engine needs {engine.against(bare)} times the CPU of the bare route; goal ≤ 1.25.",
        f"It needs {engine.against(other)} times the CPU of PostGraphile; goal ≤ 0.85.",
        "",
        "All three have up to ten connections, and the clients keep theirs. The engine proves an API key, judges and",
        "limits the operation, decrypts the code, counts, logs and rings. The others prove nobody and do none of that:",
        "they take the merchant from whoever asks, and answer with the code's id and state. The bare route sends",
        "asyncpg's usual reset after each statement, and PostGraphile wraps each mutation in a transaction.",
    ]


@contextlib.asynccontextmanager
async def _postgraphile(claims: Claims) -> AsyncIterator[Server]:
    """Run PostGraphile over a schema that holds the statement as a function."""
    await _add_function()
    pool_id = await claims.pool()
    process = await asyncio.create_subprocess_exec(
        "node", "postgraphile.mjs", settings().database_url or "", SCHEMA, cwd=HERE, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"NODE_ENV": "production", "GRAPHILE_ENV": "production"},
    )  # fmt: skip
    try:
        if process.stdout is None:
            raise RuntimeError("a process without the output that was asked for")
        address = f"http://127.0.0.1:{int(await process.stdout.readline())}/graphql"

        async def claim(member_id: UUID) -> Any:
            ids = (claims.viewer.merchant_id, pool_id, member_id)
            variables = dict(zip(("merchant", "pool", "member"), map(str, ids), strict=True))
            answer = (await claims.http.post(address, json={"query": ASK, "variables": variables})).json()
            claimed = answer["data"]["claimCode"]["result"]
            return {"replayed": claimed is None or claimed["codeId"] is None}

        yield Server("PostGraphile 5, the same statement as a function", psutil.Process(process.pid), claim)
    finally:
        process.terminate()
        await process.wait()


async def _add_function() -> None:
    """Make the statement a function that returns its row: `claimCode` to PostGraphile."""
    async with database().acquire_connection() as connection:
        row = (await connection.prepare(CLAIM.text)).get_attributes()
    columns = ", ".join(f"{column.name} {column.type.name}" for column in row)
    body = CLAIM.text
    # From the last on: $1 begins $10.
    for place, name in reversed(list(enumerate(CLAIM.names, start=1))):
        value = CONSTANTS.get(name) or f"claim_code.{name}"
        body = body.replace(f"${place}", value)
    arguments = ", ".join(f"{name} uuid" for name in ARGUMENTS)
    for statement in (
        f"CREATE SCHEMA {SCHEMA}",
        f"CREATE TYPE {SCHEMA}.claimed AS ({columns})",
        f"CREATE FUNCTION {SCHEMA}.claim_code({arguments}) RETURNS {SCHEMA}.claimed LANGUAGE sql AS $body${body}$body$",
    ):
        await database().row(statement)
