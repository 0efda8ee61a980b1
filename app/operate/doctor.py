"""`flash doctor`: what is configured, what answers, what is wrong and how to fix it."""

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from redis.exceptions import RedisError

from app.config import ConfigurationError, settings
from app.operate.clocks import NOW, doubts, this_machine
from app.operate.doctor_servers import many_servers
from app.operate.embedded import DataDirectory
from app.operate.finding import Finding
from app.operate.places import refuse_other_server
from app.operate.preflight import applied_migrations, check_redis, missing_migrations, reach, refuse_other_keys
from app.operate.running import valkey
from app.storage import master_keys
from app.storage.crypto import MasterKeyring
from app.storage.versions import migration_names
from app.web.trusted_documents import trusted_documents

SET_CLOCKS: Final = (
    "Set the clock that is wrong, and workers go on by themselves. If the database's is right as it is now, run `flash "
    "clock accept` on a machine that runs workers."
)


async def examine(*, as_json: bool) -> int:
    """Print the findings. Returns 1 if anything is wrong. Changes and starts nothing."""
    data = DataDirectory(settings().data)
    findings = [
        Finding("flash", f"{version('flash-engine')} on Python {platform.python_version()}"),
        Finding("environment", settings().environment),
        _data_directory(data),
        _master_keys(data),
        *(await _one_server(data) if settings().router is None else await many_servers(_configured_keys(data))),
        await _redis(data),
        _advisor(),
        _webhooks(),
        _limits(),
        _origins(),
        _trusted_documents(),
        Finding(
            "log", f"{settings().log_format}, {'each operation' if settings().logs_operations else 'mistakes only'}"
        ),
        _metrics(),
        _traces(),
    ]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'!!' if finding.advice else 'ok'}  {finding.what:<15} {finding.state}")
            if finding.advice:
                print(f"    {'':<15} → {finding.advice}")
    return 1 if any(finding.advice for finding in findings) else 0


def _data_directory(data: DataDirectory) -> Finding:
    if settings().database_url and settings().redis_url and settings().has_master_keys:
        return Finding("data directory", "not needed: both servers and the keys are configured")
    # Path.exists raises where it may not look; os.path.exists returns False.
    existing = next(path for path in (data.path, *data.path.parents) if os.path.exists(path))  # noqa: PTH110
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("data directory", f"{data.path} can't be written", "Choose another by --data or FLASH_DATA.")
    try:
        data.refuse_strangers()
    except ConfigurationError as error:
        return Finding("data directory", f"{data.path} isn't only yours", str(error))
    if existing != data.path:
        return Finding("data directory", f"{data.path}, made on first start")
    return Finding("data directory", f"{data.path}, {'in use' if data.is_locked() else 'not in use'}")


def _master_keys(data: DataDirectory) -> Finding:
    if not settings().has_master_keys and settings().production:
        return Finding("master keys", "none", "Set FLASH_MASTER_KEYS to what `flash keys new` prints.")
    origin = "FLASH_MASTER_KEYS" if settings().master_keys else str(settings().master_keys_file or data.master_keys)
    try:
        keyring = _configured_keys(data)
    except ConfigurationError as error:
        return Finding("master keys", f"{origin} can't be read", str(error))
    if keyring is None:
        return Finding("master keys", "made on first start")
    return Finding("master keys", f"{len(keyring.keys)}, current {keyring.current!r}, from {origin}")


async def _one_server(data: DataDirectory) -> list[Finding]:
    """Look at the server of FLASH_SERVER, or the only one, and at what its workers do."""
    database, data_keys = await _database(data)
    return [database, *data_keys, *await _erasures(data), *await _replica(), await _clocks(data)]


async def _database(data: DataDirectory) -> tuple[Finding, list[Finding]]:
    """Look at the database, and at the data keys in it if it can be read."""
    embedded = settings().database_url is None
    if embedded and not data.is_locked():
        return Finding("database", "embedded, not running; `flash up` starts it"), []
    try:
        connection = await reach(settings().database_url or data.database_url)
    except ConfigurationError as error:
        return Finding("database", "doesn't answer", str(error)), []
    try:
        return await _answering(connection, data, "embedded " if embedded else "")
    finally:
        await connection.close()


