"""Documents that schemathesis makes. Without these a valid document that nobody thought of could be a fault.

`make conformance` sends 2,000; otherwise they are a sample. Values are valid by their types, and mostly absurd.
"""

from pathlib import Path
from typing import Any

from tests.conformance.conftest import CASES, Log, body_of, refuted
from tests.conftest import Api
from tests.factories import Shop
from tests.web.walk import Operation, operations

SCHEMA_FILE = Path(__file__).parents[2] / "schema.graphql"


def _documents(chosen: list[Operation], count: int, seed: int) -> list[str]:
    """Return so many documents of each operation, the same for the same seed."""
    # Importing them takes seconds, which every test worker would spend.
    import hypothesis
    import schemathesis
    from hypothesis import HealthCheck, strategies
    from schemathesis.graphql import nodes

    instants = strategies.datetimes().map(lambda instant: nodes.String(f"{instant.isoformat(timespec='seconds')}Z"))
    schemathesis.graphql.scalar("BigInt", strategies.integers(-(2**63), 2**63 - 1).map(nodes.Int))
    schemathesis.graphql.scalar("DateTime", instants)
    schema = schemathesis.graphql.from_path(str(SCHEMA_FILE))
    made: list[str] = []
    for operation in chosen:
        strategy = schema[operation.root][operation.name].as_strategy()

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(strategy)
        def collect(case: Any) -> None:
            made.append(str(case.body))

        collect()
    return made


async def test_no_document_of_the_schema_is_a_fault(shop: Shop, api: Api, seed: int) -> None:
    """As ADMIN, who may do most of it, and as a member."""
    every = operations()
    each = -(-CASES // len(every))
    step = max(len(every) // CASES, 1)
    documents = _documents(every[seed % step :: step], each, seed)
    member = await shop.token((await shop.member())["id"])
    log = Log(api.log)

    for key, sent in ((shop.admin, documents[::2]), (member, documents[1::2])):
        assert await refuted(shop, (body_of(document) for document in sent), key=key) == []
    assert len(documents) >= CASES // 2
    assert log.is_small(len(documents)), log.lines()
