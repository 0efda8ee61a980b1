"""Which refusals were seen to leave no trace. Without this a mutation could get a refusal that no test looks behind."""

import re
from typing import Any, Final

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLUnionType, get_named_type

_FIELD: Final = re.compile(r"\{\s*(?:\w+:\s*)?(\w+)")
_OUTPUT: Final = "refused_without_a_trace"
_seen: set[tuple[str, str]] = set()


def refused(document: str, kind: str) -> None:
    """Note that a mutation's refusal was seen to change nothing."""
    found = _FIELD.search(document)
    assert found is not None
    _seen.add((found[1], kind))


def every_refusal() -> set[tuple[str, str]]:
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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a test worker has seen to the controller, which fails the whole suite when something is missing."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput[_OUTPUT] = sorted(_seen)
    elif session.exitstatus == pytest.ExitCode.OK and _is_whole(config) and every_refusal() - _seen:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Say which refusals are missing."""
    missing = every_refusal() - _seen if _is_whole(config) else ()
    if missing:
        terminalreporter.section("refusals that no test sees to leave no trace (Shop.refused)")
        for field, kind in sorted(missing):
            terminalreporter.line(f"{field}: {kind}")


def _is_whole(config: pytest.Config) -> bool:
    """Whether every test was asked for."""
    chosen = config.args_source is not pytest.Config.ArgsSource.ARGS
    part = config.option.keyword or config.option.markexpr or config.option.lf or config.option.collectonly
    return chosen and not part


def pytest_testnodedown(node: Any) -> None:
    """Take what a test worker has seen."""
    _seen.update(tuple(each) for each in getattr(node, "workeroutput", {}).get(_OUTPUT, ()))
