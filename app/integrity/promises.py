"""What the engine promises, what holds each promise, and statements that find where a merchant's rows break it.

docs/promises.md says the same in words. The statements trust nothing that holds a promise. Each is one statement, so it
sees one state of the rows however busy the merchant is. They read everything the merchant has, and lock nothing.
"""

from dataclasses import dataclass
from typing import Final, TypedDict

from app.integrity.archived import VERSIONS, told
from app.integrity.held import HELD, Held
from app.integrity.references import REFERENCES, SUBJECTS, UNKEYED, Reference
from app.storage.events import EVENTS
from app.storage.statements import Statement, statement


class Violations(TypedDict):
    """How many rows break a promise."""

    violations: int


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, what holds it, and what counts the rows that break it."""

    name: str
    held: Held
    count: Statement[Violations]


def _repeated(table: str, *columns: str, where: str = "true") -> str:
    """Select the keys that more than one row of a table has."""
    key = ", ".join(columns)
    return f"SELECT FROM {table} WHERE merchant_id = :merchant_id AND {where} GROUP BY {key} HAVING count(*) > 1"


def _promise(name: str, *violations: str) -> Promise:
    """Return a promise; each of `violations` selects one row for each that breaks it."""
    counts = " + ".join(f"(SELECT count(*) FROM ({violation}) violation)" for violation in violations)
    return Promise(name, HELD[name], statement(Violations, f"SELECT {counts} AS violations"))


def _dangling(reference: Reference) -> str:
    """Select the rows that name a row which the merchant doesn't have."""
    return f"""
        SELECT FROM {reference.table} t
        WHERE t.merchant_id = :merchant_id AND t.{reference.column} IS NOT NULL AND NOT EXISTS (
            SELECT FROM {reference.target} x
            WHERE x.merchant_id = :merchant_id AND x.{reference.key} = t.{reference.column}
        )"""


def _standing(member_id: str) -> str:
    """Return the SQL of who stands for a member: what is written once keeps the member that it was written for."""
    return f"""(
        SELECT coalesce(x.merged_into_id, x.id) FROM member x WHERE x.merchant_id = :merchant_id AND x.id = {member_id}
    )"""


