"""`flash doctor`: what is configured, what answers, what is wrong and what to do about it."""

import json
from dataclasses import asdict, dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.config import ConfigurationError, settings
from app.crypto import MasterKeyring
from app.embedded import DataDirectory
from app.running import refuse_unmigrated


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty when it is well."""

    what: str
    state: str
    advice: str = ""


async def examine(*, as_json: bool) -> int:
    """Print the findings. Returns 1 if something is wrong."""
    data = DataDirectory(settings().data)
    findings = [
        Finding("environment", settings().environment),
        _data_directory(data),
        _master_keys(data),
        await _database(data),
        await _redis(data),
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
    if settings().database_url and settings().redis_url and settings().master_keys:
        return Finding("data directory", "not needed: both servers and the keys are configured")
    try:
        data.create()
    except ConfigurationError as error:
        return Finding("data directory", str(data.path), str(error))
    running = "in use by a running `flash up`" if data.is_locked() else "not in use"
    return Finding("data directory", f"{data.path}, {running}")


def _master_keys(data: DataDirectory) -> Finding:
    configured = settings().master_keys
    if configured is None and settings().production:
        return Finding("master keys", "none", "Set FLASH_MASTER_KEYS to what `flash keys new` prints.")
    if configured is None and not data.master_keys.exists():
        return Finding("master keys", "made on first start")
    text = configured.get_secret_value() if configured else data.master_keys.read_text()
    try:
        keyring = MasterKeyring.parse(text)
    except ConfigurationError as error:
        return Finding("master keys", "unreadable", str(error))
    origin = "FLASH_MASTER_KEYS" if configured else str(data.master_keys)
    return Finding("master keys", f"{len(keyring.keys)}, current {keyring.current!r}, from {origin}")


async def _database(data: DataDirectory) -> Finding:
    url = settings().database_url
    if url is None:
        if not data.is_locked():
            return Finding("database", "embedded, not running")
        url = data.database_url
    try:
        await refuse_unmigrated(url)
    except ConfigurationError as error:
        return Finding("database", "not usable", str(error))
    return Finding("database", "answers" if settings().database_url else "embedded, answers")


async def _redis(data: DataDirectory) -> Finding:
    url = settings().redis_url
    if url is None:
        if not data.is_locked():
            return Finding("valkey", "embedded, not running")
        url = data.redis_url
    try:
        async with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as redis:
            await redis.ping()
    except (RedisError, OSError, ValueError) as error:
        advice = f"Start it or correct REDIS_URL ({type(error).__name__}); claims go on without it, live updates don't."
        return Finding("valkey", "doesn't answer", advice)
    return Finding("valkey", "answers" if settings().redis_url else "embedded, answers")
