"""Which reports there are: where each one's rows come from, and the statements that read a page or all of them."""

from dataclasses import dataclass
from typing import Final

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

_PAGE: Final = """
SELECT {columns}, {alias}.id AS key FROM {source}
WHERE {alias}.merchant_id = $1 AND {alias}.id < $4 AND {alias}.id >= $5 ORDER BY {alias}.id DESC LIMIT $6
"""
#: Oldest first, so that the same rows are the same bytes.
_EXPORT: Final = "SELECT {columns} FROM {source} WHERE {alias}.merchant_id = $1 ORDER BY {alias}.id"

# Each row is looked up by its whole key, whatever the planner knows of the tables.
_STOCK_OF_POOL: Final = """
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(available), 0)::int AS available, coalesce(sum(allocated), 0)::int AS allocated,
            coalesce(sum(redeemed), 0)::int AS redeemed, coalesce(sum(expired), 0)::int AS expired,
            coalesce(sum(revoked), 0)::int AS revoked,
            coalesce(sum(available + allocated + redeemed + expired + revoked), 0)::int AS total
        FROM stock_change WHERE merchant_id = $1 AND pool_id = p.id
    ) s
"""
# Most codes are nobody's: for these nothing but the pool is looked up.
_OF_CODE: Final = """
    CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = $1 AND id = c.pool_id OFFSET 0) p
    LEFT JOIN LATERAL (
        SELECT campaign_id FROM delivery
        WHERE merchant_id = $1 AND code_id = c.id AND c.allocated_at IS NOT NULL ORDER BY campaign_id LIMIT 1
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT id, order_id, order_amount, discount FROM redemption
        WHERE merchant_id = $1 AND code_id = c.id AND reversed_at IS NULL AND c.state = 'REDEEMED' OFFSET 0
    ) r ON true
"""
_OF_MEMBER: Final = """
    CROSS JOIN LATERAL (SELECT points FROM wallet WHERE merchant_id = $1 AND member_id = m.id OFFSET 0) w
"""
_OF_REDEMPTION: Final = """
    CROSS JOIN LATERAL (SELECT member_id FROM code WHERE merchant_id = $1 AND id = r.code_id OFFSET 0) c
"""


@dataclass(frozen=True)
class Report:
    """A report: the type of its rows, the table that they are of with its alias, and what is looked up for each."""

    row_type: type
    table: str
    alias: str
    looked_up: str = ""

    @property
    def page(self) -> str:
        """The statement of a page, newest first: after `money_of`, ids below $4 and from $5 on, $6 of them."""
        return _PAGE.format(columns=selected(self.row_type), source=self._source, alias=self.alias)

    @property
    def export(self) -> str:
        """The statement of all rows, oldest first, as they are written: after `money_of`."""
        return _EXPORT.format(columns=written(self.row_type), source=self._source, alias=self.alias)

    @property
    def _source(self) -> str:
        return f"{self.table} {self.alias} {self.looked_up} {MONEY}"


#: By the name of the file that it is exported to; `reportPools` and so on in the API.
REPORTS: Final = {
    "pools": Report(ReportPool, "pool", "p", _STOCK_OF_POOL),
    "codes": Report(ReportCode, "code", "c", _OF_CODE),
    "members": Report(ReportMember, "member", "m", _OF_MEMBER),
    "purchases": Report(ReportPurchase, "purchase", "b"),
    "pointsEntries": Report(ReportPointsEntry, "points_entry", "e"),
    "redemptions": Report(ReportRedemption, "redemption", "r", _OF_REDEMPTION),
    "invites": Report(ReportInvite, "invite", "i"),
    "referrals": Report(ReportReferral, "referral", "r"),
}


def money_of(currency: str) -> tuple[str, float]:
    """Return what a report's statement takes after the merchant: its currency, and the minor units of a unit of it."""
    return currency, float(10 ** (Currency(currency).exponent or 0))
