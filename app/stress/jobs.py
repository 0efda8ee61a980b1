"""Jobs: codes of a pool are revoked, or it is filled, at a time that nobody is told; a job may be called off before.

A world's pools are small, so that each job is one batch: it was carried out whole, or not at all. How many of the codes
that it means are in stock by then, or somebody's that nobody was told of, is judged by bounds: by how many it says it
revoked, and by what the stock is.
"""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from app.stress.claims import holds, key_used
from app.stress.operations import PASSED, READ, Answer, Operation
from app.stress.redemptions import is_set_aside, wallet_changes
from app.stress.things import Code, Leads, Move, Stock, Story, Then, every, forgets, is_, stocked, where
from app.stress.verb import Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

OPEN: Final = frozenset({"QUEUED", "RUNNING", "WAITING"})


class Job(NamedTuple):
    """What a job is to do and how it ended; OPEN is one that hasn't.

    Of the codes that it means so many were in stock, and so many somebody's that nobody was ever told of. It has spared
    so many that are allocated: of those that somebody was told of, and of what holds have set aside.
    """

    status: str
    total: int
    in_stock: int = 0
    unseen: int = 0
    done: int = 0
    spared: int = 0

    def shown(self, told: dict[str, Any]) -> bool:
        """Whether this is what was told of it."""
        if self.status == "OPEN":
            return told["status"] in OPEN and (told["total"], told["done"], told["failed"]) == (self.total, 0, 0)
        failed = self.total - self.done if self.status == "DONE" else 0
        return bool(
            (told["status"], told["total"], told["done"], told["failed"])
            == (self.status, self.total, self.done, failed)
        )  # fmt: skip


JOB: Final = "job { id status total done failed }"
REVOKE: Final = mutation(
    "revokeCodes", "RevokeCodesInput",
    f"... on RevokeCodesSuccess {{ replayed {JOB} }} ... on CountDiffers {{ count }}",
)  # fmt: skip
FILL: Final = mutation(
    "fillPool", "FillPoolInput", f"... on FillPoolSuccess {{ replayed {JOB} }} ... on PoolNotEditable {{ status }}"
)
CANCEL: Final = f"""
mutation ($jobId: ID!) {{
  answer: cancelJob(jobId: $jobId) {{ __typename ... on CancelJobSuccess {{ {JOB} }} ... on Refusal {{ message }} }}
}}
"""
READ_JOB: Final = """
query ($id: ID!) { answer: node(id: $id) { ... on BulkJob { id status total done failed } } }
"""


def _name(call: Call) -> str:
    """Return the name of a job: its key, which whoever asks for it knows."""
    return f"job:{call.about.get('key') or call.input['idempotencyKey']}"


def _ask_revoke(world: "World") -> Asked:
    pool = world.rolls.choice(world.pools)
    state = world.rolls.choice(["ALLOCATED", "ALLOCATED", "AVAILABLE", None])
    asked = {"poolId": pool, "reason": "leaked", "state": state, "idempotencyKey": world.key()}
    # A pool that falls back to another never gets codes: that it is empty stays so.
    recycle = pool not in world.facts["fallbacks"] and world.rolls.random() < 0.6
    return {**asked, "expectedCount": world.rolls.choice([100, 100, 100, 1]), "recycle": recycle}, {}


def _matching(call: Call, stock: Stock) -> tuple[int, int]:
    """Return how many codes match: in stock, and of somebody."""
    state = call.input["state"]
    return stock.available if state != "ALLOCATED" else 0, stock.allocated if state != "AVAILABLE" else 0


def _revoking(call: Call) -> Sequence[Story]:
    """Those that match now are meant, and no others."""
    if call.answer["replayed"]:
        return _told(call)
    key, pool, name = call.input["idempotencyKey"], call.input["poolId"], _name(call)
    told = call.answer["job"]["total"] if "job" in call.answer else None

    def count(stock: Stock) -> Iterable[Then]:
        in_stock, owned = _matching(call, stock)
        if told in {None, in_stock + owned} and in_stock + owned <= call.input["expectedCount"]:
            yield Then(stock, ((name, _begins(Job("OPEN", in_stock + owned, in_stock, owned))),))

    def mark(code_id: str, code: Code) -> Iterable[Then]:
        if not _lives(code):
            yield Then(code, ())
        else:
            seen: Move = lambda job: (job._replace(unseen=job.unseen - 1),) if job.unseen else ()  # noqa: E731
            yield Then(code, ((f"meant:{key}/{code_id}", lambda _: ("meant",)), (name, seen)))

    codes = call.facts["codes"].get(pool, ()) if call.input["state"] != "AVAILABLE" else ()
    marked = tuple(
        (f"code:{code}", Leads(partial(mark, code), [f"meant:{key}/{code}", name])) for code in codes
    )  # fmt: skip
    return (((f"stock:{pool}", Leads(count, [name])), *marked),)


