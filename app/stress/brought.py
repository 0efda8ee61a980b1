"""Codes that come otherwise: imported, issued for print, or in the place of one that is dead."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from app.stress.claims import EMPTY, OPEN, allocated, holds, key_used, one_more
from app.stress.operations import UNSEEN, Answer, Operation
from app.stress.pools import closed, not_editable
from app.stress.redemptions import ended_as, wallet_changes
from app.stress.things import BEARER, Code, Move, Story, becomes, stocked, where
from app.stress.verb import Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

TEXTS: Final = "batch { id size texts(first: 10) { edges { node { id text masked } } } }"
IMPORT: Final = mutation(
    "importCodes",
    "ImportCodesInput",
    f"""... on ImportCodesSuccess {{ replayed {TEXTS} }} ... on PoolNotEditable {{ status }}
    ... on InvalidInput {{ problems {{ path }} }}""",
)


def _ask_import(world: "World") -> Asked:
    """Import stock, one or two codes in circulation, or one of a member, into a pool that is paused if there is one."""
    key, roll = world.key(), world.rolls.random()
    texts = [f"IMPORTED-{key}-{number}" for number in range(world.rolls.choice([1, 2]))]
    asked = {"codes": [{"text": text} for text in texts], "inCirculation": roll < 0.4, "idempotencyKey": key}
    # A pool that falls back to another never gets codes: that it is empty stays so.
    pools = [pool for pool in world.pools if pool not in world.facts["fallbacks"]]
    if roll < 0.4:
        pools = world.facts["transferable"]
    elif roll < 0.7:
        pools = [pool for pool in pools if pool not in world.facts["backing"]]
        asked["codes"] = [{"text": texts[0], "memberId": world.member()}]
    paused = [pool for pool in pools if pool in world.paused]
    return {"poolId": world.rolls.choice(paused or pools), **asked}, {}


def _listed(answer: Answer) -> list[dict[str, Any]]:
    """Return the bearer codes of a batch, as far as they were told."""
    return [edge["node"] for edge in answer["batch"]["texts"]["edges"]] if "batch" in answer else []


def _batch(answer: Answer) -> Any:
    return (answer["batch"]["id"], answer["batch"]["size"]) if "batch" in answer else UNSEEN


def _once(call: Call, kind: str) -> tuple[str, Move]:
    """A key is a batch; a repeat is told of the same one."""
    name, batch = f"key:{kind}/{call.input['idempotencyKey']}", _batch(call.answer)
    if call.answer["replayed"]:
        return name, where(lambda found: found in {UNSEEN, batch})
    return name, becomes(None, batch)


def _bearers(answer: Answer) -> Story:
    return tuple((f"code:{code['id']}", becomes(Code(), Code(BEARER))) for code in _listed(answer))


def _imported(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return ((_once(call, "import"),),)
    pool, rows = call.input["poolId"], call.input["codes"]
    begun: Story = (_once(call, "import"), (f"pool:{pool}", closed))
    member = rows[0].get("memberId")
    if member is None and not call.input["inCirculation"]:
        return ((*begun, (f"stock:{pool}", stocked(available=len(rows)))),)
    begun = (*begun, (f"stock:{pool}", stocked(allocated=len(rows))))
    if member is None:
        return ((*begun, *_bearers(call.answer)),)
    return [
        (
            *begun, (holds(pool, member), one_more(code, call.facts["limits"][pool])), *wallet_changes(member),
            *(() if code == UNSEEN else ((f"code:{code}", becomes(Code(), Code(member))),)),
        )
        for code in (*call.facts["codes"].get(pool, ()), UNSEEN)
    ]  # fmt: skip


def _beyond_limit(call: Call) -> Sequence[Story]:
    """The member has as many codes of the pool as it may."""
    pool, member = call.input["poolId"], call.input["codes"][0].get("memberId")
    if [".".join(each["path"]) for each in call.answer["problems"]] != ["codes.0"] or member is None:
        return ()
    limit = call.facts["limits"][pool]
    return (((f"pool:{pool}", closed), (holds(pool, member), where(lambda codes: len(codes) >= limit))),)


def _learn_bearers(world: "World", operation: Operation, answer: Answer) -> None:
    for code in _listed(answer):
        world.learn_code(code, operation.input["poolId"], BEARER)


ISSUE: Final = mutation(
    "issueCodes",
    "IssueCodesInput",
    f"... on IssueCodesSuccess {{ replayed {TEXTS} }} ... on PoolNotActive {{ status }}",
)


def _ask_issue(world: "World") -> Asked:
    asked = {"count": world.rolls.choice([1, 2]), "reason": "print", "idempotencyKey": world.key()}
    return {"poolId": world.facts["transferable"][0], **asked}, {}


def _issued(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return ((_once(call, "issue"),),)
    pool, count = call.input["poolId"], call.input["count"]
    taken = (f"stock:{pool}", stocked(available=-count, allocated=count))
    return ((_once(call, "issue"), (f"pool:{pool}", OPEN), taken, *_bearers(call.answer)),)


def _too_few(call: Call) -> Sequence[Story]:
    pool, count = call.input["poolId"], call.input["count"]
    return (((f"pool:{pool}", OPEN), (f"stock:{pool}", where(lambda stock: stock.available < count))),)


REISSUE: Final = mutation(
    "reissueCode",
    "ReissueCodeInput",
    """... on ReissueCodeSuccess { replayed code { id } } ... on PoolNotActive { status }
    ... on CodeNotReissuable { state }""",
)
#: Also before the pool begins.
_ISSUES: Final = where(lambda pool: pool.status == "ACTIVE" or pool.is_closing)


def _ask_reissue(world: "World") -> Asked | None:
    """Ask for one that was revoked, or now and then for any."""
    codes = [code for code in world.codes.values() if code.pool not in world.facts["backing"]]
    dead = [code for code in codes if code.id in world.dead]
    if not codes:
        return None
    code = world.rolls.choice(dead if dead and world.rolls.random() < 0.8 else codes)
    return {"codeId": code.id, "reason": "tried"}, {"id": code.id, "pool": code.pool, "owner": code.owner}


def _is_dead(code: Code) -> bool:
    return (code.revoked or code.expired) and code.owner != BEARER


def _reissued(call: Call) -> Sequence[Story]:
    """The fresh code has the slots of the dead one, of the pool that was asked and of the one that served it."""
    dead, pool, owner = (call.about[name] for name in ("id", "pool", "owner"))
    told = [call.answer["code"]["id"]] if "code" in call.answer else []
    if call.answer["replayed"]:
        return (((f"code:{dead}", where(lambda code: code.reissued_as in {UNSEEN, *told})),),)

    def replaced(fresh: str) -> Move:
        def move(code: Code) -> Sequence[Code]:
            fits = _is_dead(code) and code.owner == owner and code.reissued_as is None
            return (code._replace(reissued_as=fresh),) if fits else ()

        return move

    def slots(fresh: str) -> Story:
        def move(codes: tuple[str, ...]) -> Sequence[tuple[str, ...]]:
            return (tuple(fresh if code == dead else code for code in codes),)

        return tuple((holds(each, owner), move) for each in call.facts["limits"])

    return [
        (
            (f"pool:{pool}", _ISSUES), (f"code:{dead}", replaced(fresh)), *slots(fresh),
            *allocated(None if fresh == UNSEEN else fresh, pool, owner),
        )
        for fresh in told or [*call.facts["codes"].get(pool, ()), UNSEEN]
        if fresh != dead
    ]  # fmt: skip


def _not_active(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] and pool.status != "ACTIVE")
    return (((f"pool:{call.input.get('poolId') or call.about['pool']}", told),),)


def _none_left(call: Call) -> Sequence[Story]:
    dead = where(lambda code: _is_dead(code) and code.reissued_as is None)
    pool = call.about["pool"]
    return (((f"pool:{pool}", _ISSUES), (f"code:{call.about['id']}", dead), (f"stock:{pool}", EMPTY)),)


def _not_reissuable(call: Call) -> Sequence[Story]:
    """It lives, is spent, or is nobody's."""

    def told(code: Code) -> bool:
        shown = ended_as(code) or "ALLOCATED"
        return call.answer["state"] == shown and not _is_dead(code)

    return (((f"code:{call.about['id']}", where(told)),),)


VERBS: Final = (
    Verb("importCodes", IMPORT, _ask_import, {
        "ImportCodesSuccess": _imported, "PoolNotEditable": not_editable, "InvalidInput": _beyond_limit,
        "IdempotencyKeyReused": key_used("key:import/"),
    }, _learn_bearers, repeats=True, weight=2),
    Verb("issueCodes", ISSUE, _ask_issue, {
        "IssueCodesSuccess": _issued, "PoolNotActive": _not_active, "PoolExhausted": _too_few,
        "IdempotencyKeyReused": key_used("key:issue/"),
    }, _learn_bearers, repeats=True),
    Verb("reissueCode", REISSUE, _ask_reissue, {
        "ReissueCodeSuccess": _reissued, "PoolNotActive": _not_active, "PoolExhausted": _none_left,
        "CodeNotReissuable": _not_reissuable,
    }, repeats=True),
)  # fmt: skip
