"""The baseline of S1: a claim over HTTP with nothing but the statement, on the same server library and driver."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app import ids
from app.coupons.claims import CLAIM
from app.storage.database import dsn

_last_found: dict[UUID, UUID] = {}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep a connection pool open while the application runs."""
    async with asyncpg.create_pool(dsn(os.environ["DATABASE_URL"])) as pool:
        app.state.pool = pool
        yield


async def claim(request: Request) -> JSONResponse:
    """Claim a code without authentication, checks or rings."""
    asked: dict[str, Any] = await request.json()
    pool_id = UUID(asked["pool"])
    after = _last_found.get(pool_id, UUID(int=0))
    arguments = CLAIM.arguments(
        {
            "merchant_id": UUID(asked["merchant"]),
            "pool_id": pool_id,
            "member_id": UUID(asked["member"]),
            "key": None,
            "is_paid": False,
            "after": after,
            "event_id": ids.new(),
            "actor": "bench",
            "memory_pads": bytes(128),
        }
    )
    row = await request.app.state.pool.fetchrow(CLAIM.text, *arguments)
    _last_found[pool_id] = row["code_id"]
    return JSONResponse({"id": str(row["code_id"]), "state": row["code_state"], "replayed": False})


app = Starlette(routes=[Route("/claim", claim, methods=["POST"])], lifespan=lifespan)
