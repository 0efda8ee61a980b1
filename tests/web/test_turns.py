"""Turns. Without these one request of half a kilobyte could hold a process for seconds, and everybody with it.

Whatever takes time is counted here, never timed: bench/loop_holds.py measures what a turn takes.
"""

import asyncio
import cProfile
import json
import pstats
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from graphql import build_schema, parse

from app.api.context import Context, Role, Tenant, Viewer
from app.api.turns import FIELDS_PER_TURN, TurnTaking
from app.config import Settings
from app.schema import sdl
from app.web import graphql_documents
from app.web.document_costs import TooCostlyError, count_values
from app.web.graphql_documents import SCHEMA, Asked, Documents, judge_document
from app.web.graphql_errors import NotExecutedError
from app.web.graphql_execution import admit, answer, chosen
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.sizes import size
from tests.wallets.sockets import joined
from tests.web.lists import Composite, Data, Step, document, lists_below, scalars, widest
from tests.web.test_event_streams import streaming

LIMITS = Settings()
VIEWER = Viewer(Role.ADMIN, cast("Tenant", object()), "admin")
#: The engine's schema without its resolvers.
PLAIN = build_schema(sdl())
ROOTS = cast("list[Composite]", [SCHEMA.query_type, SCHEMA.mutation_type])
LISTS = lists_below(*ROOTS)
#: Of so many lists in a list one is tried.
IN_EACH = size(4, 1)
#: Enough to see whether an operation lets others go first.
TURNS = 10


class Rounds:
    """Counts what is done in each round of the event loop."""

    def __init__(self, data: Data) -> None:
        """Begin."""
        self.fields: list[int] = []
        self._awaited: tuple[int, asyncio.Future[None] | None] = (0, None)
        self._data = data
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._data.fields:
            self.fields.append(self._data.fields)
        self._data.fields = 0
        count, come = self._awaited
        if come is not None and not come.done() and len(self.fields) >= count:
            come.set_result(None)
        self._next = self._loop.call_soon(self._look)

    async def come(self, count: int, *tasks: "asyncio.Task[Any]") -> None:
        """Wait for so many rounds in which fields were completed, or until one of the tasks is done."""
        come = self._loop.create_future()
        self._awaited = (count, come)
        await asyncio.wait([come, *tasks], return_when=asyncio.FIRST_COMPLETED)
        come.cancel()

    def stop(self) -> list[int]:
        """End. Returns how many fields were completed in each round in which any was."""
        self._next.cancel()
        self._look()
        self._next.cancel()
        return self.fields


def _executor(text: str, variables: dict[str, Any], data: Data, context: Context) -> TurnTaking:
    executor = TurnTaking.build(PLAIN, parse(text), None, context, variables, field_resolver=data.resolve)
    assert isinstance(executor, TurnTaking), executor
    return executor


def _is_refused(text: str, variables: dict[str, Any]) -> bool:
    judged = judge_document(text, LIMITS)
    codes = [(error.extensions or {}).get("code") for error in judged.errors]
    if codes == ["COST_LIMIT_EXCEEDED"]:
        return True
    assert judged.errors == [], text
    asked = Asked(text, None, variables)
    asks = chosen(judged, asked).cost.size(variables)
    if asks.nodes <= LIMITS.nodes_max and asks.fields <= LIMITS.fields_max:
        return False
    with pytest.raises(NotExecutedError):
        admit(chosen(judged, asked), asked, None, LIMITS)
    return True


async def _begin(text: str, data: Data) -> "asyncio.Task[Any]":
    """Begin to execute a document."""
    context = Context(VIEWER)
    return asyncio.create_task(_executor(text, {}, data, context).execute_operation())


async def _rounds(way: list[Step], text: str, variables: dict[str, Any], *, loads: bool) -> list[int]:
    """Execute for some turns, or to the end. Returns how many fields were completed in each round of the loop."""
    data = Data(way, loads=loads)
    context = Context(VIEWER)
    rounds = Rounds(data)
    executed: Any = _executor(text, variables, data, context).execute_operation()
    if asyncio.iscoroutine(executed):
        task = asyncio.create_task(executed)
        await rounds.come(TURNS, task)
        task.cancel()
        await asyncio.wait([task])
    else:
        assert not executed.errors
    context.stop()
    return rounds.stop()


