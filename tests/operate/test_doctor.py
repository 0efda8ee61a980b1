"""`flash doctor`: each part is found well, or with what to do about it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.storage.crypto import new_master_key
from tests.factories import Shop
from tests.operate.processes import flash


def findings(*arguments: str | Path, status: int, cwd: Path | None = None, **variables: str | Path) -> dict[str, Any]:
    """Return what doctor found, by name."""
    looked = flash("doctor", "--json", *arguments, cwd=cwd, **variables)
    assert looked.returncode == status, looked
    return {finding.pop("what"): finding for finding in json.loads(looked.stdout)}


def test_an_untouched_machine_is_well_and_stays_untouched(tmp_path: Path) -> None:
    found = findings("--data", tmp_path / "new", status=0)

    assert found["environment"] == {"state": "development", "advice": ""}
    assert found["data directory"] == {"state": f"{tmp_path / 'new'}, made on first start", "advice": ""}
    assert found["master keys"] == {"state": "made on first start", "advice": ""}
    assert found["database"] == {"state": "embedded, not running; `flash up` starts it", "advice": ""}
    assert found["valkey"] == {"state": "embedded, not running; `flash up` starts it", "advice": ""}
    assert found["advisor"] == {"state": "rules only: FLASH_ADVISOR_BASE_URL names no endpoint", "advice": ""}
    assert found["limits"]["state"].startswith("2,000 tokens, depth 15, 30 aliases, 10 operations, 250 list items")
    assert found["origins"] == {"state": "its own and any of this machine", "advice": ""}
    assert found["documents"] == {"state": "any", "advice": ""}
    assert found["log"] == {"state": "text, mistakes only", "advice": ""}
    assert found["metrics"] == {"state": "for this machine", "advice": ""}
    assert found["traces"] == {"state": "none", "advice": ""}
    assert list(tmp_path.iterdir()) == []


def test_the_advisors_endpoint_is_shown_without_its_secrets(tmp_path: Path) -> None:
    found = findings(
        "--data",
        tmp_path / "new",
        status=0,
        FLASH_ADVISOR_BASE_URL="https://user:verysecret@models.example/v1",
        FLASH_ADVISOR_API_KEY="verysecret",
        FLASH_ADVISOR_MODEL="large",
        FLASH_ADVISOR_TEMPERATURE="0",
    )

    shown = "model 'large' of https://models.example/v1 with a key, at most 60 s, 2,000 tokens, temperature 0"
    assert found["advisor"]["state"] == shown


def test_limits_origins_and_documents_are_shown_as_they_are_set(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    variables: dict[str, Any] = {
        "FLASH_DEPTH_MAX": "20",
        "FLASH_CORS_ORIGINS": "https://shop.example",
        "FLASH_TRUSTED_DOCUMENTS": str(manifest),
        "FLASH_TRUSTED_DOCUMENTS_REQUIRED": "true",
        "FLASH_LOG_FORMAT": "json",
        "FLASH_LOG_OPERATIONS": "true",
        "FLASH_METRICS_TOKEN": "verysecretverysecret",
        "FLASH_TRACES_URL": "http://user:verysecret@collector:4318/v1/traces",
        "FLASH_TRACES_SHARE": "0.1",
    }

    found = findings("--data", tmp_path / "new", status=0, **variables)
    manifest.unlink()
    broken = findings("--data", tmp_path / "new", status=1, **variables)

    assert ", depth 20, " in found["limits"]["state"]
    assert found["origins"]["state"] == "https://shop.example"
    assert found["documents"]["state"] == "0 trusted, no others"
    assert "can't be read" in broken["documents"]["advice"]
    assert found["log"]["state"] == "json, each operation"
    assert found["metrics"]["state"] == "for callers with the token"
    assert found["traces"]["state"] == "10% of the operations, to http://collector:4318/v1/traces"
    assert "verysecret" not in str(found)


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_relative_data_directory_is_meant_from_here(by: str, tmp_path: Path) -> None:
    (tmp_path / "größer als").mkdir()

    if by == "option":
        found = findings("--data", "größer als", status=0, cwd=tmp_path)
    else:
        found = findings(status=0, cwd=tmp_path, FLASH_DATA="größer als")

    assert found["data directory"]["state"] == f"{tmp_path / 'größer als'}, not in use"


def test_everything_wrong_is_said_at_once_with_what_to_do() -> None:
    found = findings(
        status=1,
        FLASH_ENV="production",
        FLASH_DATA="/dev/null/x",
        DATABASE_URL="postgresql://somebody:verysecret@127.0.0.1:1/flash",
        REDIS_URL="redis://:verysecret@127.0.0.1:1/0",
    )

    assert {name for name, finding in found.items() if finding["advice"]} == {
        "data directory",
        "master keys",
        "database",
        "valkey",
    }
    assert found["master keys"] == {
        "state": "none",
        "advice": "Set FLASH_MASTER_KEYS to what `flash keys new` prints.",
    }
    assert found["valkey"]["advice"] == (
        "Valkey (or Redis) doesn't answer (ConnectionError); start it or correct REDIS_URL."
    )
    assert "verysecret" not in str(found)


def test_a_replica_is_looked_at_where_there_is_one(worker_database: str, tmp_path: Path) -> None:
    nobody = "postgresql://somebody:verysecret@127.0.0.1:1/flash"

    found = findings("--data", tmp_path / "new", status=0, DATABASE_REPLICA_URL=worker_database)["replica"]
    missed = findings("--data", tmp_path / "new", status=1, DATABASE_REPLICA_URL=nobody)["replica"]

    assert found == {"state": "answers, but isn't a replica", "advice": ""}
    assert missed["state"] == "doesn't answer; reports and exports fail without it"
    assert missed["advice"].endswith("; check DATABASE_REPLICA_URL.")
    assert "secret" not in str(missed)


async def test_keys_that_do_not_fit_are_found(worker_database: str, shop: Shop) -> None:
    found = await asyncio.to_thread(
        lambda: findings(status=1, DATABASE_URL=worker_database, FLASH_MASTER_KEYS=new_master_key("k1"))
    )

    assert found["database"]["state"].endswith("answers, but can't be decrypted")
    assert found["database"]["advice"].startswith("The master keys don't fit this database: ")


def test_people_read_lines(tmp_path: Path) -> None:
    looked = flash("doctor", "--data", tmp_path, FLASH_ENV="production")

    assert looked.returncode == 1
    assert "ok  environment     production\n" in looked.stdout
    assert "!!  master keys     none\n" in looked.stdout
    assert "→ Set FLASH_MASTER_KEYS to what `flash keys new` prints.\n" in looked.stdout