ONE_OWNER: Final = _promise(
    "ONE_OWNER",
    _repeated("code", "id"),
    # Claims of one code, of the pool that was asked and of the one that served it, are its owner's.
    """
    SELECT FROM claim k JOIN code c ON c.merchant_id = :merchant_id AND c.id = k.code_id
    WHERE k.merchant_id = :merchant_id AND (
        k.member_id IS DISTINCT FROM c.member_id OR c.state = 'AVAILABLE'
        OR (c.member_id IS NULL AND k.email_index IS DISTINCT FROM c.email_index)
    )""",
    """
    SELECT FROM code WHERE merchant_id = :merchant_id AND state IN ('ALLOCATED', 'REDEEMED')
        AND member_id IS NULL AND email_index IS NULL AND NOT bearer""",
    """
    SELECT FROM code WHERE merchant_id = :merchant_id AND (
        num_nonnulls(member_id, email_index) + bearer::int > 1
        OR (state = 'AVAILABLE' AND num_nonnulls(member_id, email_index) + bearer::int > 0)
    )""",
    # An address is the member's that has proved it: its row says so, nobody else has it, and no code waits for it.
    """
    SELECT FROM (SELECT * FROM member WHERE merchant_id = :merchant_id AND email_verified) m
    FULL JOIN (SELECT * FROM address WHERE merchant_id = :merchant_id AND member_id IS NOT NULL) a
        ON a.email_index = m.email_index
    WHERE a.member_id IS DISTINCT FROM coalesce(m.merged_into_id, m.id)""",
    """
    SELECT FROM (
        SELECT coalesce(merged_into_id, id) AS id, email_index FROM member WHERE merchant_id = :merchant_id
        UNION ALL
        SELECT id, pending_email_index FROM member WHERE merchant_id = :merchant_id
    ) m JOIN address a ON a.merchant_id = :merchant_id AND a.email_index = m.email_index
    WHERE a.member_id <> m.id""",
    """
    SELECT FROM code c JOIN address a ON a.merchant_id = :merchant_id AND a.email_index = c.email_index
    WHERE c.merchant_id = :merchant_id AND a.member_id IS NOT NULL""",
    # Who was merged names the last that was kept and has nothing any more. Its wallet is closed, as that of whoever was
    # erased is.
    """
    SELECT FROM member m JOIN member kept ON kept.merchant_id = :merchant_id AND kept.id = m.merged_into_id
    WHERE m.merchant_id = :merchant_id AND kept.merged_into_id IS NOT NULL""",
    """
    SELECT FROM member m JOIN wallet w ON w.merchant_id = :merchant_id AND w.member_id = m.id
    WHERE m.merchant_id = :merchant_id
        AND (w.closed_at IS NULL) <> (m.merged_into_id IS NULL AND m.erased_at IS NULL)""",
    *(
        f"""
        SELECT FROM {table} t JOIN member m ON m.merchant_id = :merchant_id AND m.id = t.member_id
        WHERE t.merchant_id = :merchant_id AND m.merged_into_id IS NOT NULL"""
        for table in (
            "code",
            "claim",
            "external_id",
            "address",
            "points_lot",
            "points_return",
            "hold",
            "purchase",
            "reward_redemption",
        )
    ),
)
# Where a member turns out to own an address, or two records to be one person, both may have spent what one of them
# could have: that can't be taken back, so codes that came so count while they are live only, and if no hold or reward
# kept them from being taken back. What a capture brought was counted when it was set aside; what came meanwhile in
# another way kept nobody from what it had paid for.
CLAIM_LIMIT: Final = _promise(
    "CLAIM_LIMIT",
    *(
        f"""
        SELECT FROM (
            SELECT k.pool_id, count(*) FILTER (
                WHERE a.subject_id IS NULL OR (c.state = 'ALLOCATED' AND NOT EXISTS (
                    SELECT FROM hold_code x WHERE x.merchant_id = :merchant_id AND x.code_id = k.code_id
                ) AND NOT EXISTS (
                    SELECT FROM reward_redemption x WHERE x.merchant_id = :merchant_id AND x.code_id = k.code_id
                ))
            ) AS claims
            FROM claim k JOIN code c ON c.merchant_id = :merchant_id AND c.id = k.code_id
            LEFT JOIN (
                SELECT DISTINCT subject_id FROM (
                    {told("code.adopted", "code.adopted_after_end", "code.moved", "code.moved_after_end")}
                ) came
            ) a ON a.subject_id = k.code_id
            WHERE k.merchant_id = :merchant_id AND k.{claimant} IS NOT NULL AND NOT EXISTS (
                SELECT FROM hold_reward y WHERE y.merchant_id = :merchant_id AND y.code_id = k.code_id
                    AND y.redemption_id IS NOT NULL
            ) GROUP BY k.pool_id, k.{claimant}
        ) k JOIN pool p ON p.merchant_id = :merchant_id AND p.id = k.pool_id WHERE k.claims > p.claims_per_member"""
        for claimant in ("member_id", "email_index")
    ),
    _repeated("claim", "pool_id", "mailbox_index", where="mailbox_index IS NOT NULL"),
    # A claim counts for as long as its row is there. An adoption drops those of the codes that it revokes.
    """
    SELECT FROM code c WHERE c.merchant_id = :merchant_id AND c.allocated_at IS NOT NULL AND c.state <> 'REVOKED'
        AND NOT c.bearer AND c.reissued_as IS NULL AND NOT EXISTS (
            SELECT FROM claim k WHERE k.merchant_id = :merchant_id AND k.pool_id = c.pool_id AND k.code_id = c.id
        )""",
)
REDEEMED_ONCE: Final = _promise(
    "REDEEMED_ONCE",
    # A code is spent by the redemption that stands, or by one that was taken back for good.
    """
    SELECT FROM code c LEFT JOIN (
        SELECT r.code_id, count(*) AS spent FROM redemption r
        LEFT JOIN reversal x ON x.merchant_id = :merchant_id AND x.redemption_id = r.id
        WHERE r.merchant_id = :merchant_id AND (r.reversed_at IS NULL OR NOT x.reinstated) GROUP BY r.code_id
    ) r ON r.code_id = c.id
    WHERE c.merchant_id = :merchant_id AND coalesce(r.spent, 0) <> CASE c.state WHEN 'REDEEMED' THEN 1 ELSE 0 END""",
    """
    SELECT FROM (SELECT * FROM redemption WHERE merchant_id = :merchant_id) r
    FULL JOIN (SELECT * FROM reversal WHERE merchant_id = :merchant_id) x ON x.redemption_id = r.id
    WHERE (r.reversed_at IS NULL) <> (x.redemption_id IS NULL)""",
    _repeated("redemption", "source", "order_id", "position", where="reversed_at IS NULL"),
    _repeated("sales_order", "source", "order_id"),
    # What stands on an order is one stack: of the whole order first, of what the one before left next.
    """
    SELECT FROM (
        SELECT r.*, row_number() OVER stack AS place,
            order_amount - sum(discount) OVER stack + discount AS left_over
        FROM redemption r WHERE r.merchant_id = :merchant_id AND r.reversed_at IS NULL
        WINDOW stack AS (PARTITION BY r.source, r.order_id ORDER BY r.position)
    ) r LEFT JOIN sales_order o
        ON o.merchant_id = :merchant_id AND o.source = r.source AND o.order_id = r.order_id
    WHERE r.position <> r.place OR r.base <> least(r.left_over, r.eligible) OR o.cancelled_at IS NOT NULL
        OR (r.order_amount, r.currency) IS DISTINCT FROM (o.order_amount, o.currency)""",
    # A person has one order that stands with codes that are for first orders, unless one was paid after its hold ended,
    # or two records had one each before they were merged.
    """
    SELECT FROM (
        SELECT DISTINCT o.id, coalesce(uuid_send(o.presenter_id), o.mailbox_index) AS person
        FROM redemption r JOIN pool p ON p.merchant_id = :merchant_id AND p.id = r.pool_id AND p.first_order_only
        JOIN sales_order o ON o.merchant_id = :merchant_id AND o.source = r.source AND o.order_id = r.order_id
        WHERE r.merchant_id = :merchant_id AND r.reversed_at IS NULL AND NOT EXISTS (
            SELECT FROM hold h WHERE h.merchant_id = :merchant_id AND h.sales_order_id = o.id
                AND h.status = 'CAPTURED' AND h.ended_at > h.held_until
        ) AND NOT EXISTS (
            SELECT FROM member x WHERE x.merchant_id = :merchant_id AND x.merged_into_id = o.presenter_id
        )
    ) first GROUP BY person HAVING count(*) > 1""",
    # What is left of a pool's budget is the budget less what stands and what is held.
    """
    SELECT FROM pool p LEFT JOIN (
        SELECT pool_id, sum(remaining) AS amount FROM pool_budget WHERE merchant_id = :merchant_id GROUP BY pool_id
    ) b ON b.pool_id = p.id LEFT JOIN (
        SELECT pool_id, sum(discount) AS amount FROM (
            SELECT pool_id, discount FROM redemption WHERE merchant_id = :merchant_id AND reversed_at IS NULL
            UNION ALL
            SELECT k.pool_id, k.discount FROM hold_code k JOIN hold h ON h.merchant_id = :merchant_id
                AND h.id = k.hold_id AND h.status = 'HELD' WHERE k.merchant_id = :merchant_id
        ) given GROUP BY pool_id
    ) g ON g.pool_id = p.id
    WHERE p.merchant_id = :merchant_id AND p.maximum_total_discount IS NOT NULL
        AND coalesce(b.amount, 0) <> p.maximum_total_discount - coalesce(g.amount, 0)""",
    # What a redemption counts for is the pool of its code.
    """
    SELECT FROM redemption r JOIN code c ON c.merchant_id = :merchant_id AND c.id = r.code_id
    WHERE r.merchant_id = :merchant_id AND r.pool_id <> c.pool_id""",
)
WHOLE_BATCHES: Final = _promise(
    "WHOLE_BATCHES",
    """
    SELECT FROM code_batch b LEFT JOIN (
        SELECT batch_id, count(*) AS codes FROM code WHERE merchant_id = :merchant_id GROUP BY batch_id
        UNION ALL
        SELECT k.batch_id, count(*) FROM bearer_code k
        JOIN code_batch b ON b.merchant_id = :merchant_id AND b.id = k.batch_id AND b.kind = 'ISSUED'
        WHERE k.merchant_id = :merchant_id GROUP BY k.batch_id
    ) c ON c.batch_id = b.id WHERE b.merchant_id = :merchant_id AND coalesce(c.codes, 0) <> b.size""",
    "SELECT FROM code_batch WHERE merchant_id = :merchant_id AND size NOT BETWEEN 1 AND 5000",
    # Each bearer code is in the list of a batch of its pool.
    """
    SELECT FROM (SELECT id, pool_id FROM code WHERE merchant_id = :merchant_id AND bearer) c
    FULL JOIN (SELECT code_id, pool_id FROM bearer_code WHERE merchant_id = :merchant_id) k ON k.code_id = c.id
    WHERE c.pool_id IS DISTINCT FROM k.pool_id""",
    """
    SELECT FROM campaign a LEFT JOIN (
        SELECT campaign_id, count(*) AS sent FROM delivery WHERE merchant_id = :merchant_id GROUP BY campaign_id
    ) d ON d.campaign_id = a.id
    WHERE a.merchant_id = :merchant_id AND coalesce(d.sent, 0) NOT BETWEEN a.allocated_count AND a.recipient_count""",
)
UNIQUE_CODES: Final = _promise(
    "UNIQUE_CODES",
    _repeated("code", "fingerprint"),
)
CREDITED_ONCE: Final = _promise(
    "CREDITED_ONCE",
    _repeated("points_entry", "reason", "origin"),
    # What a purchase says it has earned is what its entries credited, less what was taken back of them.
    """
    SELECT FROM (
        SELECT *, div((amount - refunded - paid_value + returned_value) * points_per_unit, minor_units) AS kept
        FROM purchase
        WHERE merchant_id = :merchant_id
    ) b
    FULL JOIN (
        SELECT split_part(e.origin, '/', 1) AS origin, coalesce(m.merged_into_id, m.id) AS member_id,
            count(*) AS credits, sum(e.amount - coalesce(r.amount, 0)) AS kept
        FROM points_entry e JOIN member m ON m.merchant_id = :merchant_id AND m.id = e.member_id LEFT JOIN (
            SELECT lot_id, sum(amount) AS amount FROM points_return WHERE merchant_id = :merchant_id GROUP BY lot_id
        ) r ON r.lot_id = e.id
        WHERE e.merchant_id = :merchant_id AND e.reason = 'PURCHASE' GROUP BY 1, 2
    ) e ON e.origin = replace(b.id::text, '-', '')
    WHERE (b.credits, b.kept) IS DISTINCT FROM (coalesce(e.credits, 0), coalesce(e.kept, 0))
        OR e.member_id <> b.member_id
        OR b.points <> div((b.amount - b.paid_value) * b.points_per_unit, b.minor_units)""",
    # What was refunded of a purchase is the sum of its refunds, and so is what of the points paid they brought back.
    """
    SELECT FROM purchase b LEFT JOIN (
        SELECT purchase_id, sum(amount) AS amount, sum(points_returned) AS points,
            sum(amount - money_returned) AS value
        FROM refund WHERE merchant_id = :merchant_id GROUP BY purchase_id
    ) f ON f.purchase_id = b.id
    WHERE b.merchant_id = :merchant_id AND (
        (b.refunded, b.returned_points, b.returned_value)
            <> (coalesce(f.amount, 0), coalesce(f.points, 0), coalesce(f.value, 0))
        OR (b.reversed_at IS NOT NULL AND b.refunded < b.amount)
    )""",
    # What an order is paid with is what its payments took and haven't given back, all by one member. Its purchase says
    # the same. A cancelled order has given all back.
    """
    SELECT FROM (
        SELECT *, replace(id::text, '-', '') AS origin FROM sales_order WHERE merchant_id = :merchant_id
    ) o
    FULL JOIN (
        SELECT split_part(e.origin, '/', 1) AS origin, count(DISTINCT e.id) AS payments,
            sum(-p.amount - p.returned) AS points,
            count(DISTINCT coalesce(m.merged_into_id, m.id)) FILTER (WHERE -p.amount > p.returned) AS payers,
            min(coalesce(m.merged_into_id, m.id)::text) FILTER (WHERE -p.amount > p.returned) AS payer_id
        FROM points_entry e JOIN points_part p ON p.merchant_id = :merchant_id AND p.entry_id = e.id
        JOIN member m ON m.merchant_id = :merchant_id AND m.id = e.member_id
        WHERE e.merchant_id = :merchant_id AND e.reason = 'PAYMENT' GROUP BY 1
    ) e ON e.origin = o.origin
    LEFT JOIN purchase b ON b.merchant_id = :merchant_id AND b.source = o.source AND b.order_id = o.order_id
    WHERE (o.payments, CASE WHEN o.cancelled_at IS NULL THEN o.paid_points - coalesce(b.returned_points, 0) ELSE 0 END)
            IS DISTINCT FROM (coalesce(e.payments, 0), coalesce(e.points, 0))
        OR e.payers > 1 OR e.payer_id <> o.payer_id::text
        OR (b.paid_points, b.paid_value) <> (o.paid_points, o.paid_value)""",
    # What a member bought last is the last of its purchases that stand.
    """
    SELECT FROM member m LEFT JOIN (
        SELECT member_id, max(occurred_at) AS last FROM purchase
        WHERE merchant_id = :merchant_id AND reversed_at IS NULL GROUP BY member_id
    ) b ON b.member_id = m.id
    WHERE m.merchant_id = :merchant_id AND m.last_bought_at IS DISTINCT FROM b.last""",
    # What a refund says it took is what its entries took.
    """
    SELECT FROM refund f LEFT JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = ANY(f.entry_ids)
    WHERE f.merchant_id = :merchant_id GROUP BY f.id, f.taken HAVING f.taken <> coalesce(-sum(e.amount), 0)""",
    _repeated("refund", "purchase_id", "refund_id"),
    _repeated("purchase", "source", "order_id"),
    f"""
    SELECT FROM reward_redemption x JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = x.entry_id
    WHERE x.merchant_id = :merchant_id
        AND (e.reason <> 'REWARD' OR {_standing("e.member_id")} IS DISTINCT FROM x.member_id)""",
    # A reward that went back brought back what was paid.
    f"""
    SELECT FROM reward_redemption x JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = x.entry_id
    LEFT JOIN points_entry back ON back.merchant_id = :merchant_id AND back.reason = 'REFUND'
        AND back.origin = 'reward/' || replace(x.id::text, '-', '')
    WHERE x.merchant_id = :merchant_id AND CASE WHEN x.reversed_at IS NULL THEN back.id IS NOT NULL
        ELSE ({_standing("back.member_id")}, back.amount) IS DISTINCT FROM (x.member_id, -e.amount) END""",
)
EXACT_BALANCES: Final = _promise(
    "EXACT_BALANCES",
    """
    SELECT FROM wallet w LEFT JOIN (
        SELECT member_id, sum(amount) AS points FROM points_entry WHERE merchant_id = :merchant_id GROUP BY member_id
    ) e ON e.member_id = w.member_id
    WHERE w.merchant_id = :merchant_id AND (w.points < 0 OR w.points <> coalesce(e.points, 0))""",
    # An entry's wallet version says where it stands in its member's history.
    f"""
    SELECT FROM (
        SELECT e.balance_after, v.wallet_points,
            sum(e.amount) OVER (PARTITION BY e.member_id ORDER BY v.wallet_version) AS points
        FROM points_entry e
        JOIN ({told("points.credited", "points.debited")}) v ON v.subject_id = e.id
        WHERE e.merchant_id = :merchant_id
    ) history WHERE balance_after <> points OR wallet_points <> points""",
    # A wallet is the sum of its lots.
    """
    SELECT FROM wallet w LEFT JOIN (
        SELECT member_id, sum(remaining) AS points, sum(held) AS held,
            sum(remaining) FILTER (WHERE is_pending) AS pending
        FROM points_lot WHERE merchant_id = :merchant_id GROUP BY member_id
    ) l ON l.member_id = w.member_id LEFT JOIN (
        SELECT member_id, sum(shortfall) AS shortfall FROM points_return WHERE merchant_id = :merchant_id
        GROUP BY member_id
    ) r ON r.member_id = w.member_id
    WHERE w.merchant_id = :merchant_id AND (w.points, w.held_points, w.pending_points, w.shortfall)
        <> (coalesce(l.points, 0), coalesce(l.held, 0), coalesce(l.pending, 0), coalesce(r.shortfall, 0))""",
    # What is held of a lot is what holds have set aside of it.
    """
    SELECT FROM points_lot l LEFT JOIN (
        SELECT lot_id, sum(amount) AS held FROM hold_part WHERE merchant_id = :merchant_id GROUP BY lot_id
    ) p ON p.lot_id = l.entry_id
    WHERE l.merchant_id = :merchant_id AND l.held <> coalesce(p.held, 0)""",
    # A lot is its credit and what entries took from it or gave back, and never less than nothing or more than all.
    """
    SELECT FROM (SELECT * FROM points_lot WHERE merchant_id = :merchant_id) l
    FULL JOIN (
        SELECT e.id, coalesce(m.merged_into_id, m.id) AS member_id, e.amount FROM points_entry e
        JOIN member m ON m.merchant_id = :merchant_id AND m.id = e.member_id
        WHERE e.merchant_id = :merchant_id AND e.spendable_at IS NOT NULL AND e.lot_id IS NULL
    ) e ON e.id = l.entry_id
    LEFT JOIN (
        SELECT lot_id, sum(amount) AS moved FROM points_part WHERE merchant_id = :merchant_id GROUP BY lot_id
    ) p ON p.lot_id = l.entry_id
    WHERE (l.member_id, l.amount, l.remaining) IS DISTINCT FROM (e.member_id, e.amount, e.amount + coalesce(p.moved, 0))
        OR l.remaining NOT BETWEEN 0 AND l.amount""",
    # Every other entry is what it took from lots of its member, or gave back to them.
    """
    SELECT FROM points_entry e LEFT JOIN (
        SELECT p.entry_id, sum(p.amount) AS moved FROM points_part p
        JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = p.entry_id
        JOIN member m ON m.merchant_id = :merchant_id AND m.id = e.member_id
        JOIN points_lot l ON l.merchant_id = :merchant_id AND l.entry_id = p.lot_id
            AND l.member_id = coalesce(m.merged_into_id, m.id)
        WHERE p.merchant_id = :merchant_id GROUP BY p.entry_id
    ) p ON p.entry_id = e.id
    WHERE e.merchant_id = :merchant_id AND coalesce(p.moved, 0)
        <> CASE WHEN e.spendable_at IS NULL OR e.lot_id IS NOT NULL THEN e.amount ELSE 0 END""",
    # A merging takes a lot from one member and brings it to the other at once, as much as it was.
    """
    SELECT FROM (
        SELECT split_part(origin, '/', 2) AS lot, split_part(origin, '/', 1) AS merged, sum(amount) AS amount,
            count(*) AS entries
        FROM points_entry WHERE merchant_id = :merchant_id AND reason = 'MERGE' GROUP BY 1, 2
    ) moved WHERE amount <> 0 OR entries <> 2""",
    # What came back of debits is what was returned, and no more than was taken. What the end of a hold gives back to
    # lots was never spent: a take-back gives up as much for it.
    """
    SELECT FROM (
        SELECT sum(p.returned) - coalesce(sum(e.amount) FILTER (
                WHERE e.reason = 'REFUND' AND e.origin NOT LIKE 'hold/%'
            ), 0) AS unexplained,
            bool_or(p.returned NOT BETWEEN 0 AND greatest(-p.amount, 0)) AS is_too_much
        FROM points_entry e JOIN member m ON m.merchant_id = :merchant_id AND m.id = e.member_id LEFT JOIN (
            SELECT entry_id, sum(returned) AS returned, sum(amount) AS amount FROM points_part
            WHERE merchant_id = :merchant_id GROUP BY entry_id
        ) p ON p.entry_id = e.id
        WHERE e.merchant_id = :merchant_id GROUP BY coalesce(m.merged_into_id, m.id)
    ) back WHERE unexplained <> 0 OR is_too_much""",
    """
    SELECT FROM points_entry e LEFT JOIN points_entry moved ON moved.merchant_id = :merchant_id
        AND moved.reason = 'REVERSAL' AND moved.origin = e.origin AND moved.member_id = e.member_id
    WHERE e.merchant_id = :merchant_id AND e.reason = 'REFUND' AND e.origin LIKE 'hold/%'
        AND e.amount > -coalesce(moved.amount, 0)""",
    # What expired of a lot is what entries say, and no more of it counts as taken back. What its take-backs lack, and
    # what others pay for them, was spent of it or is held. All else that they took, entries took, which have not given
    # it back.
    """
    SELECT FROM points_lot l LEFT JOIN (
        SELECT p.lot_id, -sum(p.amount) FILTER (WHERE e.reason = 'EXPIRY') AS expired,
            sum(-p.amount - p.returned) FILTER (WHERE p.amount < 0 AND e.reason NOT IN ('EXPIRY', 'REVERSAL')) AS spent,
            sum(p.returned) - coalesce(sum(p.amount) FILTER (WHERE p.amount > 0 OR e.reason = 'REVERSAL'), 0) AS taken
        FROM points_part p JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = p.entry_id
        WHERE p.merchant_id = :merchant_id AND e.reason <> 'MERGE' GROUP BY p.lot_id
    ) p ON p.lot_id = l.entry_id LEFT JOIN (
        SELECT lot_id, sum(amount) AS amount FROM points_cover WHERE merchant_id = :merchant_id GROUP BY lot_id
    ) c ON c.lot_id = l.entry_id LEFT JOIN (
        SELECT r.lot_id, r.member_id, sum(r.amount) AS amount, sum(r.expired) AS expired,
            sum(r.shortfall + coalesce(c.amount, 0)) AS lacking
        FROM points_return r LEFT JOIN (
            SELECT return_id, sum(amount) AS amount FROM points_cover WHERE merchant_id = :merchant_id
            GROUP BY return_id
        ) c ON c.return_id = r.id
        WHERE r.merchant_id = :merchant_id GROUP BY r.lot_id, r.member_id
    ) r ON r.lot_id = l.entry_id
    WHERE l.merchant_id = :merchant_id AND (
        l.expired <> coalesce(p.expired, 0) OR l.returned <> coalesce(r.amount, 0) OR coalesce(r.expired, 0) > l.expired
        OR coalesce(r.lacking, 0) > coalesce(p.spent, 0) + l.held OR r.member_id <> l.member_id
        OR coalesce(p.taken, 0) - coalesce(c.amount, 0)
            <> coalesce(r.amount - r.expired - r.lacking, 0)
    )""",
)
INVITE_QUOTAS: Final = _promise(
    "INVITE_QUOTAS",
    """
    SELECT FROM (SELECT * FROM invite_quota WHERE merchant_id = :merchant_id) q
    FULL JOIN (
        SELECT referrer_id, count(*) FILTER (WHERE status <> 'EXPIRED') AS sent
        FROM invite WHERE merchant_id = :merchant_id GROUP BY referrer_id
    ) i ON i.referrer_id = q.member_id
    WHERE q.sent_lifetime IS DISTINCT FROM coalesce(i.sent, 0)""",
    """
    SELECT FROM invite_quota WHERE merchant_id = :merchant_id
        AND (sent_today NOT BETWEEN 0 AND day_max OR sent_lifetime NOT BETWEEN 0 AND lifetime_max)""",
)
#: Rows are dated by when their transactions began: of two that began within this either may have been first.
_AT_ONCE: Final = "interval '1 minute'"
CONVERTED_REFERRALS: Final = _promise(
    "CONVERTED_REFERRALS",
    """
    SELECT FROM (SELECT * FROM referral WHERE merchant_id = :merchant_id) r
    FULL JOIN (SELECT * FROM invite WHERE merchant_id = :merchant_id AND status = 'CONVERTED') i ON i.id = r.invite_id
    WHERE (i.referrer_id, i.referee_id) IS DISTINCT FROM (r.referrer_id, r.referee_id)""",
    _repeated("referral", "referee_id"),
    _repeated("referral", "invite_id"),
    "SELECT FROM referral WHERE merchant_id = :merchant_id AND referrer_id = referee_id",
    # A mailbox is taken by an invite that was paid for, or is to be.
    """
    SELECT FROM rewarded_mailbox x JOIN invite i ON i.merchant_id = :merchant_id AND i.id = x.invite_id
    WHERE x.merchant_id = :merchant_id AND i.status <> 'CONVERTED'""",
    _repeated("rewarded_mailbox", "mailbox_index"),
    # Whoever can't be reached from a member that nobody brought is part of a circle.
    """
    WITH RECURSIVE brought AS (
        SELECT r.referee_id FROM referral r WHERE r.merchant_id = :merchant_id AND NOT EXISTS (
            SELECT FROM referral above WHERE above.merchant_id = :merchant_id AND above.referee_id = r.referrer_id
        )
        UNION
        SELECT r.referee_id FROM brought JOIN referral r ON r.merchant_id = :merchant_id
            AND r.referrer_id = brought.referee_id
    )
    SELECT FROM referral r WHERE r.merchant_id = :merchant_id
        AND NOT EXISTS (SELECT FROM brought WHERE brought.referee_id = r.referee_id)""",
    # Both are credited for a conversion that stands released, but for who was erased before or meanwhile, and nobody
    # without one. One that a merging dropped names the merged record as referee.
    f"""
    SELECT FROM referral r
    JOIN member n ON n.merchant_id = :merchant_id AND n.id = r.referrer_id
    JOIN member o ON o.merchant_id = :merchant_id AND o.id = r.referee_id
    LEFT JOIN points_entry a ON a.merchant_id = :merchant_id AND a.id = r.referrer_entry_id
    LEFT JOIN points_entry b ON b.merchant_id = :merchant_id AND b.id = r.referee_entry_id
    WHERE r.merchant_id = :merchant_id AND r.released_at IS NOT NULL AND (
        ((a.reason, {_standing("a.member_id")}, a.amount)
                IS DISTINCT FROM ('REFERRAL_REFERRER', {_standing("r.referrer_id")}, r.referrer_points)
            AND (a.id IS NOT NULL OR n.erased_at IS NULL OR n.erased_at > r.released_at + {_AT_ONCE}))
        OR ((b.reason, {_standing("b.member_id")}, b.amount)
                IS DISTINCT FROM ('REFERRAL_REFEREE', {_standing("r.referee_id")}, r.referee_points)
            AND (b.id IS NOT NULL OR o.erased_at IS NULL OR o.erased_at > r.released_at + {_AT_ONCE}))
    )""",
    # Paid once, net: all of both credits stands while the referral does, and nothing of them when it has fallen.
    """
    SELECT FROM referral r
    JOIN points_lot a ON a.merchant_id = :merchant_id AND a.entry_id IN (r.referrer_entry_id, r.referee_entry_id)
    WHERE r.merchant_id = :merchant_id AND a.returned
        <> CASE WHEN r.reversed_at IS NULL THEN 0 ELSE a.amount END""",
    # Nobody else is credited. What isn't a lot gives back what a fall had taken, and is the same member's.
    f"""
    SELECT FROM points_entry e LEFT JOIN referral r ON r.merchant_id = :merchant_id
        AND replace(r.invite_id::text, '-', '') = split_part(e.origin, '/', 1)
    WHERE e.merchant_id = :merchant_id AND e.reason IN ('REFERRAL_REFERRER', 'REFERRAL_REFEREE') AND NOT coalesce(
        CASE WHEN e.spendable_at IS NOT NULL THEN e.id = CASE e.reason
            WHEN 'REFERRAL_REFERRER' THEN r.referrer_entry_id ELSE r.referee_entry_id END
        ELSE r.falls > 0 AND {_standing("e.member_id")} = CASE e.reason
            WHEN 'REFERRAL_REFERRER' THEN {_standing("r.referrer_id")} ELSE {_standing("r.referee_id")} END END, false)
    """,
    # Within the window a referral stands by a purchase of the referee of which enough was paid with money.
    f"""
    SELECT FROM referral r JOIN purchase b ON b.merchant_id = :merchant_id AND b.id = r.purchase_id
    WHERE r.merchant_id = :merchant_id AND (b.member_id <> {_standing("r.referee_id")} OR (
        r.reversed_at IS NULL
        AND r.converted_at > now() - r.refund_window_days * interval '24 hours'
        AND b.amount - b.refunded - b.paid_value + b.returned_value < coalesce(r.minimum_purchase, 1)
    ))""",
)
POOL_LIFECYCLE: Final = _promise(
    "POOL_LIFECYCLE",
    # Of DRAFT → ACTIVE ⇄ PAUSED → ARCHIVED each step is on record, and only such steps lead to the status.
    f"""
    SELECT FROM pool p LEFT JOIN (
        SELECT subject_id, count(*) FILTER (WHERE type = 'pool.activated') AS activated,
            count(*) FILTER (WHERE type = 'pool.paused') AS paused,
            count(*) FILTER (WHERE type = 'pool.archived') AS archived
        FROM ({told("pool.activated", "pool.paused", "pool.archived")}) steps
        GROUP BY subject_id
    ) e ON e.subject_id = p.id
    WHERE p.merchant_id = :merchant_id AND NOT coalesce(CASE p.status
        WHEN 'DRAFT' THEN e.subject_id IS NULL
        WHEN 'ACTIVE' THEN archived = 0 AND activated = paused + 1
        WHEN 'PAUSED' THEN archived = 0 AND activated = paused AND paused > 0
        WHEN 'ARCHIVED' THEN archived = 1 AND activated - paused IN (0, 1) AND activated > 0
    END, false)""",
    # Nothing of a draft is anybody's but what was imported so.
    """
    SELECT FROM pool p WHERE p.merchant_id = :merchant_id AND p.status = 'DRAFT' AND EXISTS (
        SELECT FROM claim k JOIN code c ON c.merchant_id = :merchant_id AND c.id = k.code_id
        JOIN code_batch b ON b.merchant_id = :merchant_id AND b.id = c.batch_id
        WHERE k.merchant_id = :merchant_id AND k.pool_id = p.id AND b.kind <> 'IMPORTED'
    )""",
    # Each version of a pool's terms is there, and the last is what the pool goes by.
    """
    SELECT FROM pool p LEFT JOIN (
        SELECT pool_id, count(*) AS versions, max(version) AS last FROM pool_terms
        WHERE merchant_id = :merchant_id GROUP BY pool_id
    ) v ON v.pool_id = p.id
    LEFT JOIN pool_terms t ON t.merchant_id = :merchant_id AND t.pool_id = p.id AND t.version = p.terms_version
    WHERE p.merchant_id = :merchant_id AND (
        (v.versions, v.last) IS DISTINCT FROM (p.terms_version::bigint, p.terms_version) OR (
            p.percent_off, p.amount_off, p.gift_sku, p.minimum_spend, p.maximum_discount, p.starts_at, p.ends_at,
            p.code_lifetime_days, p.claims_per_member, p.stacking, p.transferable
        ) IS DISTINCT FROM (
            t.percent_off, t.amount_off, t.gift_sku, t.minimum_spend, t.maximum_discount, t.starts_at, t.ends_at,
            t.code_lifetime_days, t.claims_per_member, t.stacking, t.transferable
        )
    )""",
    """
    SELECT FROM redemption r WHERE r.merchant_id = :merchant_id AND NOT EXISTS (
        SELECT FROM pool_terms t
        WHERE t.merchant_id = :merchant_id AND t.pool_id = r.pool_id AND t.version = r.terms_version
    )""",
)
# Rows of some tables go, a draft goes with all that it had, and a newer version may know events that this one doesn't.
# Of a draft's code that was only looked at nobody wrote down that it went.
_KNOWN_EVENTS: Final = ", ".join(
    f"'{each}'" for each, subject in EVENTS.items() if subject in SUBJECTS and each != "code.revealed"
)
_SUBJECTS: Final = (
    " UNION ALL ".join(
        f"SELECT {reference.key} AS id FROM {reference.target} WHERE merchant_id = :merchant_id"
        for reference in SUBJECTS.values()
    )
    + f"""
    UNION ALL SELECT subject_id FROM ({told("pool.discarded", "codes.discarded", "code.discarded")}) gone"""
)
ONE_MERCHANT: Final = _promise(
    "ONE_MERCHANT",
    *(_dangling(reference) for reference in (*REFERENCES, *UNKEYED)),
    f"""
    SELECT FROM event e WHERE e.merchant_id = :merchant_id AND e.type IN ({_KNOWN_EVENTS})
        AND NOT EXISTS (SELECT FROM ({_SUBJECTS}) s WHERE s.id = e.subject_id)""",
)

