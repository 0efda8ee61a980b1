"""The record of what happened: one row per change, written in the change's own transaction.

An event names ids, never personal data. `EVENTS` is the whole vocabulary; the noun says what the subject is.
"""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from app import ids
from app.storage.database import Tx
from app.storage.statements import NoRow, statement

#: Every event type and the kind of node its subject is.
EVENTS: Final[dict[str, ids.Kind]] = {
    "advice_run.failed": "advicerun",
    "advice_run.finished": "advicerun",
    "advice_run.requested": "advicerun",
    "api_key.created": "apikey",
    "api_key.revoked": "apikey",
    "campaign.created": "campaign",
    "campaign.deliveries_read": "campaign",
    "code.adopted": "code",
    "code.adopted_after_end": "code",
    "code.claimed": "code",
    "code.discarded": "code",
    "code.expired": "code",
    "code.imported": "code",
    "code.moved": "code",
    "code.moved_after_end": "code",
    "code.redeemed": "code",
    "code.reissued": "code",
    "code.revealed": "code",
    "code.revived": "code",
    "code.revoked": "code",
    "code.sent": "code",
    "codes.discarded": "batch",
    "codes.generated": "batch",
    "codes.imported": "batch",
    "codes.issued": "batch",
    "codes.texts_read": "batch",
    "graph_job.failed": "graphjob",
    "graph_job.requested": "graphjob",
    "graph_snapshot.taken": "graph",
    "hold.captured": "hold",
    "hold.changed": "hold",
    "hold.expired": "hold",
    "hold.extended": "hold",
    "hold.placed": "hold",
    "hold.released": "hold",
    "integrity.violated": "merchant",
    "invite.accepted": "invite",
    "invite.cancelled": "invite",
    "invite.expired": "invite",
    "invite.obstructed": "invite",
    "invite.sent": "invite",
    "job.cancelled": "job",
    "job.failed": "job",
    "job.finished": "job",
    "job.requested": "job",
    "member.edited": "member",
    "member.email_displaced": "member",
    "member.email_unverified": "member",
    "member.email_verified": "member",
    "member.enrolled": "member",
    "member.erased": "member",
    "member.merged": "member",
    "member.token_issued": "member",
    "member.tokens_revoked": "member",
    "merchant.configured": "merchant",
    "merchant.created": "merchant",
    "merchant.data_key_created": "merchant",
    "order.amended": "order",
    "order.cancelled": "order",
    "points.credited": "entry",
    "points.debited": "entry",
    "points.expiring": "entry",
    "points.fell_short": "entry",
    "points.matured": "entry",
    "points.shortfall_lowered": "entry",
    "pool.activated": "pool",
    "pool.archived": "pool",
    "pool.created": "pool",
    "pool.discarded": "pool",
    "pool.edited": "pool",
    "pool.pause_changed": "pool",
    "pool.paused": "pool",
    "pool.stock_fell_to_0": "pool",
    "pool.stock_fell_to_10": "pool",
    "pool.stock_fell_to_25": "pool",
    "pool.stock_fell_to_50": "pool",
    "purchase.corrected": "purchase",
    "purchase.recorded": "purchase",
    "purchase.refunded": "purchase",
    "purchase.reversed": "purchase",
    "redemption.reversed": "redemption",
    "referral.converted": "referral",
    "referral.declined": "referral",
    "referral.held": "referral",
    "referral.purchase_replaced": "referral",
    "referral.reinstated": "referral",
    "referral.reversed": "referral",
    "referral_program.configured": "merchant",
    "reward.created": "reward",
    "reward.edited": "reward",
    "reward.redeemed": "rewardredemption",
    "reward.retired": "reward",
    "reward.returned": "rewardredemption",
    "webhook.created": "webhook",
    "webhook.disabled": "webhook",
    "webhook.enabled": "webhook",
    "webhook.redelivered": "webhook",
    "webhook.secret_rotated": "webhook",
}

#: The events that raise a wallet's version, and the state that each leaves the code in that it is about; None: it is
#: about no code, or leaves it in a state that doesn't change any more.
WALLET_EVENTS: Final[dict[str, str | None]] = {
    "code.adopted": "ALLOCATED",
    "code.adopted_after_end": None,
    "code.claimed": "ALLOCATED",
    "code.discarded": None,
    "code.expired": "EXPIRED",
    "code.imported": "ALLOCATED",
    "code.moved": "ALLOCATED",
    "code.moved_after_end": None,
    "code.redeemed": "REDEEMED",
    "code.reissued": "ALLOCATED",
    "code.revived": "ALLOCATED",
    "code.revoked": "REVOKED",
    "code.sent": "ALLOCATED",
    "hold.captured": None,
    "hold.changed": None,
    "hold.expired": None,
    "hold.extended": None,
    "hold.placed": None,
    "hold.released": None,
    "member.merged": None,
    "points.credited": None,
    "points.debited": None,
    "points.fell_short": None,
    "points.matured": None,
    "points.shortfall_lowered": None,
    "redemption.reversed": "ALLOCATED",
}


