"""Settings. Without these a variable could lose its name, or one that is misspelt be passed over without a word."""

from collections.abc import Iterator

import pytest

from app import config
from app.config import VARIABLES, ConfigurationError, settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The variables of this process; settings are read anew when the test has set its own, and after it."""
    settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    settings.cache_clear()


def test_a_setting_is_the_variable_of_its_name_but_for_a_few() -> None:
    assert {field: name for field, name in VARIABLES.items() if name != f"FLASH_{field.upper()}"} == {
        "environment": "FLASH_ENV",
        "database_url": "DATABASE_URL",
        "database_replica_url": "DATABASE_REPLICA_URL",
        "redis_url": "REDIS_URL",
        "stream_send_seconds_max": "FLASH_STREAM_SEND_SECONDS",
    }


def test_settings_are_read_from_their_variables(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLASH_ENV", "production")
    environment.setenv("FLASH_STREAM_SEND_SECONDS", "7")
    environment.setenv("FLASH_NODES_MAX", "500")
    environment.setenv("FLASH_LOG_LEVEL", "")

    found = settings()

    assert (found.environment, found.stream_send_seconds_max, found.nodes_max, found.log_level) == (
        "production", 7.0, 500, "info",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("FLASH_ORIGINS", "FLASH_CORS_ORIGINS"),
        ("FLASH_MASTER_KEY", "FLASH_MASTER_KEYS"),
        ("FLASH_ENVIRONMENT", "FLASH_ENV"),
        ("FLASH_DATABASE_URL", "DATABASE_URL"),
        ("FLASH_STREAM_SEND_SECONDS_MAX", "FLASH_STREAM_SEND_SECONDS"),
        ("flash_log_levl", "FLASH_LOG_LEVEL"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_that_is(
    environment: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    environment.setenv(variable, "verysecret")

    with pytest.raises(ConfigurationError) as refused:
        settings()

    assert str(refused.value) == (
        f"The environment can't be read: {variable}: There is no such setting (the nearest is {nearest})."
    )


def test_all_variables_of_that_kind_are_told_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLASH_X", "1")
    environment.setenv("FLASH_DEPHT_MAX", "3")

    with pytest.raises(ConfigurationError) as refused:
        settings()

    assert str(refused.value) == (
        "The environment can't be read: FLASH_DEPHT_MAX: There is no such setting (the nearest is FLASH_DEPTH_MAX); "
        "FLASH_X: There is no such setting (the nearest is FLASH_ENV)."
    )


def test_a_value_that_cannot_be_read_is_refused_by_its_variable(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLASH_NODES_MAX", "verysecret")
    environment.setenv("FLASH_STREAM_SEND_SECONDS", "0")

    with pytest.raises(ConfigurationError) as refused:
        settings()

    assert str(refused.value) == (
        "The environment can't be read: FLASH_NODES_MAX: Input should be a valid integer, unable to parse string as an "
        "integer; FLASH_STREAM_SEND_SECONDS: Input should be greater than 0."
    )


@pytest.mark.parametrize(
    "variable",
    [
        "FLASH_KEY",
        "FLASH_BIND",
        "FLASH_PORT",
        "FLASH_BENCH_HOUSEHOLDS",
        "FLASH_CHAOS_SEED",
        "FLASH_CONFORMANCE_CASES",
        "FLASH_TEST_TEMPLATE",
        "FLASH_SERVICE_HOST",
        "FLASH_SERVICE_PORT",
        "FLASH_API_SERVICE_PORT_HTTP",
        "FLASH_API_PORT",
        "FLASH_API_PORT_8000_TCP",
        "FLASH_API_PORT_8000_TCP_ADDR",
    ],
)
def test_what_commands_tests_and_kubernetes_use_is_left_alone(environment: pytest.MonkeyPatch, variable: str) -> None:
    environment.setenv(variable, "tcp://10.0.0.1:8000")

    assert settings().environment == "development"
    assert variable not in VARIABLES.values()


def test_an_empty_variable_counts_as_unset(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLASH_LOG_LEVL", "")

    assert settings().log_level == "info"


def test_no_setting_is_taken_for_what_is_left_alone() -> None:
    assert not [name for name in VARIABLES.values() if config._NOT_SETTINGS.fullmatch(name)]
