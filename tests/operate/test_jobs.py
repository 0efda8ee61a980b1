"""The workers' queue, written to by a stranger. Without this whoever reaches Valkey could run code in a worker."""

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
from arq.connections import ArqRedis
from arq.constants import default_queue_name, job_key_prefix

from app.advisor.ask_advisor import JOB
from app.storage.doorbell import UNREADABLE, decode_job, encode_job, queue_at
from tests.advisor.documents import ASK
from tests.conftest import own_valkey, run_worker
from tests.factories import Shop
from tests.operate.processes import eventually
from workers.settings import JOBS

VALKEY = 14
WELL: dict[str, Any] = {"t": None, "f": "advise", "a": [], "k": {}, "et": 1}
#: What is no job, by the id that it lies under.
NO_JOBS = {
    "empty": b"{}",
    "half": orjson.dumps(WELL)[:-1],
    "no-text": b"\xff\xfe",
    "a-number": b"7",
    "deep": b"[" * 100_000,
    "no-function": orjson.dumps(WELL | {"f": ["advise"]}),
    "no-list": orjson.dumps(WELL | {"a": "advise"}),
    "no-keywords": orjson.dumps(WELL | {"k": [1]}),
    "no-try": orjson.dumps(WELL | {"t": "1"}),
    "no-time": orjson.dumps(WELL | {"et": 10**18}),
}


class _Planted:
    """What makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self._file,)


async def _push(valkey: ArqRedis, job_id: bytes, payload: bytes) -> None:
    await valkey.set(job_key_prefix.encode() + job_id, payload)
    await valkey.zadd(default_queue_name, {job_id: 1})


async def test_a_stranger_in_valkey_runs_no_code_and_the_worker_goes_on(shop: Shop, tmp_path: Path) -> None:
    """Takes some seconds: a worker of its own, so that no other test's worker reads what is planted."""
    url, log, planted = own_valkey(VALKEY), tmp_path / "worker.log", tmp_path / "planted"
    await shop.pool()
    await shop.data(ASK)

    def warnings() -> list[str]:
        entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return sorted(entry["message"] for entry in entries if entry["level"] != "info")

    async with queue_at(url) as valkey:
        await _push(valkey, b"pickled", pickle.dumps(WELL | {"a": [_Planted(planted)]}))
        await _push(valkey, b"\xff", orjson.dumps(WELL))
        for job_id, payload in NO_JOBS.items():
            await _push(valkey, job_id.encode(), payload)
        await _push(valkey, b"strange", orjson.dumps(WELL | {"f": "no_such_job"}))
        with run_worker(url, log, FLASH_LOG_FORMAT="json") as worker:
            dropped = len(NO_JOBS) + 3
            await asyncio.to_thread(eventually, lambda: len(warnings()) >= dropped)
            await valkey.enqueue_job(JOB)
            await asyncio.to_thread(eventually, lambda: "runs of the advisor" in log.read_text())
            left = await valkey.keys("arq:*:*")
        assert worker.returncode == 0

    assert not planted.exists()
    assert warnings() == sorted(
        [f"the job {job_id} can't be read; it was dropped" for job_id in ("pickled", *NO_JOBS)]
        + ["a job whose id can't be read was dropped", "job strange, function 'no_such_job' not found"]
    )
    ids = {"pickled", "strange", *NO_JOBS}
    assert [key for key in left if key.decode(errors="replace").rpartition(":")[2] in ids] == []


def test_workers_know_the_name_of_a_job_that_can_not_be_read() -> None:
    assert UNREADABLE in {job.name for job in JOBS}


@pytest.mark.parametrize("payload", NO_JOBS.values(), ids=NO_JOBS)
def test_what_is_no_job_is_read_as_the_one_that_drops_it(payload: bytes) -> None:
    assert decode_job(payload) == {"t": None, "f": UNREADABLE, "a": [], "k": {}, "et": 0}


def test_a_job_is_read_as_it_was_written() -> None:
    job = {"t": 2, "f": "take_graph_snapshots", "a": (True,), "k": {"name": "größer"}, "et": 1_790_000_000_000}

    assert decode_job(encode_job(job)) == job | {"a": [True]}


def test_what_a_job_ended_with_is_told_by_its_type() -> None:
    assert encode_job({"r": ValueError("verysecret")}) == b'{"r":"ValueError"}'
    with pytest.raises(TypeError):
        encode_job({"a": [object()]})