class Event(Model):
    """A change to one subject, with a person's reason (a ciphertext) where one was asked for.

    `subject_kind` says what the subject is, so that a process that is older than a type shows its events all the same.
    Changes of points carry how many. Wallet changes also carry the member, and the wallet's version and points after
    them. The database itself fills in `txid`, its number of the transaction, by which the webhooks' feed tells what it
    has seen; a quiet event has none.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    type = fields.CharField(max_length=50)
    subject_kind = fields.CharField(max_length=30)
    subject_id = fields.UUIDField()
    actor = fields.CharField(max_length=60)
    occurred_at = fields.DatetimeField()
    reason = fields.BinaryField(null=True)
    points = fields.IntField(null=True)
    member_id = fields.UUIDField(null=True)
    wallet_version = fields.BigIntField(null=True)
    wallet_points = fields.IntField(null=True)
    wallet_held_points = fields.IntField(null=True)
    wallet_pending_points = fields.IntField(null=True)
    wallet_shortfall = fields.IntField(null=True)
    txid = fields.BigIntField(null=True)

    class Meta:
        table = "event"


#: The type of each row's event: one for all, or the first whose condition holds, the last without a condition.
EventType = str | Sequence[tuple[str, str]]

_MORE: Final = ("reason", "points", "member_id")
#: Columns of an event and those of the wallet that they tell.
_WALLET: Final = {
    "wallet_version": "version",
    "wallet_points": "points",
    "wallet_held_points": "held_points",
    "wallet_pending_points": "pending_points",
    "wallet_shortfall": "shortfall",
}


def event(
    event_type: EventType,
    *,
    subject: str,
    id: str = ":event_id",
    source: str = "",
    actor: str = ":actor",
    merchant: str = ":merchant_id",
    wallet: str = "",
    **more: str,
) -> str:
    """Return the INSERT of an event: one, or one for each row of `source`.

    `wallet` is the alias in `source` of the wallet as the change leaves it. All others but the type are SQL
    expressions; `more` are those of reason, points and member_id. Raises KeyError for a type that EVENTS doesn't
    declare.
    """
    type_sql, kind = _typed(event_type)
    given: dict[str, str] = {name: more.pop(name) for name in _MORE if name in more}
    if wallet:
        given |= {name: f"{wallet}.{column}" for name, column in _WALLET.items()}
    if more:
        raise TypeError(f"an event has no {sorted(more)}")
    names = ", ".join(["merchant_id, id, type, subject_kind, subject_id, actor, occurred_at", *given])
    values = ", ".join([merchant, id, type_sql, f"'{kind}'", subject, actor, "now()", *given.values()])
    rows = f"SELECT {values} FROM {source}" if source else f"VALUES ({values})"
    return f"INSERT INTO event ({names}) {rows}"


def _typed(event_type: EventType) -> tuple[str, ids.Kind]:
    """Return the type as SQL, and the kind of the subject, which all choices share."""
    choices = [(event_type, "")] if isinstance(event_type, str) else event_type
    kinds = {EVENTS[name] for name, _ in choices}
    (kind,) = kinds
    if len(choices) == 1:
        return f"'{choices[0][0]}'", kind
    *conditional, (last, _) = choices
    cases = " ".join(f"WHEN {condition} THEN '{name}'" for name, condition in conditional)
    return f"CASE {cases} ELSE '{last}' END", kind


#: What sweeps themselves record: it changes nothing that others would have to look at.
_OF_SWEEPS: Final = "('graph_job.failed', 'graph_job.requested', 'graph_snapshot.taken', 'integrity.violated')"


def none_since(merchant: str, instant: str) -> str:
    """Return the condition that nothing has happened in a merchant since an instant, both of them SQL.

    An event's id is made before it is committed, by another clock: it is looked for an hour back.
    """
    return f"""(
        SELECT true FROM event e
        WHERE e.merchant_id = {merchant} AND e.id >= event_first_id({instant} - interval '1 hour')
            AND e.type NOT IN {_OF_SWEEPS} LIMIT 1
    ) IS NULL"""


RECORD: Final = statement(
    NoRow,
    """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
VALUES (:merchant_id, :event_id, :type, :subject_kind, :subject_id, :actor, now())
""",
)


class _QuietRow(TypedDict):
    quiet: str


QUIET: Final = statement(
    _QuietRow,
    "SELECT set_config('flash.quiet', 'on', true) AS quiet FROM merchant WHERE merchant_id = :merchant_id",
)


async def keep_quiet(tx: Tx, merchant_id: UUID) -> None:
    """Let webhooks hear nothing of the events that this transaction writes from now on."""
    await tx.row(QUIET, merchant_id=merchant_id)


async def record(tx: Tx, merchant_id: UUID, event_type: str, subject_id: UUID, actor: str) -> None:
    """Write one event in the caller's transaction. Raises KeyError for a type that EVENTS doesn't declare."""
    await tx.row(
        RECORD,
        merchant_id=merchant_id,
        event_id=ids.new(),
        type=event_type,
        subject_kind=EVENTS[event_type],
        subject_id=subject_id,
        actor=actor,
    )
