"""Purchases of another system: they count as purchases of their day, and earn and convert nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, cast
from uuid import UUID

from iso4217 import Currency

from app import ids
from app.api.inputs import MONEY_MAX
from app.members.rows import IS_HERE, lock_member
from app.moving.fields import Fields
from app.moving.kind import Batch, Kind, Record, correct_each
from app.moving.rows import (
    DROP_LINES,
    FIND_MEMBERS,
    FIND_STRANGERS,
    Import,
    LineRow,
    compare,
    look_up,
    pass_over_erased,
    repeated,
    rows_of,
)
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.storage.database import Tx, database
from app.storage.events import event
from app.storage.statements import NoRow, statement

#: Purchases of one transaction: members whose other purchases wait for it, and names of orders, of which PostgreSQL
#: locks some thousands at a time for all its clients together.
RECORDED_AT_ONCE: Final = 200
CORRECTED_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class _Bought:
    source: str | None
    order_id: str | None
    external_source: str
    external_id: str | None
    amount: int
    occurred_at: datetime | None


FIND_REPEATED: Final = repeated("source and orderId are those of", "source, order_id")
# A purchase `p` that nothing stands on: what it earned, what was paid for it with points or went back of it, an order
# with codes or holds, a referral.
_STANDS_ALONE: Final = """
    p.points_per_unit = 0 AND p.refunded = 0 AND p.paid_points = 0
    AND NOT EXISTS (
        SELECT FROM sales_order o
        WHERE o.merchant_id = :merchant_id AND o.source = p.source AND o.order_id = p.order_id
    )
    AND NOT EXISTS (SELECT FROM referral f WHERE f.merchant_id = :merchant_id AND f.purchase_id = p.id)
"""
FIND_RECORDED: Final = statement(
    NoRow,
    f"""
UPDATE import_row SET verdict = CASE WHEN known.differs = '' THEN 'SAME' ELSE 'CORRECT' END,
    problem = CASE WHEN known.is_anothers THEN 'orderId is recorded for another member'
        WHEN known.differs = '' THEN NULL
        WHEN NOT :corrects THEN known.differs || ' differs from what is recorded; see --correct'
        WHEN NOT known.stands_alone
            THEN known.differs || ' can''t be corrected: points, refunds or codes hang on it; amend the order'
        END
FROM (
    SELECT r.line, coalesce(m.merged_into_id, m.id) <> r.found AS is_anothers,
        m.id = r.found AND {_STANDS_ALONE} AS stands_alone,
        concat_ws(
            ', ', CASE WHEN p.amount <> r.amount THEN 'amountMinor' END,
            CASE WHEN p.occurred_at <> r.dated_at THEN 'occurredAt' END
        ) AS differs
    FROM import_row r
    JOIN purchase p ON p.merchant_id = :merchant_id AND p.source = r.source AND p.order_id = r.order_id
    JOIN member m ON m.merchant_id = :merchant_id AND m.id = p.member_id
    WHERE r.merchant_id = :merchant_id AND r.import_id = :import_id AND r.problem IS NULL AND r.verdict IS NULL
) known
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = known.line
""",
)
FIND_ORDERS: Final = statement(
    NoRow,
    """
UPDATE import_row SET problem = CASE WHEN o.cancelled_at IS NOT NULL THEN 'orderId is that of a cancelled order'
    ELSE 'amountMinor must be at least ' || o.paid_value || ', what was paid with points' END
FROM sales_order o
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND verdict IS NULL
    AND o.merchant_id = :merchant_id AND o.source = import_row.source AND o.order_id = import_row.order_id
    AND (o.cancelled_at IS NOT NULL OR o.paid_value > import_row.amount)
""",
)
NEXT: Final = statement(
    LineRow,
    f"""
SELECT line FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND verdict IS NULL
ORDER BY line LIMIT {RECORDED_AT_ONCE}
""",
)
# As one purchase is recorded, at a rate of 0. What another one recorded first, or can't be any more, is left out.
RECORD_ALL: Final = statement(
    LineRow,
    f"""