def _lives(code: Code) -> bool:
    """Whether it is somebody's, and not spent; an order may hold it."""
    return code.owner is not None and code.order is None and not code.revoked and not code.expired


def _begins(job: Job) -> Move:
    return lambda before: (job,) if before is None else ()


def _told(call: Call) -> Sequence[Story]:
    """The job is as it was told."""
    told = call.answer.get("job")
    return (((_name(call), where(lambda job: job is not None and (told is None or job.shown(told)))),),)


def _differs(call: Call) -> Sequence[Story]:
    count = call.answer["count"]
    told = where(lambda stock: sum(_matching(call, stock)) == count > call.input["expectedCount"])
    return (((f"stock:{call.input['poolId']}", told),),)


def _ask_fill(world: "World") -> Asked:
    """Ask for a pool that is paused, if there is one: others wait."""
    pools = [pool for pool in world.pools if pool not in world.facts["fallbacks"]]
    paused = [pool for pool in pools if pool in world.paused]
    wanted = world.rolls.choice([2, 3, 5])
    return {"poolId": world.rolls.choice(paused or pools), "available": wanted, "idempotencyKey": world.key()}, {}


def _missing(call: Call, stock: Stock) -> int:
    missing: int = max(call.input["available"] - stock.available, 0)
    return missing


def _filling(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return _told(call)
    name = _name(call)

    def count(stock: Stock) -> Iterable[Then]:
        # What a replay told of it may be what was missing later, when it was done.
        is_fresh = "job" in call.answer and not call.answer.get("was_replayed")
        if not is_fresh or call.answer["job"]["total"] == _missing(call, stock):
            yield Then(stock, ((name, _begins(Job("OPEN", _missing(call, stock)))),))

    return (((f"stock:{call.input['poolId']}", Leads(count, [name])),),)


def _never_filled(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] == "ARCHIVED")
    return (((f"pool:{call.input['poolId']}", told),),)


def _carried_out(call: Call) -> Sequence[Story]:
    """A worker does the job, unless it was called off before."""
    return _filled(call) if "available" in call.input else _revoked(call)


def _filled(call: Call) -> Sequence[Story]:
    """What is missing then is made; of a pool that issues codes nothing may be missing."""
    pool, name = call.input["poolId"], _name(call)

    def fill(stock: Stock) -> Iterable[Then]:
        more = _missing(call, stock)
        takes = where(lambda found: not more or found.status in {"DRAFT", "PAUSED"})
        end: Move = lambda job: (Job("DONE", more, done=more),) if _is_open(job) else ()  # noqa: E731
        yield Then(stock._replace(available=stock.available + more), ((f"pool:{pool}", takes), (name, end)))

    return (((f"stock:{pool}", Leads(fill, [f"pool:{pool}", name])),),)


def _is_open(job: Job | None) -> bool:
    return job is not None and job.status == "OPEN"


def _revoked(call: Call) -> Sequence[Story]:
    """Whatever is meant and can be revoked then is, and fresh codes take the places of all that are."""
    key, pool, name = call.input["idempotencyKey"], call.input["poolId"], _name(call)
    members = [f"wallet:{member}" for member in call.facts["members"]]
    story: list[tuple[str, Move]] = [(name, where(_is_open))]
    for code in call.facts["codes"].get(pool, ()):
        touches = [f"meant:{key}/{code}", f"stock:{pool}", f"code:{code}", name, *members]
        story.append((f"code:{code}", Leads(partial(_takes, call, code), touches)))
    aside = call.facts["members"] if _sets_aside(call) else ()
    story += [(holds(pool, member), Leads(partial(_leaves, name), [name])) for member in aside]

    def rest(job: Job) -> Iterable[Then]:
        """Any number of the others may have gone meanwhile."""
        for in_stock, owned in itertools.product(*(range(most + 1) for most in _most(call, job))):
            if in_stock + owned > job.in_stock + job.unseen:
                continue
            done = job.done + in_stock + owned
            gone = _gone(in_stock, owned, spared=job.spared)
            fresh = stocked(available=done if call.input["recycle"] else 0)
            # Nobody knows whose they were.
            unknown = tuple((wallet, forgets) for wallet in members) if owned else ()
            yield Then(Job("DONE", job.total, done=done), ((f"stock:{pool}", every(gone, fresh)), *unknown))

    return ((*story, (name, Leads(rest, [f"stock:{pool}", *members]))),)


def _leaves(name: str, codes: tuple[str, ...]) -> Iterable[Then]:
    """What holds of a member have set aside isn't revoked."""
    aside = sum(map(is_set_aside, codes))
    yield Then(codes, ((name, lambda job: (job._replace(spared=job.spared + aside),)),))


