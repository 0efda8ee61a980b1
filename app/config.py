"""Settings from the environment, read once and frozen, and the Tortoise configuration made from them."""

import os
import re
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigurationError as ConfigurationError  # noqa: PLC0414  (most take it from here)

#: Every noun's models.py, and the events.
MODELS: Final = [
    *(f"app.{path.parent.name}.models" for path in sorted(Path(__file__).parent.glob("*/models.py"))),
    "app.storage.events",
]


_ORIGIN: Final = re.compile(r"https?://[a-z0-9.\-_]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?", re.ASCII)
#: Variables that look like settings and aren't: the key of a command, the ports of docker-compose.yml, what tests and
#: benchmarks read, and what Kubernetes tells every container of services whose names begin with `flash`.
_NOT_SETTINGS: Final = re.compile(
    r"FLASH_(KEY|BIND|PORT|(BENCH|CHAOS|CONFORMANCE|TEST)_\w+"
    r"|(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))",
    re.ASCII,
)


class Settings(BaseSettings):
    """Everything an operator can set: FLASH_ and the field's name in capitals, or the name that stands beside it."""

    model_config = SettingsConfigDict(
        env_prefix="FLASH_", frozen=True, env_ignore_empty=True, populate_by_name=True, extra="ignore"
    )

    environment: Literal["development", "production"] = Field(default="development", validation_alias="FLASH_ENV")
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    #: A streaming replica, or the primary itself: what reports and exports read. Unset, they read DATABASE_URL.
    database_replica_url: str | None = Field(default=None, validation_alias="DATABASE_REPLICA_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    #: Of many PostgreSQL servers, the one that DATABASE_URL leads to: its cluster_name.
    server: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    data: Path = Path(".flash")
    #: `name:base64 of 32 bytes`, comma separated, the current key first.
    master_keys: SecretStr | None = None
    #: The same in a file, which running processes read again when they meet a key that they don't know.
    master_keys_file: Path | None = None
    database_connections_max: int = Field(default=10, ge=1, le=500)
    database_timeout_seconds: float = Field(default=10.0, gt=0)
    #: After which PostgreSQL itself ends a statement of an API process. 0 leaves it to the server, as PgBouncer needs.
    statement_seconds_max: float = Field(default=10.0, ge=0, le=3600)
    operation_seconds_max: float = Field(default=10.0, gt=0, le=3600)
    #: How long a request's head may take to come, and then its body.
    request_seconds_max: float = Field(default=10.0, gt=0, le=600)
    header_bytes_max: int = Field(default=32_768, ge=8_192, le=1_048_576)
    body_bytes_max: int = Field(default=1_048_576, ge=1024)
    message_bytes_max: int = Field(default=131_072, ge=1024)
    #: How long a socket may take to say who it is.
    socket_init_seconds_max: float = Field(default=5.0, gt=0, le=60)
    #: What one document may be: its tokens, and as many fields when its fragments are spread out.
    tokens_max: int = Field(default=2_000, ge=200, le=50_000)
    depth_max: int = Field(default=15, ge=3, le=100)
    aliases_max: int = Field(default=30, ge=0, le=10_000)
    operations_max: int = Field(default=10, ge=1, le=1_000)
    #: Of any list in an argument, save the few that hold thousands by design.
    list_items_max: int = Field(default=250, ge=50, le=100_000)
    #: What one operation may ask for: root fields and, through nested lists, their items.
    nodes_max: int = Field(default=20_000, ge=100, le=10_000_000)
    #: Of a page of a report: tools for BI read all of them.
    report_rows_max: int = Field(default=1_000, ge=100, le=10_000)
    #: How long a request may take to compute a report on all of a merchant's rows. One that takes longer is kept by the
    #: workers, which take at most the second time for it. 0 keeps them all.
    report_at_once_seconds_max: float = Field(default=5.0, ge=0, le=60)
    report_seconds_max: float = Field(default=1800.0, gt=0, le=7200)
    #: A file or folder, best on another disk, to which erasures are written, so that a restored copy can repeat them.
    erasure_log: Path | None = None
    #: A JSON file of hashes and documents, as `flash documents` writes it.
    trusted_documents: Path | None = None
    trusted_documents_required: bool = False
    api_key_cache_seconds: float = Field(default=2.0, ge=0, le=5)
    attempts_per_key_max: int = Field(default=100, ge=1)
    attempts_per_member_max: int = Field(default=20, ge=1)
    #: How long snapshots of the network are kept; a merchant's newest one is kept for ever.
    graph_history_days: int = Field(default=400, ge=1)
    #: How old events are, at least, that `flash archive` takes out of the database. Unset, it takes none.
    event_retention_days: int | None = Field(default=None, ge=31)
    #: How far back `walletChanged(after:)` replays.
    wallet_history_days: int = Field(default=90, ge=1)
    #: How often an API process looks in the database for wallet changes that it wasn't told of.
    wallet_sweep_seconds: float = Field(default=2.0, gt=0)
    #: WebSockets and event streams of one API process.
    streams_max: int = Field(default=5_000, ge=1)
    #: How long a reader of one may take nothing; it is closed then, and resumes.
    stream_send_seconds_max: float = Field(default=10.0, validation_alias="FLASH_STREAM_SEND_SECONDS", gt=0)
    operations_per_socket_max: int = Field(default=20, ge=1)
    #: An OpenAI-compatible endpoint, like https://models.example/v1; without one rules advise.
    advisor_base_url: str | None = Field(default=None, pattern="^https?://")
    advisor_api_key: SecretStr | None = None
    advisor_model: str = Field(default="default", max_length=200)
    #: How long a run may ask the endpoint, its second tries included; after that rules advise.
    advisor_timeout_seconds: float = Field(default=60.0, gt=0, le=240)
    advisor_tokens_max: int = Field(default=2_000, ge=100, le=100_000)
    #: What the model's context holds, prompt and answer together. Unset, the endpoint has to say that it is outgrown.
    advisor_context_tokens: int | None = Field(default=None, ge=1_000)
    advisor_temperature: float = Field(default=0.2, ge=0, le=2)
    #: Of a merchant, disabled ones not counted.
    webhooks_max: int = Field(default=10, ge=1, le=1_000)
    #: How long a webhook may take to answer, from looking its host up to the end of its answer.
    webhook_timeout_seconds: float = Field(default=15.0, gt=0, le=60)
    #: What one worker sends at once.
    webhook_connections_max: int = Field(default=100, ge=1, le=5_000)
    #: How long deliveries are kept: those that were accepted, and those that nobody accepted.
    webhook_history_days: int = Field(default=7, ge=1)
    webhook_dead_history_days: int = Field(default=30, ge=1)
    #: `10.1.0.0/16`, comma separated: networks that aren't public, and that webhooks may lead to all the same.
    webhook_networks: str = ""
    #: `https://shop.example`, comma separated: whose pages may call, besides the engine's own. Unset in development,
    #: those of any server on the same machine.
    cors_origins: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    #: Whether each operation is a line; unset, in production. A client's mistake always is one.
    log_operations: bool | None = None
    #: Who reads /metrics sends it as a bearer token. Without one, nobody does in production.
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    #: Where traces are sent by OTLP over HTTP, like http://collector:4318/v1/traces.
    traces_url: str | None = Field(default=None, pattern="^https?://")
    #: How many of the operations are traced, 1 being all.
    traces_share: float = Field(default=1.0, ge=0, le=1)

    #: What one operation may answer with: the fields of every item of its lists. A field takes about 10 µs of CPU
    #: (bench/loop_holds.py), so this many take half a second.
    fields_max: int = Field(default=50_000, ge=1_000, le=10_000_000)
    #: Of one answer, as JSON.
    answer_bytes_max: int = Field(default=4_194_304, ge=65_536)
    #: WebSockets and event streams of one member, and the share of all that one API key may have.
    streams_per_member_max: int = Field(default=20, ge=1)
    streams_per_key_share: float = Field(default=0.2, gt=0, le=1)
    #: Sockets that haven't said yet who they are. For a further one the oldest of them goes.
    sockets_waiting_max: int = Field(default=100, ge=1)
    #: How long a process that was told to end still takes requests, unready, so that idle connections lose none.
    drain_seconds: float = Field(default=2.0, ge=0, le=60)
    #: How many credentials of one address may be looked up in vain, per minute.
    failed_authentications_max: int = Field(default=100, ge=1)
    #: What DATABASE_URL leads to, if not to a server: the router before many of them.
    router: Literal["pgdog"] | None = None
    #: How long whoever waits for a server behind it waits at most when that answers nothing.
    server_seconds_max: float = Field(default=1.0, ge=0.1, le=60)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, given: str) -> str:
        wrong = [origin for origin in _listed(given) if not _ORIGIN.fullmatch(origin)]
        if wrong:
            raise ValueError("must list origins as browsers write them, like https://shop.example")
        return given

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, given: str) -> str:
        try:
            for network in _listed(given):
                ip_network(network)
        except ValueError:
            raise ValueError("must list networks, like 10.1.0.0/16") from None
        return given

    @property
    def private_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that webhooks may lead to although they aren't public."""
        return tuple(ip_network(network) for network in _listed(self.webhook_networks))

    @property
    def origins(self) -> frozenset[str]:
        """Whose pages may call, besides the engine's own."""
        return frozenset(_listed(self.cors_origins))

    @property
    def is_routed(self) -> bool:
        """Whether DATABASE_URL leads to a router."""
        return self.router is not None

    @property
    def has_master_keys(self) -> bool:
        """Whether it is said where the master keys are."""
        return self.master_keys is not None or self.master_keys_file is not None

    @property
    def logs_operations(self) -> bool:
        """Whether operations that were answered are lines of the log."""
        return self.production if self.log_operations is None else self.log_operations

    @property
    def production(self) -> bool:
        """Whether development conveniences (made-up keys, GraphiQL) are off."""
        return self.environment == "production"


