"""redeemCodes: all codes of one order together or not at all, each exactly once."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Protocol
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Money, MoneyInput, Problems
from app.api.operations import Info, InvalidInput, OutpacedError, Refusal, Refused, mutation
from app.api.scalars import BigInt
from app.coupons.rows import HONOURS, IS_HELD, IS_OVER_FOR, RedemptionRow
from app.coupons.rules import CodeRejectionReason
from app.coupons.typed_codes import CODE_LENGTH_MAX, read_typed
from app.coupons.types import Code, Redemption
from app.members.mailboxes import mailbox_index
from app.members.member_keys import MemberKeyInput, member_of_key, optional_key
from app.members.types import MemberSource
from app.orders.budgets import within_budgets
from app.orders.expire_holds import end_of_budgets
from app.orders.first_orders import NAMED_LAST, TAKE, named_person
from app.orders.locks import lock_wallets
from app.orders.order_changes import buyer_of, let_order_follow, lock_order, standing_order
from app.orders.presented_codes import (
    CodeRejection,
    Placed,
    Presentation,
    Verdict,
    judged,
    limited,
    read,
    revive_accepted,
)
from app.orders.types import OrderNotOpen, refuse_if_cancelled
from app.storage.database import Statements, Tx, database, transaction
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

CODES_PER_ORDER_MAX: Final = 20
ATTEMPTS_MAX: Final = 20


@strawberry.input(description="How much of an order a code may be applied to.")
class EligibleAmountInput:
    code: str = strawberry.field(description="One of the order's codes, as typed.")
    amount: MoneyInput = strawberry.field(
        description="What of the order it may be applied to, before discounts; at most the whole order."
    )


@strawberry.input(
    description="All codes of one order, redeemed together or not at all. "
    "The same order, codes and amount again is the same answer."
)
class RedeemCodesInput:
    codes: list[str] = strawberry.field(description="The codes in the order they apply: 1 to 20, as typed.")
    order_id: str = strawberry.field(description="The source's own id of the order, at most 100 characters.")
    order_amount: MoneyInput = strawberry.field(
        description="What the order is worth before discounts: goods with tax, without shipping; 0 or more."
    )
    source: MemberSource | None = strawberry.field(
        default=MemberSource.STORE,
        description="Where the order comes from; orders of two sources with one id are two orders.",
    )
    member_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The member that presents the codes; it or an address is needed unless all are transferable.",
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None,
        description="The member by a store's id or a proven address, in place of its id. One that fits nobody presents "
        "as somebody who owns nothing.",
    )
    email: str | None = strawberry.field(
        default=None,
        description="The address that the presenter gave: it counts for a code with an owner if the owner has proved "
        "it, for any other if the code was claimed with it or sent to it. Where both are given and the code has an "
        "owner, memberId decides.",
    )
    eligible: list[EligibleAmountInput] | None = strawberry.field(
        default=None,
        description="How much of the order each code may be applied to, where that isn't the whole order. A minimum "
        "spend is compared with it.",
    )


@strawberry.type(description="All codes are redeemed.")
class RedeemCodesSuccess:
    redemptions: list[Redemption] = strawberry.field(description="One per code, in the order they applied.")
    total_discount: Money = strawberry.field(description="What the codes take off together.")
    replayed: bool = strawberry.field(description="Whether an earlier call redeemed them on this order.")


#: Why a code is refused to one and may be honoured for another.
_OF_PRESENTER: Final = (
    CodeRejectionReason.NOT_OWNER, CodeRejectionReason.NOT_FIRST_ORDER, CodeRejectionReason.TOO_MANY_ATTEMPTS
)  # fmt: skip


@strawberry.type(description="At least one code can't be redeemed, so none was.")
class CodesRejected(Refusal):
    rejections: list[CodeRejection] = strawberry.field(description="The codes that stand in the way, as given.")

    def depends_on_whom(self) -> bool:
        """Whether a code is refused to who presents it."""
        return any(each.reason in _OF_PRESENTER for each in self.rejections)


RedeemCodesResult = Annotated[
    RedeemCodesSuccess | InvalidInput | CodesRejected | OrderNotOpen,
    strawberry.union("RedeemCodesResult", description="The redemptions, or why there are none."),
]
Presented = Annotated[RedeemCodesInput, strawberry.argument(description="The order and its codes.")]


class Presents(Protocol):
    """What the inputs share that present codes for an order."""

    codes: list[str]
    order_id: str
    order_amount: MoneyInput
    member_id: strawberry.ID | None
    member: MemberKeyInput | None
    email: str | None
    eligible: list[EligibleAmountInput] | None

    @property
    def source(self) -> MemberSource | None:
        """Where the order comes from; the store unless told."""


async def presentation(
    viewer: Viewer, input: Presents, *, codes_min: int = 1, problems: Problems | None = None
) -> Presentation:
    """Check the input, and find the member behind a key.

    Raises Refused(InvalidInput) with every problem, also with those that were found before.
    """
    problems = problems or Problems()
    if not codes_min <= len(input.codes) <= CODES_PER_ORDER_MAX:
        problems.add("codes", f"must be {codes_min} to {CODES_PER_ORDER_MAX} codes")
        problems.refuse_if_any()
    limited = input.eligible or []
    if len(limited) > CODES_PER_ORDER_MAX:
        problems.add("eligible", f"must be at most {CODES_PER_ORDER_MAX} codes")
        problems.refuse_if_any()
    typed_codes = [*input.codes, *(each.code for each in limited)]
    read = await read_typed(viewer, [typed[:CODE_LENGTH_MAX] for typed in typed_codes])
    fingerprints, named_codes = read[: len(input.codes)], read[len(input.codes) :]
    for position, (typed, fingerprint) in enumerate(zip(input.codes, fingerprints, strict=True)):
        if len(typed) > CODE_LENGTH_MAX:
            problems.add(f"codes.{position}", f"must be at most {CODE_LENGTH_MAX} characters")
        if fingerprint is not None and fingerprint in fingerprints[:position]:
            problems.add(f"codes.{position}", "is listed twice")
    order_id = problems.text("orderId", input.order_id, length_max=100)
    currency = input.order_amount.currency
    amount = problems.money("orderAmount", input.order_amount, currency=currency, least=0) or 0
    if len(currency) != 3 or not (currency.isascii() and currency.isalpha() and currency.isupper()):
        problems.add("orderAmount.currency", "must be an ISO 4217 code")
    eligible = _eligible(problems, input, fingerprints, named_codes, amount)
    presenter = None if input.member_id is None else ids.decode("member", input.member_id)
    if input.member_id is not None and presenter is None:
        problems.add("memberId", "must be the id of a member")
    if input.member_id is not None and input.member is not None:
        problems.add("memberId", "or member may be given, and not both")
    key = optional_key(problems, viewer, input.member)
    address = None if input.email is None else problems.email("email", input.email)
    problems.refuse_if_any()
    keys = viewer.tenant.keys
    email_index = None if address is None else keys.email_index(address)
    mailbox = None if address is None else mailbox_index(keys, address)
    named = presenter if key is None else key.nobody()
    # With the order in it, nobody's orders can be found by it.
    source = input.source or MemberSource.STORE
    presented_by = keys.email_index(f"presenter\0{source.value}\0{order_id}\0{named}\0{address}")
    if key is not None:
        presenter = await member_of_key(viewer, key) or key.nobody()
    if presenter is not None:
        presenter = viewer.standing(presenter)
    return Presentation(
        input.codes, fingerprints, source, order_id, amount, currency, presenter, email_index, mailbox, presented_by,
        eligible,
    )  # fmt: skip


def _eligible(
    problems: Problems, input: Presents, fingerprints: list[bytes | None], named: list[bytes | None], amount: int
) -> list[int | None]:
    """Return how much of the order each code may be applied to; None where that is the whole order."""
    found: list[int | None] = [None] * len(input.codes)
    told: set[int] = set()
    for position, (each, fingerprint) in enumerate(zip(input.eligible or [], named, strict=True)):
        path = f"eligible.{position}"
        places = [
            place for place, typed in enumerate(input.codes)
            if (fingerprints[place] == fingerprint if fingerprint is not None else typed == each.code)
        ]  # fmt: skip
        if not places:
            problems.add(f"{path}.code", "is none of the order's codes")
            continue
        if places[0] in told:
            problems.add(f"{path}.code", "is listed twice")
        told.add(places[0])
        most = problems.money(f"{path}.amount", each.amount, currency=input.order_amount.currency, least=0) or 0
        if most > amount:
            problems.add(f"{path}.amount.amountMinor", "must be at most the order's amount")
        found[places[0]] = most if most < amount else None
    return found


class RedeemedRow(RedemptionRow, ChangeRow):
    """A redemption that was just made, and its event."""


# All codes or none. The order of locks is the order, codes by id, a new order's name, first orders, wallets by member.
# A refusal leaves no trace of the order either, so it begins, or has its next version, when all codes are locked.
REDEEM: Final = statement(
    RedeemedRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(
        :code_ids::uuid[], :redemption_ids::uuid[], :event_ids::uuid[], :bases::bigint[], :discounts::bigint[],
        :terms_versions::int[], :positions::int[], :eligible::bigint[]
    ) AS t (code_id, redemption_id, event_id, base, discount, terms_version, position, eligible)
), known AS MATERIALIZED (
    -- An order that is known is locked first, and read as it is then.
    SELECT version FROM sales_order
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND cancelled_at IS NULL
    FOR NO KEY UPDATE
), locked AS (
    -- Every condition that can change between reading and writing is checked again, on locked rows, and so are the
    -- terms that the discounts were worked out by. Pausing waits for those that found the pool open.
    SELECT c.id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
        JOIN asked ON asked.code_id = c.id AND asked.terms_version = p.terms_version
    WHERE coalesce((SELECT version FROM known), 0) = :version
        AND c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[]) AND c.state = 'ALLOCATED'
        AND (c.expires_at IS NULL OR c.expires_at > now()) AND NOT {IS_OVER_FOR.format("c")} AND {HONOURS}
        AND NOT {IS_HELD}
        AND (p.transferable
            OR c.member_id = coalesce(:presenter, (
                SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index
            ))
            OR c.email_index = :email_index)
    ORDER BY c.id FOR UPDATE OF c FOR KEY SHARE OF p
), named AS MATERIALIZED (
    -- A new order begins after a purchase that is being recorded for it.
    SELECT lock_order_name(:merchant_id, :source, :order_id)
    WHERE :version = 0 AND (SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])
), {
        TAKE.format(
            "(SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[]) AND (SELECT count(*) FROM named) >= 0"
        )
    }, granted AS (
    -- Nothing stands in the way.
    SELECT WHERE (SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])
        AND (SELECT count(*) FROM firsts) = cardinality(:first_keys::bytea[])
), begun AS (
    -- Of two callers with one new order one begins it.
    INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version, presenter_id,
                             mailbox_index)
    SELECT :merchant_id, :order_row_id, :source, :order_id, :amount, :currency, 1, :person_id, :person_mailbox
    FROM granted WHERE :version = 0
    ON CONFLICT (merchant_id, order_id, source) DO NOTHING RETURNING id
), continued AS (
    UPDATE sales_order SET version = version + 1, order_amount = :amount, {NAMED_LAST}
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND version = :version
        AND EXISTS (SELECT FROM granted)
    RETURNING id
), redeemed AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now(), hold_id = NULL, held_until = NULL
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[])
        AND EXISTS (SELECT FROM begun UNION ALL SELECT FROM continued)
    RETURNING code.id, code.pool_id, code.member_id
), r AS (
    -- What makes it once: a code has one standing redemption, and so has each position on an order.
    INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                            base, discount, currency, redeemed_at, presented_by, eligible)
    SELECT :merchant_id, asked.redemption_id, redeemed.pool_id, asked.terms_version, asked.code_id, :source, :order_id,
        asked.position, :amount, asked.base, asked.discount, :currency, now(), :presented_by, asked.eligible
    FROM asked JOIN redeemed ON redeemed.id = asked.code_id ORDER BY asked.position
    RETURNING *
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), count(*), 0, 0 FROM redeemed GROUP BY pool_id
), changed AS (
    SELECT asked.event_id, redeemed.id AS subject_id, redeemed.member_id, NULL::bytea AS reason
    FROM redeemed JOIN asked ON asked.code_id = redeemed.id
), {raise_wallets("code.redeemed")}
SELECT {columns(RedemptionRow)}, {columns(ChangeRow)}
FROM r JOIN recorded ev ON ev.subject_id = r.code_id ORDER BY ev.wallet_version
""",
)


