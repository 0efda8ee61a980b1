"""Invites: a member sends as many as its quota has, each address once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from app.stress.operations import Answer, Operation
from app.stress.things import Move, Story, becomes, where
from app.stress.verb import UNSEEN, Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

INVITE: Final = mutation(
    "inviteMembers",
    "InviteMembersInput",
    """... on InviteMembersSuccess { invites { id maskedEmail } skipped { email reason } quota { remainingLifetime } }
    ... on InviteQuotaExceeded { requested quota { remainingLifetime } }""",
)


def _ask_invite(world: "World") -> Asked | None:
    if world.facts["quota"] is None:
        return None
    count = world.rolls.choice([1, 2, 3])
    emails = [f"h-{world.key()}@example.com" for _ in range(count)]
    return {"memberId": world.member(), "emails": emails}, {}


def _invited(call: Call) -> Sequence[Story]:
    """Addresses that were invited before are skipped, and cost nothing."""
    member, emails = call.input["memberId"], call.input["emails"]
    quota = call.facts["quota"]
    told = call.answer["quota"]["remainingLifetime"] if "quota" in call.answer else None
    stories: list[Story] = []
    skipped = {each["email"] for each in call.answer["skipped"]} if "skipped" in call.answer else None
    for old in _subsets(emails) if skipped is None else [skipped]:
        new = [email for email in emails if email not in old]
        used = _used(len(new), quota, told)
        made = [each["id"] for each in call.answer["invites"]] if "invites" in call.answer else [UNSEEN] * len(new)
        if len(made) != len(new):
            continue
        known: Story = tuple((f"address:{email}", where(lambda found: found is not None)) for email in old)
        fresh: Story = tuple(
            (f"address:{email}", becomes(None, invite)) for email, invite in zip(new, made, strict=True)
        )
        pending: Story = tuple((f"invite:{invite}", becomes(None, "PENDING")) for invite in made if invite != UNSEEN)
        stories.append(((f"quota:{member}", used), *known, *fresh, *pending))
    return stories


def _learn_invites(world: "World", operation: Operation, answer: Answer) -> None:
    skipped = {each["email"] for each in answer["skipped"]}
    new = [email for email in operation.input["emails"] if email not in skipped]
    world.invites += [{"id": made["id"], "email": email} for made, email in zip(answer["invites"], new, strict=True)]


def _subsets(emails: list[str]) -> list[set[str]]:
    return [{email for place, email in enumerate(emails) if bits >> place & 1} for bits in range(1 << len(emails))]


def _used(count: int, quota: int, told: int | None) -> Move:
    def move(used: int) -> Sequence[int]:
        after = used + count
        return (after,) if after <= quota and told in {None, quota - after} else ()

    return move


def _over_quota(call: Call) -> Sequence[Story]:
    left = call.answer["quota"]["remainingLifetime"]
    full = where(lambda used: call.facts["quota"] - used == left < call.answer["requested"])
    return (((f"quota:{call.input['memberId']}", full),),)


CANCEL: Final = mutation("cancelInvite", "CancelInviteInput", "... on InviteNotCancellable { status }")


def _ask_cancel(world: "World") -> Asked | None:
    if not world.invites:
        return None
    invite = world.rolls.choice(world.invites)
    return {"inviteId": invite["id"]}, invite


def _cancelled(call: Call) -> Sequence[Story]:
    invite, email = call.about["id"], call.about["email"]
    return (((f"invite:{invite}", becomes("PENDING", "CANCELLED")), (f"address:{email}", becomes(invite, None))),)


def _not_cancellable(call: Call) -> Sequence[Story]:
    ended = where(lambda status: status == call.answer["status"] != "PENDING")
    return (((f"invite:{call.about['id']}", ended),),)


VERBS: Final = (
    Verb("inviteMembers", INVITE, _ask_invite,
         {"InviteMembersSuccess": _invited, "InviteQuotaExceeded": _over_quota}, _learn_invites,
         repeats=True, weight=2),
    Verb("cancelInvite", CANCEL, _ask_cancel,
         {"CancelInviteSuccess": _cancelled, "InviteNotCancellable": _not_cancellable}),
)  # fmt: skip