@pytest.mark.parametrize("outer", LISTS)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_every_list_and_every_list_in_it_is_refused_or_lets_others_go_first(outer: str) -> None:
    way = LISTS[outer]
    # Of the lists in it others are tried than in the list before.
    inner = list(lists_below(way[-1].item).values())[list(LISTS).index(outer) % IN_EACH :: IN_EACH]
    ways = [way, *([*way, *each] for each in inner)]
    executed = 0
    for each in ways:
        text, variables = document(each)
        if _is_refused(text, variables):
            continue
        executed += 1
        # A turn goes on to the end of an item, and so do the last fields before they are awaited.
        most = FIELDS_PER_TURN + sum(2 + len(scalars(widest(step.item))) for step in each)
        for loads in (False, True):
            rounds = await _rounds(each, text, variables, loads=loads)
            assert max(rounds) <= most, (text, rounds)
    assert executed > 0


ALL_EVENTS = "{ events(first: 100) { edges { cursor node { id type subjectId actor occurredAt } } } }"
TEN_EVENTS = ALL_EVENTS.replace("100", "10")


async def test_a_short_answer_is_made_at_once() -> None:
    context = Context(None)

    executed = _executor(TEN_EVENTS, {}, Data([], loads=False), context).execute_operation()

    assert not asyncio.iscoroutine(executed)
    assert context.turn.left == FIELDS_PER_TURN - 1 - 10 * (1 + 2 + 5)


async def test_short_answers_are_made_between_the_turns_of_long_ones() -> None:
    data = Data([], loads=False)
    long = [await _begin(ALL_EVENTS, data) for _ in range(3)]
    ended = []
    for task in long:
        task.add_done_callback(lambda _: ended.append("long"))
    rounds = Rounds(data)
    await rounds.come(1, *long)
    rounds.stop()
    short = _executor(TEN_EVENTS, {}, data, Context(None)).execute_operation()

    assert not asyncio.iscoroutine(short)
    assert ended == []
    for task in long:
        assert len((await task).data["events"]["edges"]) == 100


async def test_long_answers_take_turns() -> None:
    """However many there are, a round of the loop is as long as one turn: a claim waits no longer for ten of them."""
    data = Data([], loads=False)
    rounds = Rounds(data)
    # A first turn is had at once; it is each one's second that others are asked to wait for.
    tasks = [await _begin(ALL_EVENTS, data) for _ in range(10)]
    for task in tasks:
        await task

    counted = rounds.stop()

    assert sum(counted) == 10 * (1 + 1 + 100 * 7)
    assert max(counted[1:]) <= FIELDS_PER_TURN + 7
    assert len(counted) >= 10


async def test_a_deadline_ends_what_only_computes() -> None:
    data = Data([], loads=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await cast("Any", _executor(ALL_EVENTS, {}, data, Context(None)).execute_operation())

    assert data.fields < FIELDS_PER_TURN + 7


async def test_what_a_page_loads_is_loaded_together_however_many_turns_it_takes() -> None:
    text = "{ pools(first: 100) { edges { cursor node { id name status kind createdAt stock { total available } } } } }"
    data = Data([], loads=True)
    context = Context(VIEWER)
    executed = cast("Any", _executor(text, {}, data, context).execute_operation())

    result = await executed

    assert result.errors is None
    assert data.fields == 2 + 100 * 10
    # The connection and its edges' nodes, and the stock of all of these.
    assert data.batches == [1, 100, 100]


ATTACK = """
{ wallet { entries(first: 100) { edges { node { member { wallet { entries(first: 100) { edges { node {
  id amount reason reference expiresAt createdAt balanceAfter member { id wallet { id version points member { id } } }
} } } } } } } } } }
"""


async def test_half_a_kilobyte_does_not_ask_for_megabytes(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])

    answered = await shop.post(ATTACK, key=token)

    assert len(ATTACK) < 431
    assert answered["errors"] == [
        {
            "message": "The operation asks for up to 160503 fields; at most 50000 are answered.",
            "extensions": {
                "code": "COST_LIMIT_EXCEEDED",
                "cost": {"nodes": 10_101, "nodesMax": 20_000, "fields": 160_503, "fieldsMax": 50_000},
            },
        }
    ]