async def redeem(
    where: Statements, viewer: Viewer, presented: Presentation, places: Mapping[int, Placed], *, version: int
) -> list[RedeemedRow]:
    """Redeem codes in their places on an order in one statement, and tell who watches their owners' wallets.

    Returns the redemptions, or none when something has changed since the codes and this version of the order were read.
    Whether budgets suffice turns out when it is committed.
    """
    placed = list(places.values())
    redeemed = await where.rows(
        REDEEM,
        merchant_id=viewer.merchant_id,
        code_ids=[row["code_id"] for row, _ in placed],
        redemption_ids=[ids.new() for _ in placed],
        event_ids=[ids.new() for _ in placed],
        bases=[share.base for _, share in placed],
        discounts=[share.discount for _, share in placed],
        eligible=[share.eligible for _, share in placed],
        terms_versions=[row["pool_terms_version"] for row, _ in placed],
        positions=list(places),
        presenter=presented.presenter,
        email_index=presented.email_index,
        **named_person(placed[0][0], [row for row, _ in placed]),
        order_row_id=ids.new(),
        version=version,
        source=presented.source.value,
        order_id=presented.order_id,
        amount=presented.amount,
        currency=presented.currency,
        presented_by=presented.presented_by,
        actor=viewer.actor,
    )
    made = {row["event_subject_id"]: row for row in redeemed}
    for found, _ in placed if redeemed else ():
        ring_wallet(where, viewer.merchant_id, made[found["code_id"]], about=found)
    return redeemed


