"""Hostile values in every argument. Without these one field that forgets to check could be a fault, or write rubbish.

Walks the schema: every place of every argument gets every value. `make conformance` sends them all; otherwise a sample.
"""

import random
from typing import Any

from app import ids
from tests.conformance.conftest import CASES, Log, body_of, refuted
from tests.conftest import Api
from tests.factories import Shop
from tests.web.walk import operations, placed

HOSTILE: list[Any] = [
    None, True, False, 0, -1, -0.0, 0.5, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 10**30, 1e308,
    "", " ", " 1 ", "1_0", "\u0661", "0x10", "1e3", "NaN", "Infinity", "true", "null", "\x00", "a\x00b", "\ud800",
    "\u202e", "\ufeff", "\U0010ffff", "x" * 10_000, "é" * 5_000, "'; DROP TABLE pool; --", "%s%n{0}{{}}$1", "../../etc",
    "<script>alert(1)</script>", "\r\nSet-Cookie: a=b", "2030-02-30T00:00:00Z", "0000-00-00T00:00:00Z", "2030-01-31",
    "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "pool_" + "0" * 32, "pool_" + "f" * 31, "a@b", "@",
    [], [[]], [None], ["x"] * 251, {}, {"a": {"a": {}}}, [{}], [[[[[[1]]]]]],
]  # fmt: skip


def _cases() -> list[tuple[str, dict[str, Any]]]:
    """Return every place with every value: documents and their variables."""
    known = {kind: ids.encode(kind, ids.new()) for kind in ids.Kind.__args__}  # type: ignore[attr-defined]
    return [
        (operation.document(depth=1), placed(operation.variables(known), path, value))
        for operation in operations()
        for path, _ in operation.places()
        for value in HOSTILE
    ]


async def test_no_value_in_any_argument_is_a_fault(shop: Shop, api: Api, seed: int) -> None:
    cases = _cases()
    chosen = random.Random(seed).sample(cases, min(len(cases), 12 * CASES))
    log = Log(api.log)

    assert await refuted(shop, (body_of(*case) for case in chosen)) == []
    assert len(cases) > 5_000
    assert log.is_small(len(chosen)), log.lines()


async def test_null_for_an_argument_with_a_default_is_the_callers_mistake(shop: Shop) -> None:
    asked = 'query ($source: MemberSource) { order(orderId: "A-1", source: $source) { orderId } }'

    (error,) = (await shop.post(asked, {"source": None}))["errors"]

    assert error["extensions"] == {"code": "BAD_USER_INPUT"}
    assert (await shop.data(asked))["order"] is None