@pytest.fixture(scope="module")
def terse_api(worker_database: str) -> Iterator[Api]:
    """An API process whose answers are short."""
    with run_api(worker_database, FLASH_ANSWER_BYTES_MAX="65536") as running:
        yield running


TOO_LARGE = "The answer would be larger than 65536 bytes; ask for less at a time."
SCHEMA_NAMES = "{ __schema { types { name description fields { name description } } } }"


async def test_an_answer_is_so_large_at_most_over_every_transport(shop: Shop, terse_api: Api) -> None:
    url = f"{terse_api.url}/graphql"
    by_http = await shop.post(SCHEMA_NAMES, url=url)
    async with streaming(shop, shop.admin, SCHEMA_NAMES, url=url) as events:
        _, by_event = await events.next()
    async with joined(url.replace("http", "ws"), shop.admin) as socket:
        await socket.subscribe(SCHEMA_NAMES)
        by_socket = await socket.receive()
    small = await shop.post("{ viewer { role } }", url=url)

    expected = [{"message": TOO_LARGE, "extensions": {"code": "ANSWER_TOO_LARGE"}}]
    assert by_http == by_event == {"errors": expected}
    assert (by_socket["type"], by_socket["payload"]) == ("error", expected)
    assert small["data"] == {"viewer": {"role": "ADMIN"}}


async def test_a_mutation_whose_answer_is_too_large_was_carried_out_and_says_so(shop: Shop, terse_api: Api) -> None:
    pool = await shop.pool(codes=0, active=False, name="n" * 200)
    names = " ".join(f"n{number}: name" for number in range(5))
    document = (
        "mutation ($id: ID!) { generateCodes(input: { poolId: $id, count: 100 }) { ... on GenerateCodesSuccess { batch "
        f"{{ pool {{ codes(first: 100) {{ edges {{ node {{ pool {{ {names} }} }} }} }} }} }} }} }} }}"
    )

    answered = await shop.post(document, {"id": pool["id"]}, url=f"{terse_api.url}/graphql")
    stock = await shop.data("query ($id: ID!) { pool(id: $id) { stock { total } } }", {"id": pool["id"]})

    assert answered == {
        "errors": [{"message": f"{TOO_LARGE} What it asked for was done.", "extensions": {"code": "ANSWER_TOO_LARGE"}}]
    }
    assert stock["pool"]["stock"]["total"] == 100


def test_nothing_more_is_completed_of_an_answer_that_is_too_large() -> None:
    """A field of a few kilobytes in each of many rows would fill the memory before anybody saw how large it is."""
    data = Data([], loads=False)
    executor = _executor(ALL_EVENTS, {}, data, Context(None, answer_bytes_max=200))

    assert not asyncio.iscoroutine(executor.execute_operation())
    assert executor.is_too_large
    assert data.fields < 100


LISTS_IN_LISTS: Any = [[[[]] * 230] * 200] * 7
CHECK = """
query ($codes: [String!]!) {
  checkCodes(input: { codes: $codes, orderId: "x", orderAmount: { amountMinor: 1, currency: "USD" } }) { __typename }
}
"""


async def test_a_megabyte_of_lists_is_refused_before_it_is_read(shop: Shop) -> None:
    body = json.dumps({"query": CHECK, "variables": {"codes": LISTS_IN_LISTS}}, separators=(",", ":")).encode()
    response = await shop.http.post(
        shop.url,
        content=body,
        headers={"authorization": f"Bearer {shop.admin}", "content-type": "application/json"},
    )

    assert 900_000 < len(body) < 1_048_576
    assert response.status_code == 400
    assert response.json()["errors"] == [
        {
            "message": "A request holds at most 20000 lists and objects.",
            "extensions": {"code": "COST_LIMIT_EXCEEDED"},
        }
    ]


