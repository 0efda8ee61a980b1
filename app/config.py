"""Settings from the environment, read once and frozen, and the Tortoise configuration made from them."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigurationError as ConfigurationError  # noqa: PLC0414  (most take it from here)

MODELS = [
    "app.merchants.models", "app.members.models", "app.coupons.models", "app.points.models", "app.referrals.models",
    "app.graph.models", "app.advisor.models", "app.events",
]  # fmt: skip


class Settings(BaseSettings):
    """Everything an operator can set; each field is an environment variable of the name beside it."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, populate_by_name=True, extra="ignore", case_sensitive=True
    )

    environment: Literal["development", "production"] = Field(default="development", validation_alias="FLASH_ENV")
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    data: Path = Field(default=Path(".flash"), validation_alias="FLASH_DATA")
    #: `name:base64 of 32 bytes`, comma separated, the current key first.
    master_keys: SecretStr | None = Field(default=None, validation_alias="FLASH_MASTER_KEYS")
    #: The same in a file, which running processes read again when they meet a key that they don't know.
    master_keys_file: Path | None = Field(default=None, validation_alias="FLASH_MASTER_KEYS_FILE")
    database_connections_max: int = Field(default=10, validation_alias="FLASH_DATABASE_CONNECTIONS_MAX", ge=1, le=500)
    database_timeout_seconds: float = Field(default=10.0, validation_alias="FLASH_DATABASE_TIMEOUT_SECONDS", gt=0)
    body_bytes_max: int = Field(default=1_048_576, validation_alias="FLASH_BODY_BYTES_MAX", ge=1024)
    api_key_cache_seconds: float = Field(default=2.0, validation_alias="FLASH_API_KEY_CACHE_SECONDS", ge=0, le=5)
    attempts_per_key_max: int = Field(default=100, validation_alias="FLASH_ATTEMPTS_PER_KEY_MAX", ge=1)
    attempts_per_member_max: int = Field(default=20, validation_alias="FLASH_ATTEMPTS_PER_MEMBER_MAX", ge=1)
    #: How long snapshots of the network are kept; a merchant's newest one is kept for ever.
    graph_history_days: int = Field(default=400, validation_alias="FLASH_GRAPH_HISTORY_DAYS", ge=1)
    #: How far back `walletChanged(after:)` replays.
    wallet_history_days: int = Field(default=90, validation_alias="FLASH_WALLET_HISTORY_DAYS", ge=1)
    #: How often an API process looks in the database for wallet changes that it wasn't told of.
    wallet_sweep_seconds: float = Field(default=2.0, validation_alias="FLASH_WALLET_SWEEP_SECONDS", gt=0)
    #: WebSockets and event streams of one API process.
    streams_max: int = Field(default=5_000, validation_alias="FLASH_STREAMS_MAX", ge=1)
    #: How long a reader of one may take nothing; it is closed then, and resumes.
    stream_send_seconds_max: float = Field(default=10.0, validation_alias="FLASH_STREAM_SEND_SECONDS", gt=0)
    operations_per_socket_max: int = Field(default=20, validation_alias="FLASH_OPERATIONS_PER_SOCKET_MAX", ge=1)
    #: `https://shop.example`, comma separated: whose pages may open WebSockets, besides the engine's own.
    origins: str = Field(default="", validation_alias="FLASH_ORIGINS")
    #: An OpenAI-compatible endpoint, like https://models.example/v1; without one rules advise.
    advisor_base_url: str | None = Field(default=None, validation_alias="FLASH_ADVISOR_BASE_URL", pattern="^https?://")
    advisor_api_key: SecretStr | None = Field(default=None, validation_alias="FLASH_ADVISOR_API_KEY")
    advisor_model: str = Field(default="default", validation_alias="FLASH_ADVISOR_MODEL", max_length=200)
    #: How long a run may ask the endpoint, its second tries included; after that rules advise.
    advisor_timeout_seconds: float = Field(default=60.0, validation_alias="FLASH_ADVISOR_TIMEOUT_SECONDS", gt=0, le=240)
    advisor_tokens_max: int = Field(default=2_000, validation_alias="FLASH_ADVISOR_TOKENS_MAX", ge=100, le=100_000)
    advisor_temperature: float = Field(default=0.2, validation_alias="FLASH_ADVISOR_TEMPERATURE", ge=0, le=2)
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", validation_alias="FLASH_LOG_LEVEL")

    @property
    def has_master_keys(self) -> bool:
        """Whether it is said where the master keys are."""
        return self.master_keys is not None or self.master_keys_file is not None

    @property
    def production(self) -> bool:
        """Whether development conveniences (made-up keys, GraphiQL) are off."""
        return self.environment == "production"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the process's settings; the environment is read once.

    Raises ConfigurationError that names the variable that can't be read, and never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_input=False)]
        raise ConfigurationError(f"The environment can't be read: {'; '.join(wrong)}.") from None


def dsn(url: str) -> str:
    """Return a database URL as asyncpg reads it; `asyncpg://` and `postgres://` mean the same."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "asyncpg"}:
        raise ConfigurationError("DATABASE_URL must look like postgresql://user:password@host:5432/name.")
    return f"postgresql://{rest}"


def tortoise_config(database_url: str, *, connections_max: int = 10, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """Return Tortoise's configuration for one database."""
    return {
        "connections": {
            "default": {
                "engine": "app.database",
                "credentials": {
                    "dsn": database_url,
                    "maxsize": connections_max,
                    "command_timeout": timeout_seconds,
                },
            }
        },
        "apps": {"flash": {"models": MODELS, "default_connection": "default", "migrations": "migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


#: What `tortoise makemigrations` reads; it compares models with migrations and opens no connection.
TORTOISE = tortoise_config("postgresql://localhost/flash")
