"""The log. Without these it could lose who asked for what, quote what nobody may read, or be written by strangers."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app import ids
from app.telemetry.logs import JsonLines, TextLines
from app.telemetry.observed import Observed
from tests.conftest import Api, own_valkey, run_worker
from tests.factories import CLAIM_CODE, Shop
from tests.guides import blocks
from tests.operate.processes import eventually
from tests.telemetry.conftest import VALKEY
from tests.wallets.sockets import joined

CLAIM = f"mutation Tap {CLAIM_CODE.strip().removeprefix('mutation ')}"
ROLE = "query Who { viewer { role } }"
ASK = "mutation { askAdvisor { __typename } }"


class Entries:
    """What an API process logs from here on."""

    def __init__(self, log: Path) -> None:
        """Begin at its end."""
        self._log = log
        self._begin = len(log.read_bytes())

    @property
    def text(self) -> str:
        """All of it, but that Valkey was slow on a busy machine."""
        lines = self._log.read_bytes()[self._begin :].decode().splitlines(keepends=True)
        return "".join(line for line in lines if "Valkey is away" not in line)

    def entries(self) -> list[dict[str, Any]]:
        """Return each line, which is JSON."""
        return [json.loads(line) for line in self.text.splitlines()]


async def _ask(shop: Shop, api: Api, document: str, variables: dict[str, Any] | None = None, key: str = "") -> str:
    """Ask, and return the id that the answer has."""
    response = await shop.http.post(
        f"{api.url}/graphql",
        json={"query": document, "variables": variables or {}},
        headers={"authorization": f"Bearer {key or shop.admin}"},
    )
    request_id: str = response.headers["x-request-id"]
    return request_id


async def test_an_operation_is_one_line_that_says_whose_it_was_and_how_it_ended(shop: Shop, operated: Api) -> None:
    pool = await shop.pool(codes=1)
    first, second = await shop.member(email="first@example.com"), await shop.member()
    checkout = await shop.key("CHECKOUT")
    log = Entries(operated.log)

    claimed = await _ask(shop, operated, CLAIM, {"input": {"poolId": pool["id"], "memberId": first["id"]}}, checkout)
    refused = await _ask(shop, operated, CLAIM, {"input": {"poolId": pool["id"], "memberId": second["id"]}}, checkout)
    mistaken = await _ask(shop, operated, "{ nonsense }")
    stranger = await _ask(shop, operated, ROLE, key="nobody")
    entries = log.entries()

    (shown,) = blocks("docs/operations.md", "Logs", "json")
    assert list(json.loads(shown.text)) == list(entries[1])
    times = [(entry.pop("time"), entry.pop("duration_ms")) for entry in entries]
    common = {"level": "info", "logger": "flash.graphql", "transport": "http"}
    merchant = ids.encode("merchant", shop.merchant_id)
    claim = {"kind": "mutation", "field": "claimCode", "operation": "Tap", "merchant": merchant, "role": "CHECKOUT"}
    assert entries == [
        common | claim | {"request_id": claimed, "message": "answered: OK", "outcome": "OK"},
        common | claim | {"request_id": refused, "message": "answered: PoolExhausted", "outcome": "PoolExhausted"},
        common
        | {"request_id": mistaken, "merchant": merchant, "role": "ADMIN", "outcome": "GRAPHQL_VALIDATION_FAILED"}
        | {"message": entries[2]["message"]},
        common
        | {"request_id": stranger, "message": "refused to a caller: UNAUTHENTICATED", "outcome": "UNAUTHENTICATED"},
    ]
    assert entries[2]["message"].startswith("refused to apikey_")
    assert all(time.endswith("Z") and 0 < milliseconds < 30_000 for time, milliseconds in times)
    for secret in ("first@example.com", pool["id"], first["id"], checkout.split("_", 2)[2], "PCT-"):
        assert secret not in log.text


async def test_what_a_socket_does_has_the_id_of_its_handshake(shop: Shop, operated: Api) -> None:
    log = Entries(operated.log)
    async with joined(operated.url.replace("http", "ws", 1) + "/graphql", shop.admin) as socket:
        assert socket.connection.response is not None
        handshake = socket.connection.response.headers["x-request-id"]
        await socket.subscribe(ROLE)
        assert (await socket.receive())["type"] == "next"
        assert (await socket.receive())["type"] == "complete"
        await socket.connection.send("not JSON")
        await socket.closed()
    entries = await asyncio.to_thread(eventually, lambda: found if len(found := log.entries()) == 2 else None)

    assert [(entry["request_id"], entry["message"]) for entry in entries] == [
        (handshake, "answered: OK"),
        (handshake, "refused to a caller: a socket was closed with 4400"),
    ]
    assert (entries[0]["transport"], entries[0]["operation"]) == ("websocket", "Who")


@pytest.mark.parametrize("form", ["json", "text"])
async def test_nobody_writes_a_line_by_what_they_send(shop: Shop, operated: Api, api: Api, form: str) -> None:
    chosen = operated if form == "json" else api
    forged = "A\n2026-01-01T00:00:00.000Z ERROR flash.graphql forged\r\n\u2028{}"
    log = Entries(chosen.log)
    bodies: list[dict[str, Any]] = [
        {"query": ROLE, "operationName": forged},
        {"query": ROLE, "variables": {forged: forged}},
        {"query": f"query {'N' * 5_000} {{ viewer {{ role }} }}"},
        {"query": "query", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": forged}}},
        {"query": forged},
    ]
    for body in bodies:
        headers = {"authorization": f"Bearer {shop.admin}"}
        await shop.http.post(f"{chosen.url}/graphql", json=body, headers=headers)
    await shop.http.get(f"{chosen.url}/metrics%0aforged", headers={"user-agent": "forged"})

    lines = log.text.splitlines()
    # Two of them are answered; in development that is no line.
    assert len(lines) == len(bodies) - (0 if form == "json" else 2)
    assert all(len(line) < 600 for line in lines)
    assert "forged" not in log.text


def _record(error: Exception) -> logging.LogRecord:
    return logging.LogRecord("flash", logging.ERROR, "", 0, "a job failed: %s", (error,), (type(error), error, None))


@pytest.mark.parametrize("form", [JsonLines(), TextLines()], ids=["json", "text"])
def test_an_error_keeps_its_trace_and_loses_the_values_that_the_database_quotes(form: logging.Formatter) -> None:
    violated = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    violated.detail = "Key (order_id)=(secret\n2026-01-01 ERROR secret) already exists."
    argument = asyncpg.DataError("invalid input for query argument $3: 'secret' (expected str)")

    entries = [form.format(_record(error)) for error in (violated, argument, ValueError("a\n2026"))]

    for entry in entries:
        assert "secret" not in entry
        first, *others = entry.splitlines()
        assert all(line.startswith("  ") for line in others)
        assert bool(others) == isinstance(form, TextLines), first
    assert "duplicate key value" in entries[0]
    assert "query argument $3" in entries[1]


def test_what_nobody_told_a_client_of_is_a_fault_all_the_same() -> None:
    with pytest.raises(ZeroDivisionError), Observed("http") as observed:
        _ = 1 // 0

    assert observed.outcome == "INTERNAL_SERVER_ERROR"


def test_a_line_of_text_shows_what_would_move_a_cursor_as_text() -> None:
    record = logging.LogRecord("flash", logging.INFO, "", 0, "said %s", ("a\x1b[2J\nb\u2028é",), None)

    assert TextLines().format(record).endswith(" INFO flash said a\\x1b[2J\\nb\\u2028é")


def test_json_lines_hold_what_is_not_utf_8() -> None:
    record = logging.LogRecord("flash", logging.INFO, "", 0, "said %s", ("\ud800",), None)

    assert json.loads(JsonLines().format(record))["message"] == "said \ud800"


async def test_a_worker_says_at_which_job_it_is(shop: Shop, operated: Api, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    await shop.pool()
    await shop.data(ASK, url=f"{operated.url}/graphql")

    def said(message: str) -> list[Any]:
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [entry for entry in entries if message in entry["message"]]

    with run_worker(own_valkey(VALKEY), log, FLASH_LOG_FORMAT="json"):
        (advised,) = await asyncio.to_thread(eventually, lambda: said("runs of the advisor"))
        (begun,) = said("the worker has begun")

    assert (advised["level"], advised["logger"]) == ("info", "flash.worker")
    assert len(advised["job"]) == 32
    assert "job" not in begun