async def _answering(connection: asyncpg.Connection, data: DataDirectory, kind: str) -> tuple[Finding, list[Finding]]:
    state = f"{kind}PostgreSQL {connection.get_server_version().major}, answers"
    try:
        await refuse_other_server(connection)
    except ConfigurationError as error:
        return Finding("database", f"{state}, but isn't the one that was meant", str(error)), []
    if settings().server is not None:
        state += f", is {settings().server}"
    try:
        missing = await missing_migrations(connection)
    except ConfigurationError as error:
        return Finding("database", f"{state}, but isn't for this version", str(error)), []
    newer = (await applied_migrations(connection)).difference(migration_names())
    if newer:
        state += f", has {', '.join(sorted(newer))} of a newer version"
    if missing:
        return Finding("database", f"{state}, lacks {', '.join(missing)}", "Run `flash migrate`."), []
    try:
        keyring = _configured_keys(data)
        if keyring is None:
            return Finding("database", state), []
        data_keys = await _data_keys(connection, keyring)
        await refuse_other_keys(connection, keyring.unwrap)
    except ConfigurationError as error:
        return Finding("database", f"{state}, but can't be decrypted", str(error)), []
    return Finding("database", state), [data_keys]


COUNT_UNLOGGED = """
SELECT count(*) AS erasures, count(*) FILTER (WHERE erased_at < now() - interval '2 minutes') AS late
FROM erasure WHERE logged_at IS NULL
"""


async def _erasures(data: DataDirectory) -> list[Finding]:
    """Say where erasures are logged, outside the database, and whether that goes on."""
    if settings().database_url is None and not data.is_locked():
        return []
    try:
        connection = await reach(settings().database_url or data.database_url)
        try:
            if await missing_migrations(connection):
                return []
            (unlogged,) = await connection.fetch(COUNT_UNLOGGED)
        finally:
            await connection.close()
    except ConfigurationError:
        return []
    log = settings().erasure_log
    if log is None:
        advice = "Set FLASH_ERASURE_LOG, or a restored dump knows the erased again." if unlogged["erasures"] else ""
        return [Finding("erasures", f"logged nowhere, {unlogged['erasures']} so far", advice)]
    if unlogged["late"]:
        advice = "See that a worker runs and can write there."
        return [Finding("erasures", f"{unlogged['late']} are not in {log} yet", advice)]
    return [Finding("erasures", f"logged in {log}")]


async def _replica() -> list[Finding]:
    """Look at the replica that reports and exports read, if there is one."""
    url = settings().database_replica_url
    if url is None:
        return []
    try:
        connection = await reach(url, "DATABASE_REPLICA_URL")
    except ConfigurationError as error:
        return [Finding("replica", "doesn't answer; reports and exports fail without it", str(error))]
    try:
        applied = await applied_migrations(connection)
        missing = [name for name in migration_names() if name not in applied]
        is_replica = await connection.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await connection.close()
    state = "answers" if is_replica else "answers, but isn't a replica"
    if missing:
        return [Finding("replica", f"{state}, lacks {', '.join(missing)}", "Wait until it has caught up.")]
    return [Finding("replica", state)]


COUNT_DATA_KEYS = "SELECT master_key, count(*) AS data_keys FROM data_key GROUP BY 1 ORDER BY 1"
COUNT_UNADOPTED = "SELECT count(DISTINCT merchant_id) FROM data_key WHERE purpose = $1 AND adopted_at IS NULL"


async def _data_keys(connection: asyncpg.Connection, keyring: MasterKeyring) -> Finding:
    """Say which master keys are in use, and whether a rotation or a re-encryption stopped half-way."""
    found = await connection.fetch(COUNT_DATA_KEYS)
    in_use = {row["master_key"]: row["data_keys"] for row in found}
    unadopted = await connection.fetchval(COUNT_UNADOPTED, "ENCRYPTION")
    half_rotated = await connection.fetchval(COUNT_UNADOPTED, "TOKEN")
    parts = [f"{count} under {name!r}" for name, count in in_use.items()]
    parts += [f"none under {name!r}" for name in keyring.keys if name not in in_use]
    if unadopted:
        parts.append(f"{unadopted} merchants have values under older data keys")
    if half_rotated:
        parts.append("a rotation of token keys was left half-way")
    advice = []
    if in_use.keys() - {keyring.current}:
        advice.append("Run `flash keys rotate` to put all of them under the current master key.")
    if unadopted:
        advice.append("Run `flash keys reencrypt`, unless it is running; it goes on where it stopped.")
    if half_rotated:
        advice.append("Run `flash keys rotate-tokens`, unless it is running; it goes on where it stopped.")
    return Finding("data keys", ", ".join(parts), " ".join(advice))


async def _redis(data: DataDirectory) -> Finding:
    embedded = settings().redis_url is None
    if embedded and not data.is_locked():
        return Finding("valkey", "embedded, not running; `flash up` starts it")
    try:
        await check_redis(settings().redis_url or data.redis_url)
    except ConfigurationError as error:
        return Finding("valkey", "doesn't answer; claims go on without it, jobs and live updates wait", str(error))
    return Finding("valkey", "embedded, answers" if embedded else "answers")


