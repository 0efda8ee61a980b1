"""cancelInvite: an invite that nobody has accepted is taken back; it cost its quota."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refusal, Refused, mutation, not_found
from app.referrals.rows import invite_row
from app.referrals.types import Invite, InviteStatus
from app.storage.database import Tx, database
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="An invite to take back.")
class CancelInviteInput:
    invite_id: strawberry.ID = strawberry.field(description="The invite.")


@strawberry.type(description="The invite can't be accepted any more.")
class CancelInviteSuccess:
    invite: Invite = strawberry.field(description="The invite.")


@strawberry.type(description="The invite was accepted, or has ended. It stays as it is.")
class InviteNotCancellable(Refusal):
    """Only PENDING invites that nobody accepted can be cancelled."""

    status: InviteStatus = strawberry.field(description="Where it stands: PENDING if somebody accepted it.")


CancelInviteResult = Annotated[
    CancelInviteSuccess | NotFound | InviteNotCancellable,
    strawberry.union("CancelInviteResult", description="The cancelled invite, or why it stands."),
]

# Waits for whoever is accepting it. An accepted one is the referee's, too: its referrer can't take it from them.
CANCEL: Final = statement(
    NoRow,
    f"""
WITH i AS (
    UPDATE invite SET status = 'CANCELLED'
    WHERE merchant_id = :merchant_id AND id = :invite_id AND status = 'PENDING' AND accepted_at IS NULL
        AND (:member_id::uuid IS NULL OR referrer_id = :member_id)
    RETURNING id
), recorded AS (
    {event("invite.cancelled", subject="id", source="i")}
)
SELECT FROM i
""",
)


CANCEL_EACH: Final = statement(
    NoRow,
    f"""
WITH i AS (
    UPDATE invite SET status = 'CANCELLED'
    WHERE merchant_id = :merchant_id AND id = ANY(:invite_ids::uuid[]) AND status = 'PENDING' AND accepted_at IS NULL
    RETURNING id
), recorded AS (
    {event("invite.cancelled", id="(:event_ids::uuid[])[row_number() OVER (ORDER BY id)]", subject="id", source="i")}
)
SELECT FROM i
""",
)


async def cancel_each(tx: Tx, merchant_id: UUID, actor: str, invite_ids: list[UUID]) -> None:
    """Cancel those of the invites that nobody has accepted."""
    if invite_ids:
        event_ids = [ids.new() for _ in invite_ids]
        await tx.row(CANCEL_EACH, merchant_id=merchant_id, invite_ids=invite_ids, event_ids=event_ids, actor=actor)


@mutation(
    description="Take an invite back that nobody has accepted. Its quota stays used, so that inviting and cancelling "
    "isn't a way around it. MEMBER its own; ADMIN and CHECKOUT any."
)
async def cancel_invite(
    info: Info, input: Annotated[CancelInviteInput, strawberry.argument(description="What to take back.")]
) -> CancelInviteResult:
    viewer = info.context.viewer
    invite_id = node_id("invite", "invite", input.invite_id)
    cancelled = await database().row(
        CANCEL,
        merchant_id=viewer.merchant_id,
        invite_id=invite_id,
        member_id=viewer.member_id,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    row = await invite_row(viewer, invite_id)
    if row is None:
        raise not_found("invite", input.invite_id)
    if cancelled is None:
        status = InviteStatus(row["invite_status"])
        how = "accepted" if status is InviteStatus.PENDING else status.value
        raise Refused(InviteNotCancellable(message=f"An invite that is {how} can't be cancelled.", status=status))
    return CancelInviteSuccess(invite=Invite.of(row))
