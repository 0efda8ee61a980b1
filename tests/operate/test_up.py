"""`flash up`: everything starts, what dies comes back, and everything stops."""

import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.operate.processes import Up, all_gone, eventually, flash, refusal, starting, up

VIEWER = "{ viewer { __typename } }"
KILLED = ["api-1", "worker", "valkey", "postgres"]


def test_one_line_of_json_tells_what_runs_and_where(engine: Up) -> None:
    assert set(engine.facts) == {"url", "pid", "data", "processes", "demo"}
    assert engine.facts["pid"] == engine.process.pid
    assert set(engine.facts["processes"]) == {"api-1", "api-2", "worker", "valkey", "postgres"}
    assert engine.ready() == {"database": "ok", "valkey": "ok"}


def test_it_says_what_it_is_doing_while_it_starts(engine: Up) -> None:
    told = [line for line in engine.errors.read_text().splitlines() if "running as root" not in line]
    assert told[:6] == [
        "flash: starting 2 API process(es)",
        "flash: starting Valkey",
        "flash: starting PostgreSQL",
        "flash: bringing the database up to date",
        "flash: starting a worker",
        "flash: making a demo merchant",
    ]


def test_whichever_process_is_asked_for_metrics_answers_for_both(engine: Up) -> None:
    def counted() -> float:
        page = httpx.get(f"{engine.url}/metrics", verify=False, timeout=30).text
        wanted = ("flash_operations_total{", 'field="introspection"', 'outcome="answered"')
        return sum(float(line.split()[-1]) for line in page.splitlines() if all(part in line for part in wanted))

    before = counted()
    for _ in range(6):
        assert "errors" not in engine.ask("{ __typename }", engine.facts["demo"]["admin"])

    # Each over a connection of its own, which either process may take.
    assert {counted() for _ in range(12)} == {before + 6}


@pytest.mark.parametrize("role", ["admin", "checkout", "support", "analyst", "member_token"])
def test_the_demo_keys_are_accepted(engine: Up, role: str) -> None:
    assert "errors" not in engine.ask("{ __typename }", engine.facts["demo"][role])


def test_the_demo_shows_who_brought_whom(engine: Up) -> None:
    asked = """{
      referrals { edges { node { referrerEntry { amount } } } } invites(status: PENDING) { edges { node { id } } }
      latestGraphSnapshot { memberCount referralCount hubCount }
    }"""

    def found() -> dict[str, Any]:
        data: dict[str, Any] = engine.ask(asked, engine.facts["demo"]["analyst"])["data"]
        return data

    # The worker draws the network when it gets to it.
    eventually(lambda: found()["latestGraphSnapshot"] is not None)
    assert found()["latestGraphSnapshot"] == {"memberCount": 5, "referralCount": 4, "hubCount": 1}
    assert [edge["node"]["referrerEntry"]["amount"] for edge in found()["referrals"]["edges"]] == [100] * 4
    assert len(found()["invites"]["edges"]) == 1


def test_a_second_up_on_the_same_directory_says_so(engine: Up) -> None:
    data = Path(engine.facts["data"])

    assert refusal("up", "--port", "0", "--data", data) == (
        f"Flash is already running on {data} (process {engine.process.pid}); stop it, or choose another --data."
    )


def test_a_port_in_use_is_one_sentence(engine: Up, tmp_path: Path) -> None:
    port = engine.url.rpartition(":")[2]

    assert refusal("up", "--port", port, "--data", tmp_path) == (
        f"Can't listen on 127.0.0.1:{port} (address already in use); stop what listens there, or choose another --port."
    )


def test_a_command_uses_the_running_database(engine: Up) -> None:
    made = flash("merchant", "create", "--name", "N", "--currency", "EUR", "--json", "--data", engine.facts["data"])

    assert made.returncode == 0, made.stderr
    assert "errors" not in engine.ask("{ __typename }", made.stdout.split('"')[7])


def test_doctor_finds_the_running_engine_well(engine: Up) -> None:
    looked = flash("doctor", "--data", engine.facts["data"])

    assert looked.returncode == 0, looked.stdout
    assert "embedded PostgreSQL 18, answers" in looked.stdout
    assert "embedded, answers" in looked.stdout


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_child_is_started_again(engine: Up, name: str) -> None:
    before = {process.pid for process in engine.family()}
    restarts = _restarts(engine, name)
    psutil.Process(_pid(engine, name)).send_signal(signal.SIGKILL)

    eventually(lambda: _restarts(engine, name) == restarts + 1)
    eventually(lambda: engine.ready() == {"database": "ok", "valkey": "ok"})
    eventually(lambda: len({process.pid for process in engine.family()} & before) < len(before))
    assert engine.process.poll() is None
    assert "errors" not in engine.ask("{ __typename }", engine.facts["demo"]["admin"])


def test_one_api_process_dying_loses_no_later_request(engine: Up) -> None:
    psutil.Process(_pid(engine, "api-2")).send_signal(signal.SIGKILL)

    answers = [httpx.get(f"{engine.url}/healthz", verify=False, timeout=30).status_code for _ in range(30)]

    assert answers == [200] * 30


def _pid(engine: Up, name: str) -> int:
    pid: int = engine.facts["processes"][name]
    return pid


def _restarts(engine: Up, name: str) -> int:
    return engine.errors.read_text().count(f"{name} ended (SIGKILL); restarting it")


def test_a_directory_outlives_an_interrupted_start_and_a_killed_supervisor(tmp_path: Path) -> None:
    data, errors = tmp_path / "data", tmp_path / "up.log"

    with starting(data, "--no-demo", errors=errors) as interrupted:
        eventually(lambda: "starting PostgreSQL" in errors.read_text())
        family = psutil.Process(interrupted.pid).children(recursive=True)
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(timeout=40) == 0
        assert all_gone(family)

    with up(data, "--no-demo", errors=errors) as killed:
        family = killed.family()
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL

    with up(data, "--no-demo", errors=errors) as again:
        assert all_gone(family)
        assert again.ready() == {"database": "ok", "valkey": "ok"}
        assert again.facts["demo"] is None
        family = again.family()
        again.process.send_signal(signal.SIGINT)
        assert again.end(signal.SIGINT) == 0
        assert all_gone(family)

    assert "Traceback" not in errors.read_text()


def test_a_child_that_never_runs_ends_it_with_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "uvicorn.py").write_text("raise SystemExit('broken on purpose')\n")
    data = tmp_path / "data"

    ended = flash("up", "--port", "0", "--data", data, "--no-demo", PYTHONPATH=broken)

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        f"before it was ready (exit 1): broken on purpose; see its log, {data / 'logs' / 'api-1.log'}."
    )
    assert "Traceback" not in ended.stderr