async def _clocks(data: DataDirectory) -> Finding:
    """Say whether anything expires, and how far the database's clock is from this machine's."""
    if not (settings().database_url and settings().redis_url) and not data.is_locked():
        return Finding("clocks", "not looked at: the embedded servers don't run")
    try:
        connection = await reach(settings().database_url or data.database_url)
    except ConfigurationError:
        return Finding("clocks", "not looked at: the database doesn't answer")
    try:
        async with valkey() as at:
            seen, found = await doubts(this_machine(lambda: connection.fetchval(NOW.text)), at)
    except (ConfigurationError, RedisError, OSError):
        return Finding("clocks", "not looked at: Valkey doesn't answer")
    finally:
        await connection.close()
    if found:
        return Finding("clocks", f"nothing expires: {'; '.join(sorted(set(map(str, found))))}", SET_CLOCKS)
    return Finding("clocks", f"the database's is {seen.ahead:+.1f} s from this machine's")


def _advisor() -> Finding:
    """Say what the advisor asks. The endpoint isn't called: that may cost money."""
    configured = settings()
    if configured.advisor_base_url is None:
        return Finding("advisor", "rules only: FLASH_ADVISOR_BASE_URL names no endpoint")
    key = "a key" if configured.advisor_api_key is not None else "no key"
    limits = (
        f"{configured.advisor_timeout_seconds:g} s, {configured.advisor_tokens_max:,} tokens, "
        f"temperature {configured.advisor_temperature:g}"
    )
    shown = _shown(configured.advisor_base_url)
    return Finding("advisor", f"model {configured.advisor_model!r} of {shown} with {key}, at most {limits}")


def _webhooks() -> Finding:
    configured = settings()
    parts = [
        f"{configured.webhooks_max} of a merchant",
        f"{configured.webhook_timeout_seconds:g} s for an answer",
        f"{configured.webhook_connections_max} at once from a worker",
        f"kept for {configured.webhook_history_days} days, dead ones for {configured.webhook_dead_history_days}",
        f"to public addresses{' and ' * bool(configured.private_networks)}"
        + ", ".join(map(str, configured.private_networks)),
    ]
    return Finding("webhooks", ", ".join(parts))


def _limits() -> Finding:
    limits = settings()
    parts = [
        f"{limits.tokens_max:,} tokens",
        f"depth {limits.depth_max}",
        f"{limits.aliases_max} aliases",
        f"{limits.operations_max} operations",
        f"{limits.list_items_max} list items",
        f"{limits.nodes_max:,} nodes",
        f"{limits.report_rows_max:,} rows of a report",
        f"head {limits.header_bytes_max:,} bytes",
        f"body {limits.body_bytes_max:,} bytes",
        f"message {limits.message_bytes_max:,} bytes",
        f"request {limits.request_seconds_max:g} s",
        f"operation {limits.operation_seconds_max:g} s",
        f"statement {limits.statement_seconds_max:g} s",
        f"connection_init {limits.socket_init_seconds_max:g} s",
    ]
    return Finding("limits", ", ".join(parts))


def _origins() -> Finding:
    if settings().origins:
        return Finding("origins", ", ".join(sorted(settings().origins)))
    return Finding("origins", "none but its own" if settings().production else "its own and any of this machine")


def _trusted_documents() -> Finding:
    try:
        count = len(trusted_documents(settings()))
    except ConfigurationError as error:
        return Finding("documents", "the trusted ones can't be read", str(error))
    if settings().trusted_documents is None:
        return Finding("documents", "any")
    return Finding(
        "documents", f"{count} trusted, {'no' if settings().trusted_documents_required else 'and any'} others"
    )


def _metrics() -> Finding:
    if settings().metrics_token is not None:
        return Finding("metrics", "for callers with the token")
    return Finding("metrics", "none: FLASH_METRICS_TOKEN is not set" if settings().production else "for this machine")


def _traces() -> Finding:
    url = settings().traces_url
    if url is None:
        return Finding("traces", "none")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        return Finding(
            "traces", "OpenTelemetry isn't installed", "Install flash-engine[otel], or unset FLASH_TRACES_URL."
        )
    return Finding("traces", f"{settings().traces_share:.0%} of the operations, to {_shown(url)}")


def _shown(url: str) -> str:
    """Return a URL without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _configured_keys(data: DataDirectory) -> MasterKeyring | None:
    """Return the master keys, or None if there are none yet. Raises ConfigurationError when they can't be read."""
    if settings().has_master_keys:
        return master_keys.configured()
    return master_keys.read_file(data.master_keys) if data.master_keys.exists() else None
