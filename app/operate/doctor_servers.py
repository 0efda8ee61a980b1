"""What `flash doctor` finds at a router: whether it is strict, its servers, and where the merchants are."""

from collections import defaultdict
from typing import Final
from uuid import UUID

import asyncpg
from redis.exceptions import RedisError

from app import ids
from app.config import ConfigurationError, settings
from app.operate.finding import Finding
from app.operate.places import (
    BE_STRICT,
    NO_ROUTER,
    ROUTERS,
    Server,
    at,
    connect,
    crosses,
    misnamed,
    servers,
    unmigrated,
    who,
)
from app.operate.preflight import reach, refuse_other_keys
from app.operate.running import valkey
from app.storage.crypto import MasterKeyring
from app.storage.queues import worked_on

#: The merchants of each server that answers, and whether they are open there.
Places = dict[str, dict[UUID, bool]]

WHERE_MERCHANTS_BELONG: Final = (
    "Correct the router's rules; run `flash merchant move` again for a move that stopped; keep the rows of one server."
)
#: Of each server, evenly spread: each costs a round trip.
_ASKED_FOR_MAX: Final = 1_000
_NAMED_MAX: Final = 5

# A merchant that moves is closed at one of two servers, or for a moment at both.
MERCHANTS: Final = """
SELECT m.merchant_id, f.state IS DISTINCT FROM 'CLOSED' AND f.state IS DISTINCT FROM 'ARRIVING' AS is_open
FROM merchant m LEFT JOIN fence f ON f.merchant_id = m.merchant_id ORDER BY m.merchant_id
"""
WHERE: Final = "SELECT current_setting('cluster_name') FROM merchant WHERE merchant_id = $1"


async def many_servers(keyring: MasterKeyring | None) -> list[Finding]:
    """Look at the router and at each server behind it. Those that are away are passed over."""
    try:
        connection = await reach(settings().database_url or "")
    except ConfigurationError as error:
        return [Finding("router", "doesn't answer", str(error))]
    try:
        if await who(connection) is not None:
            return [Finding("router", "isn't there", NO_ROUTER)]
    finally:
        await connection.close()
    is_lax = await crosses()
    found = await servers()
    workers = await _workers()
    merchants: Places = {}
    looked = [await _server(server, keyring, workers, merchants) for server in found]
    state = f"{settings().router}, {'not strict' if is_lax else 'strict'}, before {len(found)} servers"
    advice = " ".join([BE_STRICT] * is_lax + misnamed(found))
    return [Finding("router", state, advice), *looked, await _merchants(merchants, len(found))]


async def _workers() -> dict[str, str] | None:
    try:
        async with valkey() as at_valkey:
            return await worked_on(at_valkey)
    except (ConfigurationError, RedisError, OSError):
        return None


async def _server(
    server: Server, keyring: MasterKeyring | None, workers: dict[str, str] | None, merchants: Places
) -> Finding:
    """Look at one server, and put its merchants where they are compared."""
    what = f"server {server.name or server.number}"
    if server.away is not None:
        return Finding(what, f"away ({server.away})", "Its merchants are answered with UNAVAILABLE until it is back.")
    state = f"PostgreSQL {server.version}, answers"
    if server.missing:
        return Finding(what, state, *unmigrated([server]))
    advice = []
    try:
        async with at(server.number) as connection:
            merchants[server.name] = {row["merchant_id"]: row["is_open"] for row in await connection.fetch(MERCHANTS)}
            if keyring is not None:
                await refuse_other_keys(connection, keyring.unwrap)
    except ConfigurationError as error:
        advice.append(str(error))
    except (*ROUTERS, TimeoutError) as error:
        return Finding(what, f"went away ({error or 'silent'})", "Look again.")
    are_open = sum(merchants[server.name].values())
    closed = len(merchants[server.name]) - are_open
    state += f", {are_open:,} merchants" + f", {closed:,} more are moving here, or have moved away" * (closed > 0)
    if server.has_jit:
        advice.append("Set jit = off: connections of a router are new to types, and compile what reads them.")
    if workers is not None and server.name not in workers:
        advice.append(f"Run a worker with FLASH_SERVER={server.name}: nothing expires and no job is done there.")
    return Finding(what, state, " ".join(advice))


async def _merchants(found: Places, servers_known: int) -> Finding:
    """Say whether each merchant is open at one server, and whether the router looks for it there."""
    places: dict[UUID, list[str]] = defaultdict(list)
    for server, merchants in found.items():
        for merchant_id, is_open in merchants.items():
            places[merchant_id] += [server] * is_open
    twice = {merchant_id: on for merchant_id, on in places.items() if len(on) > 1}
    wrong = [f"{_named(merchant_id)} is on {' and '.join(on)}" for merchant_id, on in twice.items()]
    if len(found) == servers_known:
        # Those of a server that is away may be open there.
        closed = [merchant_id for merchant_id, on in places.items() if not on]
        wrong += [f"{_named(merchant_id)} is closed, as in a move that stopped" for merchant_id in closed]
    connection = await connect()
    try:
        for server in found:
            once = [merchant_id for merchant_id, on in places.items() if on == [server]]
            step = max(1, len(once) // _ASKED_FOR_MAX)
            for merchant_id in once[::step] + once[-1:] * (step > 1):
                looked_for = await _looked_for(connection, merchant_id)
                if looked_for != f"at {server}":
                    wrong.append(f"{_named(merchant_id)} is on {server}, but the router looks {looked_for}")
    finally:
        await connection.close()
    if wrong:
        more = f" and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
        return Finding("merchants", "; ".join(wrong[:_NAMED_MAX]) + more, WHERE_MERCHANTS_BELONG)
    return Finding(
        "merchants", f"{sum(map(bool, places.values())):,}, each on one server, where the router looks for it"
    )


async def _looked_for(connection: asyncpg.Connection, merchant_id: UUID) -> str:
    await connection.execute("BEGIN")
    # Without it a router may prepare the statement at a server that is away.
    await connection.execute(f"SET LOCAL pgdog.sharding_key TO '{merchant_id}'")
    try:
        found = await connection.fetchval(WHERE, merchant_id)
    except ROUTERS as error:
        return f"at a server that doesn't answer ({error})"
    finally:
        await connection.execute("ROLLBACK")
    return f"at {found}" if found else "where it isn't"


def _named(merchant_id: UUID) -> str:
    return ids.encode("merchant", merchant_id)