WITH batch AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY line) AS place FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND line = ANY(:lines::int[])
), buyers AS MATERIALIZED (
    SELECT id FROM member WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT found FROM batch))
        AND {IS_HERE}
    ORDER BY id FOR NO KEY UPDATE
), known AS MATERIALIZED (
    -- Orders whose codes were redeemed or held, after their buyers: they aren't amended or cancelled meanwhile.
    SELECT o.id, o.source, o.order_id, o.cancelled_at, o.paid_points, o.paid_value FROM sales_order o
    WHERE o.merchant_id = :merchant_id AND (SELECT count(*) FROM buyers) >= 0
        AND (o.source, o.order_id) IN (SELECT source, order_id FROM batch)
    ORDER BY o.id FOR NO KEY UPDATE
), unknown AS MATERIALIZED (
    -- Orders that aren't known don't begin meanwhile, and haven't begun since this statement did: the batch begins
    -- again otherwise. Locked by name, after all that are known.
    SELECT lock_unknown_order(:merchant_id, source, order_id) FROM (
        SELECT batch.source, batch.order_id FROM batch JOIN buyers ON buyers.id = batch.found
        WHERE (SELECT count(*) FROM known) >= 0
            AND NOT EXISTS (SELECT FROM known k WHERE k.source = batch.source AND k.order_id = batch.order_id)
        ORDER BY batch.source, batch.order_id OFFSET 0
    ) named
), b AS (
    INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, recorded_amount, paid_points,
                          paid_value, currency, points, points_per_unit, minor_units, credits, occurred_at, recorded_at)
    SELECT :merchant_id, batch.id, buyers.id, batch.source, batch.order_id, batch.amount, batch.amount,
        coalesce(k.paid_points, 0), coalesce(k.paid_value, 0), :currency, 0, 0, :minor_units, 0, batch.dated_at, now()
    FROM batch JOIN buyers ON buyers.id = batch.found
    LEFT JOIN known k ON k.source = batch.source AND k.order_id = batch.order_id
    WHERE k.cancelled_at IS NULL AND batch.amount >= coalesce(k.paid_value, 0)
        AND (SELECT count(*) FROM unknown) >= 0
    ORDER BY batch.line
    ON CONFLICT DO NOTHING RETURNING *
), bought AS (
    UPDATE member SET last_bought_at = its.last
    FROM (SELECT member_id, max(occurred_at) AS last FROM b GROUP BY member_id) its
    WHERE member.merchant_id = :merchant_id AND member.id = ANY(ARRAY(SELECT member_id FROM b))
        AND member.id = its.member_id AND (last_bought_at IS NULL OR last_bought_at < its.last)
), held AS (
    -- An order that is held has another version: who captures it reads again.
    UPDATE sales_order SET version = version + 1
    WHERE merchant_id = :merchant_id AND order_amount IS NULL AND id = ANY(ARRAY(
        SELECT k.id FROM known k JOIN b ON b.source = k.source AND b.order_id = k.order_id
    ))
), recorded AS (
    {
        event(
            "purchase.recorded",
            id="(:event_ids::uuid[])[batch.place]",
            subject="b.id",
            source="b JOIN batch ON batch.id = b.id",
        )
    }
)
SELECT batch.line FROM b JOIN batch ON batch.id = b.id
""",
)


class _CorrectionRow(LineRow):
    """A row about a purchase that is recorded."""

    purchase_id: UUID
    member_id: UUID
    amount: int
    occurred_at: datetime


TO_CORRECT: Final = statement(
    _CorrectionRow,
    f"""
SELECT r.line, p.id AS purchase_id, p.member_id, r.amount, r.dated_at AS occurred_at
FROM (
    SELECT * FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND verdict = 'CORRECT'
    ORDER BY line LIMIT {CORRECTED_AT_ONCE}
) r JOIN purchase p ON p.merchant_id = :merchant_id AND p.source = r.source AND p.order_id = r.order_id
ORDER BY r.line
""",
)


class _CorrectedRow(TypedDict):
    id: UUID


CORRECT: Final = statement(
    _CorrectedRow,
    f"""
