"""Which reports there are: where each one's rows come from, and the statements that read a page or all of them."""

from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

from iso4217 import Currency

from app.reports.columns import MONEY, selected, written
from app.reports.rows import (
    ReportCode,
    ReportInvite,
    ReportMember,
    ReportPointsEntry,
    ReportPool,
    ReportPurchase,
    ReportRedemption,
    ReportReferral,
)
from app.storage.statements import NoRow, Statement, statement


class PageRow(TypedDict):
    """A row of a report's page: its place, and beside it a column for each field of the report's row type."""

    key: UUID


class Money(TypedDict):
    """The parameters of MONEY."""

    currency: str
    minor_units: float


# Each row is looked up by its whole key, whatever the planner knows of the tables.
_STOCK_OF_POOL: Final = """
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(available), 0)::int AS available, coalesce(sum(allocated), 0)::int AS allocated,
            coalesce(sum(redeemed), 0)::int AS redeemed, coalesce(sum(expired), 0)::int AS expired,
            coalesce(sum(revoked), 0)::int AS revoked,
            coalesce(sum(available + allocated + redeemed + expired + revoked), 0)::int AS total
        FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = p.id
    ) s
"""
# Most codes are nobody's: for these nothing but the pool is looked up.
_OF_CODE: Final = """
    CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = c.pool_id OFFSET 0) p
    LEFT JOIN LATERAL (
        SELECT campaign_id FROM delivery
        WHERE merchant_id = :merchant_id AND code_id = c.id AND c.allocated_at IS NOT NULL ORDER BY campaign_id LIMIT 1
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT id, order_id, order_amount, discount FROM redemption
        WHERE merchant_id = :merchant_id AND code_id = c.id AND reversed_at IS NULL AND c.state = 'REDEEMED' OFFSET 0
    ) r ON true
"""
# Of two records that were merged the kept one is a row.
_OF_MEMBER: Final = """
    CROSS JOIN LATERAL (SELECT points FROM wallet WHERE merchant_id = :merchant_id AND member_id = m.id OFFSET 0) w
"""
_OF_ENTRY: Final = """
    CROSS JOIN LATERAL (
        SELECT coalesce(merged_into_id, id) AS id FROM member
        WHERE merchant_id = :merchant_id AND id = e.member_id OFFSET 0
    ) m
"""
_OF_REDEMPTION: Final = """
    CROSS JOIN LATERAL (SELECT member_id FROM code WHERE merchant_id = :merchant_id AND id = r.code_id OFFSET 0) c
"""


@dataclass(frozen=True, slots=True)
class Report:
    """A report: the type of its rows, and what reads them.

    `page` is newest first: the rows below the id `:before` and from `:from_id` on. `export` is all rows as they are
    written, oldest first, so that the same rows are the same bytes; it is for COPY, and nobody reads its rows here.
    """

    row_type: type
    page: Statement[PageRow]
    export: Statement[NoRow]


def _report(row_type: type, table: str, alias: str, looked_up: str = "", *, where: str = "true") -> Report:
    """Return the report of a table's rows, with what is looked up for each of them."""
    source = f"{table} {alias} {looked_up} {MONEY} WHERE {alias}.merchant_id = :merchant_id AND {where}"
    page = f"""
SELECT {selected(row_type)}, {alias}.id AS key FROM {source} AND {alias}.id < :before AND {alias}.id >= :from_id
ORDER BY {alias}.id DESC LIMIT :limit
"""
    export = f"SELECT {written(row_type)} FROM {source} ORDER BY {alias}.id"
    return Report(row_type, statement(PageRow, page), statement(NoRow, export))


#: By the name of the file that it is exported to; `reportPools` and so on in the API.
REPORTS: Final = {
    "pools": _report(ReportPool, "pool", "p", _STOCK_OF_POOL),
    "codes": _report(ReportCode, "code", "c", _OF_CODE),
    "members": _report(ReportMember, "member", "m", _OF_MEMBER, where="m.merged_into_id IS NULL"),
    "purchases": _report(ReportPurchase, "purchase", "b"),
    "pointsEntries": _report(ReportPointsEntry, "points_entry", "e", _OF_ENTRY),
    "redemptions": _report(ReportRedemption, "redemption", "r", _OF_REDEMPTION),
    "invites": _report(ReportInvite, "invite", "i"),
    "referrals": _report(ReportReferral, "referral", "r"),
}


def money_of(currency: str) -> Money:
    """Return a currency, and the minor units of a unit of it."""
    return {"currency": currency, "minor_units": float(10 ** (Currency(currency).exponent or 0))}
