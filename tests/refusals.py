"""Fails the whole suite unless each refusal of each mutation was seen to leave no trace (`Shop.refused`).

Without this a mutation could get a refusal that no test looks behind.
"""

from typing import Any, Final

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLUnionType, get_named_type

from tests.factories import REFUSED

#: What can't come of a mutation although its type allows it, and why.
NEVER: Final = {
    ("pausePool", "PoolHasNoCodes"): "shares its type with activatePool, which alone needs codes",
    ("archivePool", "PoolHasNoCodes"): "shares its type with activatePool, which alone needs codes",
    ("pausePool", "PoolEnded"): "shares its type with activatePool, which alone needs an end that hasn't passed",
    ("archivePool", "PoolEnded"): "shares its type with activatePool, which alone needs an end that hasn't passed",
}
_OUTPUT: Final = "refused"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a test worker has seen to the controller, which fails when something is missing."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput[_OUTPUT] = sorted(REFUSED)
    elif session.exitstatus == pytest.ExitCode.OK and _missing(config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_testnodedown(node: Any) -> None:
    """Take what a test worker has seen."""
    REFUSED.update(tuple(each) for each in getattr(node, "workeroutput", {}).get(_OUTPUT, ()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what is missing."""
    if missing := _missing(config):
        terminalreporter.section("refusals that no test saw to leave no trace")
        for field, kind in missing:
            terminalreporter.line(f"{field}: {kind}")


def _missing(config: pytest.Config) -> list[tuple[str, str]]:
    """Return what is missing; nothing when only some tests were asked for."""
    option = config.option
    part = option.keyword or option.markexpr or option.collectonly or config.getoption("lf", default=False)
    if part or config.args_source is pytest.Config.ArgsSource.ARGS:
        return []
    return sorted(refusals() - NEVER.keys() - REFUSED)


def refusals() -> set[tuple[str, str]]:
    """Return each mutation with each of its refusals."""
    from app.schema import schema

    kinds = schema._schema
    mutation, refusal = kinds.get_type("Mutation"), kinds.get_type("Refusal")
    assert isinstance(mutation, GraphQLObjectType)
    assert isinstance(refusal, GraphQLInterfaceType)
    return {
        (name, answer.name)
        for name, field in mutation.fields.items()
        if isinstance(union := get_named_type(field.type), GraphQLUnionType)
        for answer in union.types
        if refusal in answer.interfaces
    }