async def test_lists_in_variables_are_counted_together_over_sockets_too(shop: Shop) -> None:
    async with joined(shop.url.replace("http", "ws"), shop.admin) as socket:
        await socket.subscribe(CHECK, codes=[[[]] * 200] * 150)
        refused = await socket.receive()

    assert refused["payload"] == [
        {
            "message": "The variables hold more than 20000 lists and objects.",
            "extensions": {"code": "COST_LIMIT_EXCEEDED"},
        }
    ]


def test_variables_are_counted_in_few_steps() -> None:
    profile = cProfile.Profile()
    with pytest.raises(TooCostlyError):
        profile.runcall(count_values, {"codes": LISTS_IN_LISTS})

    assert count_values({"a": [1, 2, {"b": [3]}], "c": None}) == 2 + 3 + 1 + 1
    assert pstats.Stats(profile).total_calls < 100_000  # type: ignore[attr-defined]


async def test_what_tells_of_the_schema_alone_is_executed_once() -> None:
    documents = Documents(LIMITS)
    two = 'query A { __schema { queryType { name } } } query B { __type(name: "Pool") { name } }'
    named = "query ($name: String!) { __type(name: $name) { name } }"

    async def ask(text: str, operation: str | None = None, **variables: Any) -> bytes:
        asked = Asked(text, operation, variables)
        judged = await documents.judged(asked)
        return await answer(judged, chosen(judged, asked), asked, None, LIMITS)

    first, again, other = await ask(two, "A"), await ask(two, "A"), await ask(two, "B")
    pool, code = [await ask(named, name=name) for name in ("Pool", "Code")]

    assert first is again
    assert json.loads(first)["data"] == {"__schema": {"queryType": {"name": "Query"}}}
    assert json.loads(other)["data"] == {"__type": {"name": "Pool"}}
    assert [json.loads(each)["data"]["__type"]["name"] for each in (pool, code)] == ["Pool", "Code"]


async def test_who_may_not_read_the_schema_is_refused_although_it_was_told_to_others(
    shop: Shop, worker_database: str
) -> None:
    document = "{ __schema { queryType { name } } }"
    token = await shop.token((await shop.member())["id"])
    with run_api(worker_database, FLASH_ENV="production") as production:
        url = f"{production.url}/graphql"
        told = await shop.post(document, url=url)
        refused = await shop.post(document, url=url, key=token)

    assert told["data"] == {"__schema": {"queryType": {"name": "Query"}}}
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]


async def test_long_documents_are_judged_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def judge(text: str, limits: Settings) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return judge_document(text, limits)

    monkeypatch.setattr(graphql_documents, "judge_document", judge)
    documents = Documents(LIMITS)
    for length in (1_000, 1_001):
        await documents.judged(Asked("{ viewer { role } }".ljust(length), None, {}))

    assert threads == [True, False]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{ viewer { role } }", 2),
        ("{ viewer { role merchant { id name } } again: viewer { role } }", 7),
        ("{ pools(first: 3) { edges { cursor node { id name } } pageInfo { endCursor } } }", 2 + 2 + 3 * 4),
        ("{ pools(first: 3) { pageInfo { endCursor } edges { cursor } edges { node { id } } } }", 1 + 2 + 2 + 3 * 3),
        ("query ($n: Int) { pools(first: $n) { edges { cursor } pageInfo { endCursor } } }", 1 + 3 + 7),
        ("{ pools(first: 2) { edges { node { codes(first: 5) { edges { cursor } } } } } }", 2 + 2 * (1 + 2 + 5)),
        ("{ pools(first: 2) { edges { node { allowedTransitions } } } }", 2 + 2 * (1 + 11)),
        ("{ integrityReport { checks { name ok } } }", 1 + 1 + 10 * 2),
        ("{ a: __typename ...F ...F } fragment F on Query { b: __typename }", 2),
    ],
)
def test_fields_are_counted_for_each_row(text: str, fields: int) -> None:
    judged = judge_document(text, LIMITS)

    assert judged.errors == []
    assert chosen(judged, Asked(text, None, {})).cost.size({"n": 7}).fields == fields


def test_an_alias_is_short() -> None:
    def refusals(length: int) -> list[str]:
        return [error.message for error in judge_document(f"{{ {'a' * length}: __typename }}", LIMITS).errors]

    assert refusals(200) == []
    assert refusals(201) == ["An alias has at most 200 characters."]
