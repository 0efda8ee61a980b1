"""integrityReport: every promise of the engine, recomputed from the merchant's rows at once or by a worker."""

from datetime import datetime

import strawberry

from app.api.operations import Info, query
from app.integrity.recompute import check
from app.reports import runs
from app.reports.runs import CheckStatus, Report


@strawberry.type(description="One promise of the engine, recomputed.")
class IntegrityCheck:
    """A promise and how often the rows break it."""

    name: str = strawberry.field(
        description="The promise: ONE_OWNER (of a code), CLAIM_LIMIT (per member and address), REDEEMED_ONCE (a code), "
        "WHOLE_BATCHES (of codes), UNIQUE_CODES, CREDITED_ONCE (points), EXACT_BALANCES, INVITE_QUOTAS, "
        "CONVERTED_REFERRALS, POOL_LIFECYCLE, ONE_MERCHANT (per row and what it refers to), ON_RECORD "
        "or HELD_IS_THERE."
    )
    ok: bool = strawberry.field(description="Whether nothing breaks it.")
    violations: int = strawberry.field(description="How many rows break it.")


@strawberry.type(description="Every promise of the engine, recomputed from the merchant's rows.")
class IntegrityReport:
    """One check per promise."""

    status: CheckStatus = strawberry.field(description="How far the last run is.")
    problem: str | None = strawberry.field(description="Why the last run ended without a result; null otherwise.")
    checked_at: datetime | None = strawberry.field(
        description="When the checks that are shown began; null before the first run has ended."
    )
    ok: bool = strawberry.field(description="Whether every promise held then; false before the first run has ended.")
    checks: list[IntegrityCheck] = strawberry.field(description="One per promise; none before the first run has ended.")

    @classmethod
    def of(cls, report: Report) -> "IntegrityReport":
        """Return what is shown of a report."""
        checks = [
            IntegrityCheck(name=name, ok=violations == 0, violations=violations)
            for name, violations in report.content or ()
        ]
        return cls(
            status=report.status,
            problem=report.problem,
            checked_at=report.generated_at,
            ok=bool(checks) and all(check.ok for check in checks),
            checks=checks,
        )


@query(
    description="Every promise of the engine, recomputed from the merchant's rows: as of now where that takes no "
    "longer than a moment (FLASH_REPORT_AT_ONCE_SECONDS_MAX), and otherwise what the last run found, the night's or "
    "one that `checkIntegrity` asked for. ADMIN and ANALYST."
)
async def integrity_report(info: Info) -> IntegrityReport:
    merchant_id = info.context.viewer.merchant_id
    return IntegrityReport.of(await runs.at_once_or_kept(merchant_id, runs.INTEGRITY, check))