def _gone(in_stock: int, owned: int, *, spared: int) -> Move:
    """Codes are revoked that were in stock, and of somebody; so many that are allocated aren't."""

    def move(stock: Stock) -> Iterable[Stock]:
        if owned + spared <= stock.allocated:
            yield from stocked(available=-in_stock, allocated=-owned, revoked=in_stock + owned)(stock)

    return move


def _most(call: Call, job: Job) -> tuple[int, int]:
    """Return how many can go that are in stock, and how many of somebody that nobody was told of.

    What was in stock may have become somebody's, and what a hold had set aside is in stock again when that ends.
    """
    if call.input["state"] is not None:
        return job.in_stock, job.unseen
    set_aside = job.unseen if _sets_aside(call) else 0
    return job.in_stock + set_aside, job.unseen + job.in_stock


def _sets_aside(call: Call) -> bool:
    """Whether holds may have codes of the pool, which are allocated, but nobody's yet."""
    return call.input["poolId"] in call.facts["backing"]


def _takes(call: Call, code_id: str, code: Code) -> Iterable[Then]:
    """A code that is meant goes, if it can; one that was nobody's then may be one of those in stock or set aside."""
    key, pool, name = call.input["idempotencyKey"], call.input["poolId"], _name(call)
    if code.owner is None or not _lives(code):
        yield Then(code, ())
        return
    spares: Move = lambda job: (job._replace(spared=job.spared + 1),)  # noqa: E731
    if code.hold is not None:
        yield Then(code, ((name, spares),))
        return
    meant = f"meant:{key}/{code_id}"
    yield Then(code, ((meant, is_(None)), (name, spares)))
    goes: Story = (
        (f"stock:{pool}", stocked(allocated=-1, revoked=1)), *wallet_changes(code.owner),
    )  # fmt: skip
    gone = code._replace(revoked=True)
    if call.input["state"] != "AVAILABLE":
        yield Then(gone, ((meant, is_("meant")), *goes, (name, lambda job: (job._replace(done=job.done + 1),))))
        if _sets_aside(call):
            yield Then(gone, ((meant, is_(None)), *goes, (name, _is_one_of("unseen"))))
    if call.input["state"] is None:
        yield Then(gone, ((meant, is_(None)), *goes, (name, _is_one_of("in_stock"))))


def _is_one_of(others: str) -> Move:
    """A code that goes was one of those that a job only counts."""

    def counts(job: Job) -> Iterable[Job]:
        left = getattr(job, others)
        if left:
            yield job._replace(done=job.done + 1, **{others: left - 1})

    return counts


def _ask_job(world: "World") -> Asked | None:
    if not world.jobs:
        return None
    job = world.rolls.choice(world.jobs[-3:])
    return {"id": job["id"]}, {"key": job["key"]}


def _ask_cancel(world: "World") -> Asked | None:
    asked = _ask_job(world)
    return None if asked is None else ({"jobId": asked[0]["id"]}, asked[1])


def _cancelled(call: Call) -> Sequence[Story]:
    """It goes no further; one that has ended is as it was."""
    told = call.answer.get("job")

    def cancel(job: Job | None) -> Iterable[Job]:
        if job is None:
            return
        after = job._replace(status="CANCELLED") if job.status == "OPEN" else job
        if told is None or after.shown(told):
            yield after

    return (((_name(call), cancel),),)


def _saw_job(call: Call) -> Sequence[Story]:
    return (((_name(call), where(lambda job: job is not None and job.shown(call.answer))),),)


def _learn_job(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_job(answer["job"], operation.input["idempotencyKey"])


def _learn_end(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_job(answer.get("job", answer), operation.about["key"])


def _notes_of_cancel(_: Operation, answer: Answer) -> Iterable[str]:
    if "job" in answer:
        yield f"cancelJob: {answer['job']['status']}"


#: A worker does a job: nobody asks for that, or is told when.
CARRIED_OUT: Final = Verb("carriedOut", "", lambda _: None, {PASSED: _carried_out}, weight=0)
VERBS: Final = (
    CARRIED_OUT,
    Verb("revokeCodes", REVOKE, _ask_revoke, {
        "RevokeCodesSuccess": _revoking, "CountDiffers": _differs, "IdempotencyKeyReused": key_used("job:"),
    }, _learn_job, later=CARRIED_OUT.name, repeats=True, weight=0),
    Verb("fillPool", FILL, _ask_fill, {
        "FillPoolSuccess": _filling, "PoolNotEditable": _never_filled, "IdempotencyKeyReused": key_used("job:"),
    }, _learn_job, later=CARRIED_OUT.name, repeats=True, weight=0),
    Verb("cancelJob", CANCEL, _ask_cancel, {"CancelJobSuccess": _cancelled, "NotFound": lambda _: ()}, _learn_end,
         _notes_of_cancel, weight=0),
    Verb("readJob", READ_JOB, _ask_job, {READ: _saw_job}, _learn_end, reads=True, weight=0),
)  # fmt: skip
