"""A person to whom everything happened that the engine keeps: what is to be exported, and forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app import ids
from app.members.mailboxes import mailbox_index
from app.merchants.tenants import tenant
from app.people.known_by import KnownBy
from app.people.personal import PERSONAL
from app.storage.database import database
from app.storage.statements import NoRow, statement
from tests.coupons.ownership import send
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import EDIT_MEMBER, ENROLL_MEMBER, Shop
from tests.orders.documents import AMEND, amendment
from tests.orders.holding import hold
from tests.points.documents import CONFIGURE, grant, purchase, redeem, refund, reward
from tests.referrals.documents import accepted, invited, program

EMAIL = "ada.lovelace@gmail.com"
PENDING = "countess@lovelace.example"
#: Words by which she must not be found: her name and addresses, what her shops call her, what people wrote of her, and
#: keys that callers made of it.
TRACES = ("Lovelace", "lovelace", "ada.l", "countess", "card-1815", "shop-1815")


@dataclass(slots=True)
class Life:
    """The member, what the shop has, and others who had to do with her."""

    member: Any
    pool: Any
    held: Any
    friend: Any
    referrer: Any
    sent: list[Any] = field(default_factory=list)


async def indexes(shop: Shop, *addresses: str) -> list[bytes]:
    """Return the blind indexes of addresses and of their mailboxes."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    found = [(owner.keys.email_index(each), mailbox_index(owner.keys, each)) for each in addresses]
    return [index for pair in found for index in pair]


async def whole_life(shop: Shop) -> Life:
    """Let a person live: claims, campaigns, orders, points, holds, referrals in both directions, words about her."""
    await program(shop, convertsOn="FIRST_PURCHASE")
    await shop.do(CONFIGURE, pointsPendingDays=0)
    referrer = await shop.member(email="charles@example.com", emailVerified=True)
    made = await accepted(
        shop, referrer, email=EMAIL, displayName="Ada Lovelace", externalId="card-1815", externalSource="STORE"
    )
    ada = made["member"]
    await shop.do(EDIT_MEMBER, memberId=ada["id"], externalId="shop-1815", externalSource="SHOPIFY", email=PENDING)
    pool = await shop.pool(codes=30, claimsPerMember=5, stacking="STACKABLE")
    codes = [await shop.claim(pool, ada, idempotencyKey=f"for-{EMAIL}-{number}") for number in range(3)]
    await send(shop, await shop.pool(), {"email": EMAIL}, {"email": "bob@example.com"})
    await shop.redeem([codes[0]["text"]], ada, order="A-1815")
    await purchase(shop, ada, "A-1815", 9000)
    await shop.do(
        AMEND, **amendment([], ada, amount=8000, orderId="A-1815", reason="Ms Lovelace called", idempotencyKey=EMAIL)
    )
    await purchase(shop, ada, "A-1816", 10_000)
    await refund(shop, "A-1816", "r-1", 1000, reason="Countess Lovelace didn't like it")
    await grant(shop, ada, 200, f"sorry-{EMAIL}", reference="Goodwill for Ada Lovelace")
    await redeem(shop, await reward(shop, cost=50), ada, f"mug-{EMAIL}")
    await shop.do(REVOKE, codeId=codes[1]["id"], reason="Lovelace lost it", recycle=False)
    held = await hold(shop, [codes[2]], ada, order="A-1817", points=20, idempotencyKey=f"cart-{EMAIL}")
    friend = (await accepted(shop, ada, email="friend@example.com"))["member"]
    sent, _ = await invited(shop, ada, "stranger@example.com")
    return Life(ada, pool, held, friend, referrer, [sent])


async def told_of(shop: Shop, members: Sequence[Any], *addresses: str) -> list[bytes]:
    """Return every ciphertext and hash that erasing takes, of members and addresses, as the database has them now."""
    found = await indexes(shop, *addresses)
    member_ids = [ids.decode("member", each["id"]) for each in members]
    person = KnownBy([each for each in member_ids if each is not None], found[::2], found[1::2])
    values = {"merchant_id": shop.merchant_id} | person.parameters()
    told: list[bytes] = []
    for personal in PERSONAL:
        if not personal.fates:
            continue
        of = personal.erased or personal.found
        asked = statement(NoRow, f"SELECT t.* FROM {personal.table} t WHERE t.merchant_id = :merchant_id AND ({of})")
        rows: list[Any] = await database().rows(asked, **{name: values[name] for name in asked.names})
        told += [row[column] for row in rows for column in personal.fates if isinstance(row[column], bytes)]
    return told


async def enrolled(shop: Shop, **input: Any) -> Any:
    """Enrol somebody, and return the answer."""
    return await shop.do(ENROLL_MEMBER, source="STORE", **input)