#: The environment variable of each field.
VARIABLES: Final = {
    name: str(field.validation_alias or f"FLASH_{name.upper()}") for name, field in Settings.model_fields.items()
}


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the process's settings; the environment is read once.

    Raises ConfigurationError that names each variable that can't be read or that is no setting, and never its value.
    """
    wrong = [_no_such(name) for name, value in sorted(os.environ.items()) if value and _is_unknown(name)]
    try:
        if not wrong:
            return Settings()
    except ValidationError as error:
        wrong = [
            f"{VARIABLES.get(str(problem['loc'][0]), problem['loc'][0])}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        ]
    raise ConfigurationError(f"The environment can't be read: {'; '.join(wrong)}.")


def _is_unknown(variable: str) -> bool:
    """Whether a variable looks like a setting and is none. Case doesn't matter: pydantic-settings reads any."""
    name = variable.upper()
    return name.startswith("FLASH_") and name not in VARIABLES.values() and not _NOT_SETTINGS.fullmatch(name)


def _no_such(variable: str) -> str:
    nearest, *_ = get_close_matches(variable.upper(), VARIABLES.values(), n=1, cutoff=0)
    return f"{variable}: There is no such setting (the nearest is {nearest})"


def dsn(url: str, setting: str = "DATABASE_URL") -> str:
    """Return a database URL as asyncpg reads it; `asyncpg://` and `postgres://` mean the same."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "asyncpg"}:
        raise ConfigurationError(f"{setting} must look like postgresql://user:password@host:5432/name.")
    return f"postgresql://{rest}"


def tortoise_config(
    database_url: str,
    *,
    replica_url: str | None = None,
    connections_max: int = 10,
    timeout_seconds: float | None = 10.0,
    statement_seconds_max: float = 0,
    is_routed: bool = False,
) -> dict[str, Any]:
    """Return Tortoise's configuration for a database. After 0 seconds PostgreSQL ends no statement by itself."""
    engine = "app.storage.routed" if is_routed else "app.storage.database"
    limits = {"statement_timeout": f"{statement_seconds_max * 1000:.0f}"} if statement_seconds_max else {}
    # A statement is prepared once in each connection if it isn't longer than that; the promises have one of 27 kB.
    credentials = {
        "maxsize": connections_max, "command_timeout": timeout_seconds, "server_settings": limits,
        "max_cacheable_statement_size": 65_536,
    }  # fmt: skip
    urls = {"default": database_url} | ({"replica": replica_url} if replica_url else {})
    return {
        "connections": {
            name: {"engine": engine, "credentials": {"dsn": url, **credentials}} for name, url in urls.items()
        },
        "apps": {"flash": {"models": MODELS, "default_connection": "default", "migrations": "migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


#: What `tortoise makemigrations` reads; it compares models with migrations and opens no connection.
TORTOISE = tortoise_config("postgresql://localhost/flash")
