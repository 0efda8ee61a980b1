"""Invites: a member sends as many as its quota has, each address once, and each brings one member."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from app.stress.operations import UNSEEN, Answer, Operation
from app.stress.people import JOINED, PEOPLE, Edge, People, paid_for
from app.stress.things import Move, Story, becomes, changed, is_, where
from app.stress.verb import Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

INVITE: Final = mutation(
    "inviteMembers",
    "InviteMembersInput",
    """... on InviteMembersSuccess { invites { id token } skipped { email reason } quota { remainingLifetime } }
    ... on InviteQuotaExceeded { requested quota { remainingLifetime } }""",
)


def _ask_invite(world: "World") -> Asked | None:
    if world.facts["quota"] is None:
        return None
    count = world.rolls.choice([1, 2, 3])
    emails = [f"h-{world.key()}@example.com" for _ in range(count)]
    return {"emails": emails}, {"as": world.rolls.choice(list(world.tokens))}


def _invited(call: Call) -> Sequence[Story]:
    """Addresses that were invited before are skipped, and cost nothing."""
    member, emails = call.about["as"], call.input["emails"]
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
        fresh: Story = tuple((f"address:{email}", _sent_to(invite)) for email, invite in zip(new, made, strict=True))
        pending: Story = tuple((f"invite:{invite}", becomes(None, "PENDING")) for invite in made if invite != UNSEEN)
        stories.append(((f"quota:{member}", used), *known, *fresh, *pending))
    return stories


def _sent_to(invite: str) -> Move:
    """An address has an invite.

    Whoever joins while a batch is sent may be invited once more: the insert waits for the conversion, and can't see its
    member. Such an invite never converts.
    """
    return lambda found: (invite,) if found is None else (JOINED,) if found == JOINED else ()


def _learn_invites(world: "World", operation: Operation, answer: Answer) -> None:
    skipped = {each["email"] for each in answer["skipped"]}
    new = [email for email in operation.input["emails"] if email not in skipped]
    for made, email in zip(answer["invites"], new, strict=True):
        sender = operation.about["as"]
        world.invites.append({"id": made["id"], "token": made["token"], "email": email, "sender": sender})


def _subsets(emails: list[str]) -> list[set[str]]:
    return [{email for place, email in enumerate(emails) if bits >> place & 1} for bits in range(1 << len(emails))]


def _used(count: int, quota: int, told: int | None) -> Move:
    def move(used: int) -> Sequence[int]:
        after = used + count
        return (after,) if after <= quota and told in {None, quota - after} else ()

    return move


def _over_quota(call: Call) -> Sequence[Story]:
    left = call.answer["quota"]["remainingLifetime"]
    # Two records that are one member may have sent more.
    full = where(lambda used: max(call.facts["quota"] - used, 0) == left < call.answer["requested"])
    return (((f"quota:{call.about['as']}", full),),)


CANCEL: Final = mutation("cancelInvite", "CancelInviteInput", "... on InviteNotCancellable { status }")


def _ask_cancel(world: "World") -> Asked | None:
    if not world.invites:
        return None
    invite = world.rolls.choice(world.invites)
    return {"inviteId": invite["id"]}, invite


def _cancelled(call: Call) -> Sequence[Story]:
    invite, email = call.about["id"], call.about["email"]
    ended = becomes("PENDING", "CANCELLED")
    return [((f"invite:{invite}", ended), (f"address:{email}", left)) for left in (becomes(invite, None), is_(JOINED))]


def _not_cancellable(call: Call) -> Sequence[Story]:
    ended = where(lambda status: status == call.answer["status"] != "PENDING")
    return (((f"invite:{call.about['id']}", ended),),)


ACCEPT: Final = mutation(
    "acceptInvite",
    "AcceptInviteInput",
    """... on AcceptInviteSuccess {
      member { id wallet { points version } } referral { referrerEntry { balanceAfter } refereeEntry { balanceAfter } }
    }
    ... on InviteNotUsable { status } ... on MemberAlreadyExists { existing { id } }""",
)


def _ask_accept(world: "World") -> Asked | None:
    if not world.invites:
        return None
    invite = world.rolls.choice(world.invites)
    return {"token": invite["token"], "email": invite["email"], "emailVerified": True}, invite


def _accepted(call: Call) -> Sequence[Story]:
    """Joining converts: the invite is used up, and both members have points, all at once."""
    invite, email, sender = (call.about[name] for name in ("id", "email", "sender"))
    for_sender, for_member = call.facts["referral"]
    used: Story = ((f"invite:{invite}", becomes("PENDING", "CONVERTED")), (f"address:{email}", becomes(invite, JOINED)))
    if call.facts.get("address") is not None:
        used = (*used, (PEOPLE, _brought(invite, sender, call.answer.get("member", {}).get("id", UNSEEN))))
    name = paid_for(invite)
    if "member" not in call.answer:
        return ((*used, (f"wallet:{sender}", changed(for_sender, of=name))),)
    entries = call.answer["referral"]
    if entries is None:
        # A mailbox that was paid for before somebody was erased.
        is_remembered = where(lambda people: bool(people.erased))
        return ((*used[:2], (PEOPLE, is_remembered)),) if call.facts.get("address") is not None else ()
    earned = changed(for_sender, points=entries["referrerEntry"]["balanceAfter"], of=name)
    first = changed(for_member, points=entries["refereeEntry"]["balanceAfter"], of=name)
    return ((*used, (f"wallet:{sender}", earned), (f"wallet:{call.answer['member']['id']}", first)),)


def _brought(invite: str, referrer: str, referee: str) -> Move:
    """Somebody has brought somebody: one person may come to be both."""

    def move(people: People) -> Sequence[People]:
        return (people._replace(edges=(*people.edges, Edge(invite, referrer, referee))),)

    return move


def _learn_member(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_member(answer["member"]["id"], operation.about["sender"])


def _not_usable(call: Call) -> Sequence[Story]:
    ended = where(lambda status: status == call.answer["status"] != "PENDING")
    if call.answer["status"] is None and call.facts.get("address") is not None:
        # Nobody knows the token any more by which somebody came that was erased.
        came = where(lambda people: people.was_brought_by(call.about["id"]) in people.erased)
        return (((PEOPLE, came),),)
    return (((f"invite:{call.about['id']}", ended),),)


def _joined(call: Call) -> Sequence[Story]:
    return (((f"address:{call.about['email']}", is_(JOINED)),),)


VERBS: Final = (
    Verb("inviteMembers", INVITE, _ask_invite,
         {"InviteMembersSuccess": _invited, "InviteQuotaExceeded": _over_quota}, _learn_invites,
         repeats=True, as_member=True, weight=2),
    Verb("acceptInvite", ACCEPT, _ask_accept,
         {"AcceptInviteSuccess": _accepted, "InviteNotUsable": _not_usable, "MemberAlreadyExists": _joined},
         _learn_member, weight=2),
    Verb("cancelInvite", CANCEL, _ask_cancel,
         {"CancelInviteSuccess": _cancelled, "InviteNotCancellable": _not_cancellable}),
)  # fmt: skip
