"""configureMerchant: what points are worth, how long they live, and in which time zone the merchant's days begin."""

import zoneinfo
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from app import ids
from app.api.inputs import MONEY_MAX, Problems
from app.api.operations import Info, InvalidInput, Refused, mutation
from app.api.scalars import BigInt
from app.config import ConfigurationError
from app.merchants.rows import SettingsRow, settings_row
from app.merchants.types import Merchant, MerchantSettings
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.statements import columns, statement

LIFETIME_DAYS_MAX: Final = 3650
WARNING_DAYS_MAX: Final = 365
PENDING_DAYS_MAX: Final = 365
MEMORY_DAYS_MAX: Final = 3650
RATE_MAX: Final = 10_000


@strawberry.input(description="What to change; what is left out stays. Null takes an optional setting away.")
class ConfigureMerchantInput:
    """Any of the settings."""

    points_per_unit: float | None = strawberry.field(
        default=UNSET,
        description="Points for each unit of the currency (not minor unit) of a purchase: 0 to 10,000, "
        "at most 4 decimals. Purchases recorded from now on earn by it.",
    )
    point_value: float | None = strawberry.field(
        default=UNSET, description="What a point is worth, in minor units: 0 to 10,000, at most 6 decimals."
    )
    points_lifetime_days: int | None = strawberry.field(
        default=UNSET,
        description="After how many days points expire, 1 to 3,650; null for never. It counts for points credited "
        "from now on.",
    )
    points_warning_days: int | None = strawberry.field(
        default=UNSET,
        description="How many days before points expire an event warns of it, 0 to 365; 0 for no warning.",
    )
    points_pending_days: int | None = strawberry.field(
        default=UNSET,
        description="After how many days from when it happened a purchase's points can be spent, 0 to 365; 0: at once. "
        "Purchases recorded from now on keep it.",
    )
    recover_shortfalls: bool | None = strawberry.field(
        default=UNSET,
        description="Whether points of later purchases make good what a return could not take back.",
    )
    erasure_memory_days: int | None = strawberry.field(
        default=UNSET,
        description="For how many days limits and imports know that a person was erased, 0 to 3,650; 0: not at all. "
        "It counts at once, also for who was erased before.",
    )
    time_zone: str | None = strawberry.field(
        default=UNSET, description="The IANA name of the time zone in which the merchant's days begin."
    )
    margin_rate: float | None = strawberry.field(
        default=UNSET,
        description="The share of a sale that is margin: 0 to 1, at most 4 decimals; null if unknown. The "
        "advisor takes 0.3 for unknown.",
    )
    advised_percent_max: float | None = strawberry.field(
        default=UNSET,
        description="The highest percentage that the advisor may suggest: over 0, at most 100, at most 4 decimals; "
        "null for no limit but the margin.",
    )
    advised_amount_max: BigInt | None = strawberry.field(
        default=UNSET,
        description="The highest discount in minor units that the advisor may suggest: over 0; null for no limit but "
        "the margin.",
    )


@strawberry.type(description="The settings are as asked.")
class ConfigureMerchantSuccess:
    """The merchant."""

    merchant: Merchant = strawberry.field(description="The merchant with its settings.")


ConfigureMerchantResult = Annotated[
    ConfigureMerchantSuccess | InvalidInput,
    strawberry.union("ConfigureMerchantResult", description="The merchant, or why it stays as it was."),
]

#: The settings in the order in which their problems are told.
SETTINGS: Final = (
    "points_per_unit", "point_value", "points_lifetime_days", "points_warning_days", "points_pending_days",
    "recover_shortfalls", "erasure_memory_days", "time_zone", "margin_rate", "advised_percent_max",
    "advised_amount_max",
)  # fmt: skip
#: Of exact numbers the most that they may be, and their decimals.
_DECIMALS: Final = (
    ("points_per_unit", RATE_MAX, 4), ("point_value", RATE_MAX, 6), ("margin_rate", 1, 4),
    ("advised_percent_max", 100, 4),
)  # fmt: skip
_OPTIONAL: Final = {"points_lifetime_days", "margin_rate", "advised_percent_max", "advised_amount_max"}
# A setting is changed if it is among `:changed`: null is a value, too.
CONFIGURE: Final = statement(
    SettingsRow,
    f"""
WITH s AS (
    UPDATE merchant SET
        points_per_unit = CASE WHEN 'points_per_unit' = ANY(:changed::text[])
            THEN :points_per_unit ELSE points_per_unit END,
        point_value = CASE WHEN 'point_value' = ANY(:changed) THEN :point_value ELSE point_value END,
        points_lifetime_days = CASE WHEN 'points_lifetime_days' = ANY(:changed)
            THEN :points_lifetime_days ELSE points_lifetime_days END,
        points_warning_days = CASE WHEN 'points_warning_days' = ANY(:changed)
            THEN :points_warning_days ELSE points_warning_days END,
        points_pending_days = CASE WHEN 'points_pending_days' = ANY(:changed)
            THEN :points_pending_days ELSE points_pending_days END,
        recover_shortfalls = CASE WHEN 'recover_shortfalls' = ANY(:changed)
            THEN :recover_shortfalls ELSE recover_shortfalls END,
        erasure_memory_days = CASE WHEN 'erasure_memory_days' = ANY(:changed)
            THEN :erasure_memory_days ELSE erasure_memory_days END,
        time_zone = CASE WHEN 'time_zone' = ANY(:changed) THEN :time_zone ELSE time_zone END,
        margin_rate = CASE WHEN 'margin_rate' = ANY(:changed) THEN :margin_rate ELSE margin_rate END,
        advised_percent_max = CASE WHEN 'advised_percent_max' = ANY(:changed)
            THEN :advised_percent_max ELSE advised_percent_max END,
        advised_amount_max = CASE WHEN 'advised_amount_max' = ANY(:changed)
            THEN :advised_amount_max ELSE advised_amount_max END
    WHERE merchant_id = :merchant_id RETURNING *
), recorded AS (
    {event("merchant.configured", subject=":merchant_id", source="s")}
)
SELECT {columns(SettingsRow)} FROM s WHERE s.merchant_id = :merchant_id
""",
)