WITH b AS (
    UPDATE purchase p SET amount = :amount, occurred_at = :occurred_at
    WHERE p.merchant_id = :merchant_id AND p.id = :purchase_id AND {_STANDS_ALONE}
    RETURNING p.id, p.member_id
), bought AS (
    -- The last of what stands, with this one as it is now.
    UPDATE member SET last_bought_at = greatest(:occurred_at, (
        SELECT max(occurred_at) FROM purchase x WHERE x.merchant_id = :merchant_id AND x.member_id = :member_id
            AND x.id <> :purchase_id AND x.reversed_at IS NULL
    ))
    FROM b WHERE member.merchant_id = :merchant_id AND member.id = b.member_id
), recorded AS (
    {event("purchase.corrected", subject="id", source="b")}
)
SELECT id FROM b
""",
)


class Purchases(Kind):
    """Files of purchases."""

    name = "PURCHASES"
    makes = "purchases"
    columns = ("source", "orderId", "externalId", "externalSource", "amountMinor", "currency", "occurredAt")
    required = ("source", "orderId", "externalId", "amountMinor", "currency", "occurredAt")
    stored = ("source", "order_id", "external_source", "external_id", "amount", "dated_at")
    compared = ("member", "purchase")

    def check(self, fields: Fields) -> _Bought:
        """Read a purchase, in the merchant's currency."""
        source = fields.source("source", required=True)
        order_id = fields.line("orderId", length_max=ORDER_ID_LENGTH_MAX, required=True)
        external_id, external_source = fields.external_id(), fields.external_source()
        amount = fields.whole("amountMinor", most=MONEY_MAX)
        currency = self.viewer.tenant.currency
        if (fields.given("currency", required=True) or currency) != currency:
            fields.problems.add("currency", f"must be {currency}, the merchant's currency")
        occurred_at = fields.past("occurredAt", self.now, required=True)
        return _Bought(source, order_id, external_source, external_id, amount, occurred_at)

    def record(self, row_id: UUID, checked: object) -> Record:
        """Return a purchase as it is stored."""
        del row_id  # nothing of it is sealed
        bought = cast("_Bought", checked)
        return (
            bought.source, bought.order_id, bought.external_source, bought.external_id, bought.amount,
            bought.occurred_at,
        )  # fmt: skip

    async def judge(self, of: Import) -> None:
        """Find whose they are, which are there twice or already, and which can't be recorded."""
        await compare(of, FIND_REPEATED)
        await look_up(of, FIND_MEMBERS)
        await pass_over_erased(of)
        await look_up(of, FIND_STRANGERS)
        await rows_of(of, FIND_RECORDED, corrects=of.corrects)
        await look_up(of, FIND_ORDERS)

    async def apply(self, tx: Tx, of: Import, after: int) -> Batch | None:
        """Record the next purchases. The order of locks is that of one purchase."""
        lines = [row["line"] for row in await tx.many(NEXT, **of.key, after=after)]
        if not lines:
            return None
        currency = of.viewer.tenant.currency
        recorded = await tx.many(
            RECORD_ALL,
            **of.key,
            lines=lines,
            currency=currency,
            minor_units=10 ** (Currency(currency).exponent or 0),
            event_ids=[ids.new() for _ in lines],
            actor=of.viewer.actor,
        )
        await tx.row(DROP_LINES, **of.key, lines=lines)
        return Batch(lines[-1], len(recorded), sorted({*lines} - {row["line"] for row in recorded}))

    async def correct(self, of: Import, after: int) -> Batch | None:
        """Give purchases that nothing stands on another amount and another time."""
        page = await database().many(TO_CORRECT, **of.key, after=after)
        return await correct_each(of, page, lambda tx, row: self._correct(tx, of, row))

    async def _correct(self, tx: Tx, of: Import, row: _CorrectionRow) -> bool:
        """Correct a purchase, if nothing stands on it still. Its buyer is locked first, as when it is recorded."""
        if not await lock_member(tx, of.viewer.merchant_id, row["member_id"]):
            return False
        corrected = await tx.row(
            CORRECT,
            merchant_id=of.viewer.merchant_id,
            purchase_id=row["purchase_id"],
            member_id=row["member_id"],
            amount=row["amount"],
            occurred_at=row["occurred_at"],
            event_id=ids.new(),
            actor=of.viewer.actor,
        )
        return corrected is not None
