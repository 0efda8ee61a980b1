"""Queries that belong to no noun: who is asking, any node by its id, and the events."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from app import ids
from app.advisor.queries import find_run
from app.advisor.types import AdviceRun
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role
from app.api.context import Viewer as Caller
from app.api.operations import Id, Info, Node, field, query
from app.coupons.rows import find_batch, find_campaign, find_code, find_pool, find_redemption
from app.coupons.types import Campaign, Code, CodeBatch, Pool, Redemption
from app.graph.queries import find_job, find_snapshot
from app.graph.types import GraphSnapshot, GraphSnapshotJob
from app.members.rows import MemberRow, find_member, member_row
from app.members.types import Member
from app.merchants.tenants import decrypted
from app.merchants.types import ApiKey, Merchant
from app.orders.rows import find_purchase
from app.orders.types import Purchase
from app.points.queries import find_exchange
from app.points.rows import find_entry, find_reward
from app.points.types import PointsEntry, Reward
from app.referrals.rows import find_invite, find_referral
from app.referrals.types import Invite, shown
from app.storage.database import Row, database
from app.storage.statements import columns, row_of, statement
from app.storage.wallet_versions import ChangeRow
from app.wallets.types import Wallet
from app.webhooks.rows import find_delivery, find_webhook
from app.webhooks.types import Webhook, WebhookDelivery

READS_EVENTS: Final = {Role.ADMIN, Role.ANALYST}


@row_of(ev="event")
class EventRow(ChangeRow):
    """An event `ev`, with the reason that a person gave."""

    event_reason: Annotated[bytes | None, "ev.reason"]


FIND_EVENT: Final = statement(
    EventRow,
    f"SELECT {columns(EventRow)} FROM event ev WHERE ev.merchant_id = :merchant_id AND ev.id = :event_id",
)
LIST_EVENTS: Final = statement(
    EventRow,
    f"""
SELECT {columns(EventRow)} FROM event ev
WHERE ev.merchant_id = :merchant_id AND ev.id < :before ORDER BY ev.id DESC LIMIT :limit
""",
)
FIND_API_KEY: Final = """
SELECT id, label, role, created_at, revoked_at FROM api_key WHERE merchant_id = $1 AND id = $2
"""


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    role: Role = strawberry.field(description="What the caller may do.")
    merchant: Merchant = strawberry.field(description="The merchant it belongs to.")

    @field(description="The member whose token this is; null for API keys.")
    async def member(self, info: Info) -> Member | None:
        """Read the member."""
        caller = info.context.viewer
        row = await member_row(caller, caller.member_id) if caller.member_id is not None else None
        return None if row is None else Member.of(row)


@strawberry.type(description="Something that happened: ids only, never personal data.")
class Event(Node):
    """One row of the record."""

    type: str = strawberry.field(description="What happened: a noun and a verb in the past tense.")
    subject_id: strawberry.ID = strawberry.field(description="The node it happened to.")
    actor: str = strawberry.field(description="The id of the API key or member that did it, or `system`.")
    occurred_at: datetime = strawberry.field(description="When.")
    sealed_reason: strawberry.Private[bytes | None]
    event_id: strawberry.Private[UUID]

    @classmethod
    def of(cls, row: EventRow) -> "Event":
        """Return the event of a row."""
        return cls.of_change(row, row["event_reason"])

    @classmethod
    def of_change(cls, row: ChangeRow, sealed_reason: bytes | None = None) -> "Event":
        """Return the event of a wallet's change, which tells no reason."""
        return cls(
            id=strawberry.ID(ids.encode("event", row["event_id"])),
            type=row["event_type"],
            subject_id=strawberry.ID(f"{row['event_subject_kind']}_{row['event_subject_id'].hex}"),
            actor=row["event_actor"],
            occurred_at=row["event_occurred_at"],
            sealed_reason=sealed_reason,
            event_id=row["event_id"],
        )

    @field(description="The reason that a person gave, where one was asked for; ADMIN only, null to others.")
    async def reason(self, info: Info) -> str | None:
        """Decrypt the reason."""
        caller = info.context.viewer
        if self.sealed_reason is None or caller.role is not Role.ADMIN:
            return None
        return await decrypted(caller.tenant, self.event_id, "reason", self.sealed_reason)


@query(description="Who is asking.")
def viewer(info: Info) -> Viewer:
    """Read nothing: authentication knows."""
    caller = info.context.viewer
    return Viewer(role=caller.role, merchant=Merchant.of(caller.tenant))


@query(description="Everything that happened, newest first. ADMIN and ANALYST.")
async def events(info: Info, first: First = None, after: After = None) -> Connection[Event]:
    """Read a page of events."""
    asked = page(first, after)
    rows = await database().rows(
        LIST_EVENTS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Event.of, key="event_id")


async def _find_wallet(caller: Caller, node_id: str) -> MemberRow | None:
    return await find_member(caller, node_id, "wallet")


async def _find_event(caller: Caller, node_id: str) -> EventRow | None:
    event_id = ids.decode("event", node_id)
    if event_id is None or caller.role not in READS_EVENTS:
        return None
    return await database().row(FIND_EVENT, merchant_id=caller.merchant_id, event_id=event_id)


async def _find_api_key(caller: Caller, node_id: str) -> Row | None:
    api_key_id = ids.decode("apikey", node_id)
    if api_key_id is None or caller.role is not Role.ADMIN:
        return None
    return await database().row(FIND_API_KEY, caller.merchant_id, api_key_id)


#: For each kind of id, how its row is found (only what the caller may see) and shown.
FINDERS: Final[dict[str, tuple[Callable[[Caller, str], Awaitable[Any]], Callable[[Any], Node]]]] = {
    "advicerun": (find_run, AdviceRun.of),
    "apikey": (_find_api_key, ApiKey.of),
    "batch": (find_batch, CodeBatch.of),
    "campaign": (find_campaign, Campaign.of),
    "code": (find_code, Code.of),
    "entry": (find_entry, PointsEntry.of),
    "event": (_find_event, Event.of),
    "graph": (find_snapshot, GraphSnapshot.of),
    "graphjob": (find_job, GraphSnapshotJob.of),
    "invite": (find_invite, Invite.of),
    "member": (find_member, Member.of),
    "pool": (find_pool, Pool.of),
    "purchase": (find_purchase, Purchase.of),
    "redemption": (find_redemption, Redemption.of),
    "referral": (find_referral, shown),
    "reward": (find_reward, Reward.of),
    "rewardredemption": (find_exchange, lambda exchange: exchange),
    "wallet": (_find_wallet, Wallet.of),
    "webhook": (find_webhook, Webhook.of),
    "webhookdelivery": (find_delivery, WebhookDelivery.of),
}


@query(description="Anything with an id, if the caller may see it; null if not.")
async def node(info: Info, id: Id) -> Node | None:
    """Look the kind of the id up and read its row."""
    caller = info.context.viewer
    kind = ids.kind_of(id)
    if kind == "merchant":
        own = Merchant.of(caller.tenant)
        return own if own.id == id else None
    if kind not in FINDERS:
        return None
    find, show = FINDERS[kind]
    row = await find(caller, id)
    return None if row is None else show(row)