def checked(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings to change, exact. Raises Refused(InvalidInput) with every problem of them."""
    problems = Problems()
    for name in SETTINGS:
        if name in wanted and wanted[name] is None and name not in _OPTIONAL:
            problems.add(to_camel_case(name), "must not be null")
    values = dict(wanted)
    for name, most, decimals in _DECIMALS:
        if wanted.get(name) is not None:
            values[name] = _decimal(problems, to_camel_case(name), wanted[name], most=most, decimals=decimals)
    problems.number("pointsLifetimeDays", wanted.get("points_lifetime_days"), least=1, most=LIFETIME_DAYS_MAX)
    problems.number("pointsWarningDays", wanted.get("points_warning_days"), least=0, most=WARNING_DAYS_MAX)
    problems.number("pointsPendingDays", wanted.get("points_pending_days"), least=0, most=PENDING_DAYS_MAX)
    problems.number("erasureMemoryDays", wanted.get("erasure_memory_days"), least=0, most=MEMORY_DAYS_MAX)
    if wanted.get("advised_percent_max") == 0:
        problems.add("advisedPercentMax", "must be over 0")
    problems.number("advisedAmountMax", wanted.get("advised_amount_max"), least=1, most=MONEY_MAX)
    zone = wanted.get("time_zone")
    # Some systems list their own zone as one more; the database doesn't know it.
    if zone is not None and zone not in zoneinfo.available_timezones() - {"localtime"}:
        problems.add("timeZone", "must be the IANA name of a time zone, like Europe/Berlin")
    problems.refuse_if_any()
    return values


def _decimal(problems: Problems, path: str, value: float, *, most: int, decimals: int) -> Decimal:
    exact = Decimal(str(value))
    if not exact.is_finite() or not 0 <= exact <= most:
        problems.add(path, f"must be between 0 and {most}")
    elif exact != exact.quantize(Decimal(1).scaleb(-decimals)):
        problems.add(path, f"must have at most {decimals} decimals")
    return exact


async def configure(where: Statements, merchant_id: UUID, actor: str, wanted: Mapping[str, Any]) -> SettingsRow | None:
    """Change the settings that `wanted` names, and record it. Returns all settings, or None without the merchant.

    Raises Refused(InvalidInput).
    """
    values = checked(wanted)
    return await where.row(
        CONFIGURE,
        merchant_id=merchant_id,
        event_id=ids.new(),
        actor=actor,
        changed=list(values),
        **{name: values.get(name) for name in SETTINGS},
    )


async def configure_by_operator(named: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Change the settings of the merchant with this id, if there is something to change, and return all of them.

    Raises ConfigurationError for what the mutation would refuse.
    """
    merchant_id = ids.decode("merchant", named)
    row = None
    if merchant_id is not None:
        try:
            row = await configure(database(), merchant_id, "system", wanted) if wanted else None
        except Refused as refused:
            raise ConfigurationError(refused.refusal.message) from None
        row = row or await settings_row(merchant_id)
    if row is None:
        raise ConfigurationError(f"There is no merchant {named}.")
    return {"merchantId": named} | {
        to_camel_case(name): value for name, value in asdict(MerchantSettings.of(row)).items()
    }


@mutation(description="Change the merchant's settings, at once for all processes. ADMIN only.")
async def configure_merchant(
    info: Info, input: Annotated[ConfigureMerchantInput, strawberry.argument(description="What to change.")]
) -> ConfigureMerchantResult:
    viewer = info.context.viewer
    wanted = {name: value for name in SETTINGS if (value := getattr(input, name)) is not UNSET}
    if wanted:
        await configure(database(), viewer.merchant_id, viewer.actor, wanted)
    return ConfigureMerchantSuccess(merchant=Merchant.of(viewer.tenant))
