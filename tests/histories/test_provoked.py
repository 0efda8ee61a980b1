"""What provokes refusals. Without these a new refusal could be one that no run ever sees."""

import pytest

from tests.histories import provoked


def test_every_refusal_and_every_replay_is_provoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert (provoked.main(), capsys.readouterr().out) == (0, "")


def test_one_that_nothing_provokes_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tuple(errand for errand in provoked.ERRANDS if errand.outcome != "LastAdminKey")
    monkeypatch.setattr(provoked, "ERRANDS", others)

    assert provoked.main() == 1
    assert capsys.readouterr().out == (
        "Nothing provokes revokeApiKey: LastAdminKey: "
        "declare a verb (app/stress/verbs.py) or an errand (tests/histories/provoked.py).\n"
    )


def test_one_that_the_schema_does_not_have_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = provoked.Errand("createPool", "PoolExhausted", {})
    monkeypatch.setattr(provoked, "ERRANDS", (*provoked.ERRANDS, gone))

    assert provoked.main() == 1
    assert capsys.readouterr().out == "The schema has no createPool: PoolExhausted, which something provokes.\n"