def _told(redeemed: Sequence[RedeemedRow], accepted: Sequence[Placed]) -> list[Redemption]:
    made = {row["event_subject_id"]: row for row in redeemed}
    # Each wallet's last change: the answer shows a wallet as all codes of the order left it.
    last = {row["event_member_id"]: row for row in redeemed}
    redemptions = []
    for found, _ in accepted:
        row = made[found["code_id"]]
        redemptions.append(Redemption.of_code(Code.of(found, as_of=last[row["event_member_id"]]), row))
    return redemptions


def success(redemptions: list[Redemption], currency: str, *, replayed: bool) -> RedeemCodesSuccess:
    """Return the answer that tells these redemptions and their total."""
    total = sum(redemption.discount.amount_minor for redemption in redemptions)
    return RedeemCodesSuccess(
        redemptions=redemptions,
        total_discount=Money(amount_minor=BigInt(total), currency=currency),
        replayed=replayed,
    )


def refuse_if_rejected(verdict: Verdict) -> None:
    """Raise Refused(CodesRejected) when codes stand in the way."""
    if verdict.rejections:
        count = len(verdict.rejections)
        message = f"{count} of the codes can't be redeemed; none was." if count > 1 else "A code can't be redeemed."
        raise Refused(CodesRejected(message=message, rejections=list(verdict.rejections.values())))


