"""Members: a proven address is one member's, however many enrol it at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from app.stress.operations import UNSEEN
from app.stress.things import Story, becomes, is_
from app.stress.verb import Asked, Call, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

ENROL: Final = mutation(
    "enrollMember",
    "EnrollMemberInput",
    "... on EnrollMemberSuccess { member { id } } ... on MemberAlreadyExists { existing { id } }",
)


def _ask_enrol(world: "World") -> Asked:
    return {"email": f"e-{world.key()}@example.com", "emailVerified": True, "source": "STORE"}, {}


def _enrolled(call: Call) -> Sequence[Story]:
    member = call.answer["member"]["id"] if "member" in call.answer else UNSEEN
    return (((f"member:{call.input['email']}", becomes(None, member)),),)


def _exists(call: Call) -> Sequence[Story]:
    """One that was never told of is whichever was found first."""
    name, existing = f"member:{call.input['email']}", call.answer["existing"]["id"]
    found: Story = ((name, is_(existing)),)
    return (found, ((name, becomes(UNSEEN, existing)),))


VERBS: Final = (
    Verb("enrollMember", ENROL, _ask_enrol, {"EnrollMemberSuccess": _enrolled, "MemberAlreadyExists": _exists},
         repeats=True),
)  # fmt: skip