# What must be on record, by the event that says it; events that say the same are told apart by nobody here.
_EXPECTED: Final = """
    SELECT 'merchant.created' AS type, merchant_id AS subject_id FROM merchant WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'api_key.created', id FROM api_key WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'api_key.revoked', id FROM api_key WHERE merchant_id = :merchant_id AND revoked_at IS NOT NULL
    UNION ALL SELECT 'member.enrolled', id FROM member WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'member.erased', member_id FROM erasure WHERE merchant_id = :merchant_id AND member_id IS NOT NULL
    UNION ALL SELECT 'member.merged', id FROM member WHERE merchant_id = :merchant_id AND merged_into_id IS NOT NULL
    UNION ALL SELECT 'pool.created', id FROM pool WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'codes.generated', id FROM code_batch WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'code.claimed', id FROM code
    WHERE merchant_id = :merchant_id AND allocated_at IS NOT NULL AND NOT bearer
    UNION ALL SELECT 'code.redeemed', code_id FROM redemption WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'code.expired', id FROM code WHERE merchant_id = :merchant_id AND state = 'EXPIRED'
    UNION ALL SELECT 'code.revoked', id FROM code WHERE merchant_id = :merchant_id AND state = 'REVOKED'
    UNION ALL SELECT 'pool.stock_fell_to_' || level, pool_id FROM stock_alert WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'redemption.reversed', redemption_id FROM reversal WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'order.amended', sales_order_id FROM order_amendment WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'order.cancelled', id FROM sales_order
    WHERE merchant_id = :merchant_id AND cancelled_at IS NOT NULL
    UNION ALL SELECT 'hold.placed', id FROM hold WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'hold.' || lower(status), id FROM hold WHERE merchant_id = :merchant_id AND status <> 'HELD'
    UNION ALL SELECT 'campaign.created', id FROM campaign WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'job.requested', id FROM bulk_job WHERE merchant_id = :merchant_id
    UNION ALL SELECT CASE status WHEN 'DONE' THEN 'job.finished' ELSE 'job.' || lower(status) END, id FROM bulk_job
    WHERE merchant_id = :merchant_id AND finished_at IS NOT NULL
    UNION ALL SELECT 'points.credited', id FROM points_entry WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'purchase.recorded', id FROM purchase WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'purchase.reversed', id FROM purchase WHERE merchant_id = :merchant_id AND reversed_at IS NOT NULL
    UNION ALL SELECT 'reward.created', id FROM reward WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'reward.retired', id FROM reward WHERE merchant_id = :merchant_id AND NOT active
    UNION ALL SELECT 'reward.redeemed', id FROM reward_redemption WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'reward.returned', id FROM reward_redemption
    WHERE merchant_id = :merchant_id AND reversed_at IS NOT NULL
    UNION ALL SELECT 'invite.sent', id FROM invite WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'invite.accepted', id FROM invite WHERE merchant_id = :merchant_id AND accepted_at IS NOT NULL
    UNION ALL SELECT 'invite.obstructed', id FROM invite WHERE merchant_id = :merchant_id AND obstacle IS NOT NULL
    UNION ALL SELECT 'invite.expired', id FROM invite WHERE merchant_id = :merchant_id AND status = 'EXPIRED'
    UNION ALL SELECT 'invite.cancelled', id FROM invite WHERE merchant_id = :merchant_id AND status = 'CANCELLED'
    UNION ALL SELECT 'referral.converted', id FROM referral WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'referral.declined', id FROM referral WHERE merchant_id = :merchant_id AND declined_at IS NOT NULL
    UNION ALL SELECT 'referral.reversed', id FROM referral WHERE merchant_id = :merchant_id AND reversed_at IS NOT NULL
    UNION ALL SELECT 'graph_snapshot.taken', id FROM graph_snapshot WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'advice_run.requested', id FROM advice_run WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'advice_run.finished', id FROM advice_run WHERE merchant_id = :merchant_id AND status = 'DONE'
    UNION ALL SELECT 'advice_run.failed', id FROM advice_run WHERE merchant_id = :merchant_id AND status = 'FAILED'
    UNION ALL SELECT 'webhook.created', id FROM webhook WHERE merchant_id = :merchant_id
    UNION ALL SELECT 'webhook.disabled', id FROM webhook WHERE merchant_id = :merchant_id AND disabled_at IS NOT NULL
"""
_SAYS: Final = """
    CASE type WHEN 'code.sent' THEN 'code.claimed' WHEN 'code.imported' THEN 'code.claimed'
        WHEN 'code.reissued' THEN 'code.claimed'
        WHEN 'codes.issued' THEN 'codes.generated' WHEN 'codes.imported' THEN 'codes.generated'
        WHEN 'points.debited' THEN 'points.credited'
        WHEN 'referral.held' THEN 'referral.converted' ELSE type END
"""
ON_RECORD: Final = _promise(
    "ON_RECORD",
    f"""
    SELECT FROM ({_EXPECTED}) expected LEFT JOIN (
        SELECT {_SAYS} AS type, subject_id FROM ({told()}) every
    ) said ON said.type = expected.type AND said.subject_id = expected.subject_id
    WHERE said.type IS NULL""",
    # Each refund of a purchase is one event's.
    f"""
    SELECT FROM (
        SELECT purchase_id, count(*) AS refunds FROM refund WHERE merchant_id = :merchant_id GROUP BY purchase_id
    ) f FULL JOIN (
        SELECT subject_id, count(*) AS told FROM ({told("purchase.refunded")}) refunded GROUP BY subject_id
    ) e ON e.subject_id = f.purchase_id
    WHERE f.refunds IS DISTINCT FROM e.told""",
    # Every version of a wallet, from the first to the last, is one event's: where some end that follow each other the
    # next ones begin.
    f"""
    SELECT FROM wallet w LEFT JOIN (
        SELECT member_id, max(last) AS last, bool_and(first = before + 1) AS is_whole FROM (
            SELECT member_id, first, last,
                coalesce(lag(last) OVER (PARTITION BY member_id ORDER BY first, last), 0) AS before
            FROM ({VERSIONS}) stretch
        ) v GROUP BY member_id
    ) e ON e.member_id = w.member_id
    WHERE w.merchant_id = :merchant_id AND (w.version <> coalesce(e.last, 0) OR NOT coalesce(e.is_whole, true))""",
)
HELD_IS_THERE: Final = _promise(
    "HELD_IS_THERE",
    # What a code says of its hold is what the hold says of the code, as long as that holds anything.
    """
    SELECT FROM (
        SELECT id, hold_id, held_until FROM code WHERE merchant_id = :merchant_id AND held_until > now()
            AND state IN ('ALLOCATED', 'SET_ASIDE')
    ) c
    FULL JOIN (
        SELECT x.code_id, h.id, h.held_until FROM hold h JOIN (
            SELECT hold_id, code_id FROM hold_code WHERE merchant_id = :merchant_id
            UNION ALL
            SELECT hold_id, code_id FROM hold_reward WHERE merchant_id = :merchant_id AND code_id IS NOT NULL
        ) x ON x.hold_id = h.id
        WHERE h.merchant_id = :merchant_id AND h.status = 'HELD' AND h.held_until > now()
    ) h ON h.code_id = c.id
    WHERE (c.hold_id, c.held_until) IS DISTINCT FROM (h.id, h.held_until)""",
    # What isn't ALLOCATED or set aside is held by nobody.
    """
    SELECT FROM code WHERE merchant_id = :merchant_id AND held_until > now() AND state NOT IN ('ALLOCATED', 'SET_ASIDE')
    """,
    # The codes of a hold are one stack, and what they take off is what the hold says. Captured, each is redeemed.
    """
    SELECT FROM (
        SELECT h.id, h.order_amount, h.total_discount, h.status, x.redemption_id, x.position, x.base, x.eligible,
            row_number() OVER stack AS place,
            h.order_amount - sum(x.discount) OVER stack + x.discount AS left_over
        FROM hold h JOIN hold_code x ON x.merchant_id = :merchant_id AND x.hold_id = h.id
        WHERE h.merchant_id = :merchant_id
        WINDOW stack AS (PARTITION BY h.id ORDER BY x.position)
    ) h WHERE position <> place OR base <> least(left_over, eligible)
        OR (status = 'CAPTURED') <> (redemption_id IS NOT NULL)""",
    """
    SELECT FROM hold h LEFT JOIN (
        SELECT hold_id, sum(discount) AS discount FROM hold_code WHERE merchant_id = :merchant_id GROUP BY hold_id
    ) x ON x.hold_id = h.id
    WHERE h.merchant_id = :merchant_id AND h.total_discount <> coalesce(x.discount, 0)""",
    # A hold has set aside as many points as it says, until it ends.
    """
    SELECT FROM (
        SELECT id, held_points FROM hold WHERE merchant_id = :merchant_id AND status = 'HELD' AND held_points > 0
    ) h FULL JOIN (
        SELECT hold_id, sum(amount) AS points FROM hold_part WHERE merchant_id = :merchant_id GROUP BY hold_id
    ) p ON p.hold_id = h.id WHERE p.points IS DISTINCT FROM h.held_points""",
    # It has what it pays with, and what its rewards cost.
    """
    SELECT FROM hold h LEFT JOIN (
        SELECT hold_id, sum(cost) AS points FROM hold_reward WHERE merchant_id = :merchant_id GROUP BY hold_id
    ) y ON y.hold_id = h.id
    WHERE h.merchant_id = :merchant_id AND h.held_points <> h.points + coalesce(y.points, 0)""",
    # An order is captured once, held once at a time, and held only while it is neither redeemed nor cancelled.
    _repeated("hold", "sales_order_id", where="status = 'CAPTURED'"),
    _repeated("hold", "sales_order_id", where="status = 'HELD'"),
    """
    SELECT FROM hold h JOIN sales_order o ON o.merchant_id = :merchant_id AND o.id = h.sales_order_id
    WHERE h.merchant_id = :merchant_id AND CASE h.status
        WHEN 'CAPTURED' THEN o.order_amount IS NULL
        WHEN 'HELD' THEN h.held_until > now() AND (o.order_amount IS NOT NULL OR o.cancelled_at IS NOT NULL)
        ELSE false END""",
    """
    SELECT FROM hold WHERE merchant_id = :merchant_id
        AND (held_until > held_at + interval '720 hours' OR (status = 'HELD') <> (ended_at IS NULL))""",
)

#: The promises, numbered as the domain numbers them: a code has one owner; claims per member and address; a code is
#: redeemed once; a batch is whole; no two codes are the same text; a points event is credited once; balances are
#: sums; invite quotas hold; referrals are conversions; pools keep to their lifecycle; no row names another merchant's;
#: what happened is on record; what is held is there.
PROMISES: Final = (
    ONE_OWNER, CLAIM_LIMIT, REDEEMED_ONCE, WHOLE_BATCHES, UNIQUE_CODES, CREDITED_ONCE,
    EXACT_BALANCES, INVITE_QUOTAS, CONVERTED_REFERRALS, POOL_LIFECYCLE, ONE_MERCHANT, ON_RECORD,
    HELD_IS_THERE,
)  # fmt: skip
