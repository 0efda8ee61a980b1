"""Campaigns to a segment: a job gives each member one code more, up to its limit, all at once at a time nobody is told.

A segment is all the merchant's, so a world of campaigns has a merchant of its own: all its members joined lately (NEW).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.claims import allocated, holds, key_used
from app.stress.jobs import JOB, OPEN, Job
from app.stress.operations import PASSED, UNSEEN, Answer, Operation
from app.stress.things import Leads, Move, Stock, Story, Then, where
from app.stress.verb import Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

CREATE: Final = mutation(
    "createCampaign",
    "CreateCampaignInput",
    f"... on CreateCampaignSuccess {{ replayed campaign {{ {JOB} }} }} ... on PoolNotActive {{ status }}",
)
#: Campaigns hold their pool, so that none comes that had found it open before a pause.
SENDS: Final = where(lambda pool: pool.status == "ACTIVE")
ENOUGH: Final[Callable[[int, Stock], bool]] = lambda asking, stock: stock.available >= asking  # noqa: E731
TOO_FEW: Final[Callable[[int, Stock], bool]] = lambda asking, stock: stock.available < asking  # noqa: E731


class Sending(Job):
    """A campaign's job. Whoever has all its codes of the pool is passed over, which isn't a failure."""

    __slots__ = ()

    def shown(self, told: dict[str, Any]) -> bool:
        is_status = told["status"] in OPEN if self.status == "OPEN" else told["status"] == self.status
        return is_status and (told["total"], told["done"], told["failed"]) == (self.total, self.done, 0)


def _ask(world: "World") -> Asked:
    pool = world.rolls.choice(world.pools)
    return {"name": world.name, "poolId": pool, "segment": "NEW", "idempotencyKey": world.key()}, {}


def _named(call: Call) -> str:
    return f"job:{call.input['idempotencyKey']}"


def _told_job(call: Call) -> dict[str, Any] | None:
    job: dict[str, Any] | None = call.answer["campaign"]["job"] if "campaign" in call.answer else None
    return job


def _created(call: Call) -> Sequence[Story]:
    """All members are listed, and the stock suffices for those that can have one more, or another call made it."""
    told, total = _told_job(call), len(call.facts["members"])
    if call.answer["replayed"]:
        return (((_named(call), where(lambda job: job is not None and (told is None or job.shown(told)))),),)
    if told is not None and told["total"] != total:
        return ()
    begins: Move = lambda job: (Sending("OPEN", total),) if job is None else ()  # noqa: E731
    return ((*_found(call, ENOUGH), (_named(call), begins)),)


def _too_few(call: Call) -> Sequence[Story]:
    return (_found(call, TOO_FEW),)


def _found(call: Call, holds_of: Callable[[int, Stock], bool]) -> Story:
    """The pool sends codes, and something is true of how many ask for one and of its stock."""
    pool = call.input["poolId"]
    return ((f"pool:{pool}", SENDS), *_counted(call, holds_of, call.facts["members"], 0))


def _counted(call: Call, holds_of: Callable[[int, Stock], bool], members: Sequence[str], asking: int) -> Story:
    pool = call.input["poolId"]
    if not members:
        return ((f"stock:{pool}", where(partial(holds_of, asking))),)

    def count(codes: tuple[str, ...]) -> Iterable[Then]:
        more = asking + (len(codes) < call.facts["limits"][pool])
        yield Then(codes, _counted(call, holds_of, members[1:], more))

    touches = [f"stock:{pool}", *(holds(pool, each) for each in members[1:])]
    return ((holds(pool, members[0]), Leads(count, touches)),)


def _not_active(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] != "ACTIVE")
    return (((f"pool:{call.input['poolId']}", told),),)


def _sent(call: Call) -> Sequence[Story]:
    """A worker sends each member one code more, if it can have one; nobody gets any while there are too few."""
    pool, name = call.input["poolId"], _named(call)
    codes = [*call.facts["codes"].get(pool, ()), UNSEEN]
    story: list[tuple[str, Move]] = [
        (f"pool:{pool}", SENDS), (name, where(lambda job: job is not None and job.status == "OPEN")),
    ]  # fmt: skip
    for member in call.facts["members"]:
        touches = [f"stock:{pool}", f"wallet:{member}", name, *(f"code:{code}" for code in codes if code != UNSEEN)]
        story.append((holds(pool, member), Leads(partial(_gets, call, codes, member), touches)))
    return ((*story, (name, lambda job: (job._replace(status="DONE"),))),)


def _gets(call: Call, codes: Sequence[str], member: str, has: tuple[str, ...]) -> Iterable[Then]:
    """A member gets one of the codes in stock, whichever that is; nobody is told."""
    pool = call.input["poolId"]
    if len(has) >= call.facts["limits"][pool]:
        yield Then(has, ())
        return
    counts: Move = lambda job: (job._replace(done=job.done + 1),)  # noqa: E731
    for code in codes:
        story = (*allocated(None if code == UNSEEN else code, pool, member), (_named(call), counts))
        yield Then((*has, code), story)


def _learn(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_job(answer["campaign"]["job"], operation.input["idempotencyKey"])


def _notes(_: Operation, answer: Answer) -> Iterable[str]:
    job = answer.get("campaign", {}).get("job")
    if job is not None and job["status"] == "DONE" and job["done"]:
        yield "createCampaign: its job is done"


#: A worker sends a campaign: nobody is told when.
SENT: Final = Verb("sent", "", lambda _: None, {PASSED: _sent}, weight=0)
VERBS: Final = (
    SENT,
    Verb("createCampaign", CREATE, _ask, {
        "CreateCampaignSuccess": _created, "PoolNotActive": _not_active, "PoolExhausted": _too_few,
        "IdempotencyKeyReused": key_used("job:"),
    }, _learn, _notes, later=SENT.name, repeats=True, weight=0),
)  # fmt: skip