@mutation(description="Redeem all codes of one order, or none of them. ADMIN and CHECKOUT.")
async def redeem_codes(info: Info, input: Presented) -> RedeemCodesResult:
    viewer = info.context.viewer
    presented = await presentation(viewer, input)
    is_counted = False
    for attempt in range(ATTEMPTS_MAX):
        seen = await read(database(), viewer, presented)
        refuse_if_cancelled(seen.order_row_id, presented.source, presented.order_id, seen.cancelled_at)
        verdict = judged(viewer, presented, seen)
        if verdict.lacks_budget and (await end_of_budgets(viewer.merchant_id, seen.budget_pools) or attempt == 0):
            continue
        if not is_counted:
            verdict, is_counted = await limited(viewer, presented, verdict), True
        refuse_if_rejected(verdict)
        if verdict.replayed:
            replayed = [Redemption.of(row) for row in verdict.replayed]
            return success(replayed, presented.currency, replayed=True)
        await revive_accepted(viewer, verdict)
        within = within_budgets(viewer.merchant_id, verdict.accepted)
        if seen.amount is not None:
            buyer = await buyer_of(viewer, presented.source, presented.order_id)
            try:
                async with within, transaction(viewer.merchant_id) as tx:
                    return await _redeem_again(tx, viewer, presented, buyer)
            except OutpacedError:
                continue
        places = dict(enumerate(verdict.accepted, start=1))
        try:
            async with within:
                redeemed = await redeem(database(), viewer, presented, places, version=seen.version)
        except OutpacedError:
            continue
        if redeemed:
            return success(_told(redeemed, verdict.accepted), presented.currency, replayed=False)
    raise RuntimeError("codes kept changing while they were redeemed")


async def _redeem_again(tx: Tx, viewer: Viewer, presented: Presentation, buyer: UUID | None) -> RedeemCodesSuccess:
    """Redeem codes on an order whose codes were given back: its purchase follows, if one is recorded.

    Points that were paid beyond what it needs then come back.

    Recording one doesn't raise the order's version: only its lock says whether there is one. Raises OutpacedError when
    the order or a code isn't what it was before.
    """
    purchase = await lock_order(tx, viewer, presented.source, presented.order_id, buyer)
    seen = await read(tx, viewer, presented)
    refuse_if_cancelled(seen.order_row_id, presented.source, presented.order_id, seen.cancelled_at)
    verdict = judged(viewer, presented, seen)
    refuse_if_rejected(verdict)
    if seen.order_row_id is None or seen.amount is None or verdict.replayed:
        raise OutpacedError
    order = await standing_order(tx, viewer, presented.source, presented.order_id)
    if purchase is not None or order["paid_points"]:
        codes = [row["code_id"] for row, _ in verdict.accepted]
        await lock_wallets(tx, viewer, purchase, codes, payer_id=order["payer_id"])
    worth = presented.amount - sum(share.discount for _, share in verdict.accepted)
    followed = await let_order_follow(
        tx, viewer, order, purchase, worth, worth - seen.amount, payer_id=order["payer_id"],
        origin=f"{seen.order_row_id.hex}/{seen.version + 1}",
    )  # fmt: skip
    places = dict(enumerate(verdict.accepted, start=1))
    redeemed = await redeem(tx, viewer, presented, places, version=followed.version)
    if not redeemed:
        raise OutpacedError
    return success(_told(redeemed, verdict.accepted), presented.currency, replayed=False)
