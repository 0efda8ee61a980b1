"""Checks before a start: the database answers, is new enough and migrated, and the master keys fit it."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import asyncpg

from app.config import ConfigurationError, dsn, settings
from app.operate.places import Place, refuse_other_router, refuse_other_server, refuse_other_servers
from app.storage import master_keys
from app.storage.crypto import DecryptionError, data_key_identity
from app.storage.versions import migration_names

if TYPE_CHECKING:
    from redis.asyncio import Redis

POSTGRES_VERSION_MIN: Final = 18
_CONNECT_SECONDS_MAX: Final = 10.0

#: The migrations that 0.2.0 had, the last of which says that it made the database.
_OF_FIRST_RELEASE: Final = 2
MADE_BY: Final = "SELECT obj_description(to_regclass('tortoise_migrations'), 'pg_class')"
#: How the name of a migration ends that takes something away: versions without the migration of this number need it.
_TAKES_AWAY: Final = re.compile(r"_since_(\d{4})$")
#: One data key of each master key in use.
WRAPPED: Final = """
SELECT DISTINCT ON (master_key) master_key, merchant_id, purpose, version, wrapped FROM data_key ORDER BY master_key
"""


class UnreachableError(ConfigurationError):
    """The database doesn't answer."""


async def reach(database_url: str, setting: str = "DATABASE_URL") -> asyncpg.Connection:
    """Return a connection. Raises UnreachableError, or ConfigurationError when the server is too old."""
    url = dsn(database_url, setting)
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS_MAX)
    except ValueError:
        # The library's message may quote a part of the password.
        raise ConfigurationError(
            f"{setting} can't be read; it must look like postgresql://user:password@host:5432/name, "
            "special characters percent-encoded."
        ) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        reason = said.strip().rstrip(".") or f"no answer within {_CONNECT_SECONDS_MAX:.0f} s"
        raise UnreachableError(f"The database can't be reached: {reason}; check {setting}.") from None
    if connection.get_server_version().major < POSTGRES_VERSION_MIN:
        await connection.close()
        raise ConfigurationError(f"Flash needs PostgreSQL {POSTGRES_VERSION_MIN} or newer.")
    return connection


async def applied_migrations(connection: asyncpg.Connection) -> set[str]:
    """Return the names of the migrations that the database has."""
    if await connection.fetchval("SELECT to_regclass('tortoise_migrations')") is None:
        return set()
    return {row["name"] for row in await connection.fetch("SELECT name FROM tortoise_migrations")}


async def missing_migrations(connection: asyncpg.Connection) -> list[str]:
    """Return the migrations that the database lacks.

    Raises ConfigurationError when this version can't work on it whatever is migrated: it was made before 0.2.0, or what
    this version needs was taken away by newer ones.
    """
    applied = await applied_migrations(connection)
    known = migration_names()
    if set(known[:_OF_FIRST_RELEASE]) <= applied and await connection.fetchval(MADE_BY) is None:
        raise ConfigurationError(
            "The database was made before 0.2.0 and can't be migrated: docs/upgrading.md says what to do."
        )
    for name in sorted(applied.difference(known)):
        needed = _TAKES_AWAY.search(name)
        if needed and needed[1] > known[-1][:4]:
            raise ConfigurationError(
                f"The database is too new for this version: {name} took away what it needs; run a newer version."
            )
    return [name for name in known if name not in applied]


async def refuse_other_keys(connection: asyncpg.Connection, unwrap: Callable[[str, bytes, bytes], bytes]) -> None:
    """Raise ConfigurationError unless `unwrap`, of the configured keys, unwraps the data keys in the database."""
    for row in await connection.fetch(WRAPPED):
        identity = data_key_identity(row["merchant_id"], row["purpose"], row["version"])
        try:
            unwrap(row["master_key"], row["wrapped"], identity)
        except DecryptionError as error:
            raise ConfigurationError(
                f"The master keys don't fit this database: {error}; "
                "set FLASH_MASTER_KEYS to the keys that its data was made with."
            ) from None


async def check_database() -> str | None:
    """Raise ConfigurationError unless the configured database, or what is behind the router, is ready to be used.

    Returns the identity of a server's database.
    """
    configured = settings()
    connection = await reach(configured.database_url or "")
    try:
        if configured.router is not None:
            # Master keys are looked at where their data keys are: by workers, and by `flash doctor`.
            await refuse_other_router(connection)
            return None
        identity = await refuse_other_server(connection)
        missing = await missing_migrations(connection)
        if missing:
            raise ConfigurationError(f"The database lacks migrations ({', '.join(missing)}); run `flash migrate`.")
        await refuse_other_keys(connection, master_keys.unwrap)
    finally:
        await connection.close()
    return identity


async def check_place(place: Place) -> None:
    """Check the database, and that it isn't one of many where this process takes it for the only one."""
    identity = await check_database()
    if identity is not None:
        refuse_other_servers(await _worked_on(), identity, place)


async def _worked_on() -> dict[str, str]:
    """Return the servers whose workers run, as far as Valkey tells."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    from app.storage.queues import worked_on  # noqa: PLC0415  (it imports arq)

    url = settings().redis_url
    if url is None:
        return {}
    try:
        async with redis_at(url, seconds_max=1.0) as valkey:
            return await worked_on(valkey)
    except (RedisError, OSError, TimeoutError):
        return {}


def redis_at(url: str, *, seconds_max: float = 5.0) -> "Redis":
    """Return a client that hasn't connected yet. Raises ConfigurationError for a malformed URL."""
    from redis.asyncio import Redis  # noqa: PLC0415  (half a second of imports that `flash up` doesn't need)

    try:
        redis: Redis = Redis.from_url(url, socket_connect_timeout=seconds_max, socket_timeout=seconds_max)
    except (ValueError, TypeError):
        raise ConfigurationError(
            "REDIS_URL can't be read; it must look like redis://host:6379/0, rediss://… or unix:///path/to/socket."
        ) from None
    return redis


async def check_redis(url: str) -> None:
    """Raise ConfigurationError unless the server answers. The message never shows the URL."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    redis = redis_at(url)
    try:
        await redis.ping()
    except (RedisError, OSError, TimeoutError) as error:
        raise ConfigurationError(
            f"Valkey (or Redis) doesn't answer ({type(error).__name__}); start it or correct REDIS_URL."
        ) from None
    finally:
        await redis.aclose()
