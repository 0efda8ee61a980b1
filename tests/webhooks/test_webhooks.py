"""Making and changing webhooks. Without these a secret could be readable, or a webhook lead where nobody may look."""

import asyncio
import base64
from typing import Any

import asyncpg
import pytest
from rich.progress import Progress
from standardwebhooks import Webhook, WebhookVerificationError

from app import ids
from app.config import Settings
from app.integrity.recompute import recompute
from app.merchants import tenants
from app.merchants.data_keys import next_key
from app.merchants.reencrypt import reencrypt
from app.storage.database import database, transaction
from app.webhooks.deliveries import lease_seconds
from app.webhooks.enable_webhook import RESUME
from app.webhooks.feed import make_deliveries
from app.webhooks.signatures import sign
from tests.factories import REFUSED, Shop, problems
from tests.webhooks.documents import (
    CREATE,
    DISABLE,
    ENABLE,
    REDELIVER,
    REDELIVER_DEAD,
    ROTATE,
    create,
    deliver,
    deliveries,
    happen,
    hasten,
    hook,
    read,
)
from tests.webhooks.receiver import receiving, status

PUBLIC = "https://8.8.8.8/hooks/s3cret"
#: The deliveries of a shop wait for so many seconds each, in the order in which they were made; which still do.
WAIT = """
UPDATE webhook_delivery d SET attempts = 1, next_attempt_at = now() + make_interval(secs => ($2::float8[])[d.position])
WHERE merchant_id = $1
"""
WAITS = "SELECT next_attempt_at > now() AS waits FROM webhook_delivery WHERE merchant_id = $1 ORDER BY position"


async def _refused(shop: Shop, url: str, **how: Any) -> Any:
    """Ask for a webhook that must be refused without a trace, and return the refusal."""
    before = await shop.state()
    answer = await create(shop, url, **how)
    assert not answer["__typename"].endswith("Success"), answer
    assert await shop.state() == before
    REFUSED.add(("createWebhook", answer["__typename"]))
    return answer


async def test_a_webhook_is_made_with_a_secret_that_is_shown_once(shop: Shop) -> None:
    made = await create(shop, f"  {PUBLIC}\n", eventTypes=["pool.paused", "code.claimed", "pool.paused"])
    other = await create(shop, PUBLIC)

    webhook, secret = made["webhook"], made["secret"]
    assert webhook == {
        "id": webhook["id"],
        "url": PUBLIC,
        "eventTypes": ["code.claimed", "pool.paused"],
        "createdAt": webhook["createdAt"],
        "disabledAt": None,
        "disabledReason": None,
        "failingSince": None,
        "pausedUntil": None,
        "previousSecretUntil": None,
    }
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != other["secret"]
    assert other["webhook"]["eventTypes"] == []
    assert await read(shop, webhook) == webhook
    assert (await shop.event_types())[-2:] == ["webhook.created"] * 2


async def test_a_webhook_must_lead_to_a_public_host_and_name_events_that_there_are(shop: Shop) -> None:
    not_public = "must not lead to a private, local or reserved address"
    for url in (
        "https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://[::1]/", "https://0.0.0.0/",
        "https://[::ffff:127.0.0.2]/", "http://127.0.0.2:8000/graphql", "https://[fe80::1]/", "https://[fd00::1]:1/",
        "https://192.168.0.1:65535/", "https://[64:ff9b::7f00:2]/",
    ):  # fmt: skip
        assert problems(await _refused(shop, url)) == {"url": not_public}, url
    for url in ("https://2130706434/", "https://0177.0.0.2/", "https://0x7f.2/", "https://127.2/"):
        assert problems(await _refused(shop, url))["url"].startswith("must name a host"), url
    wrong = await _refused(shop, "https://a:b@shop.example/", eventTypes=["pool.paused", "pool.*", ""])
    assert problems(wrong) == {
        "url": "must not contain a user or a password",
        "eventTypes.1": "must be a type of event",
        "eventTypes.2": "must be a type of event",
    }
    assert wrong["message"] == "eventTypes.1 must be a type of event."


async def test_a_merchant_has_so_many_webhooks_also_when_it_asks_for_more_at_once(
    shop: Shop, database_pool: Settings
) -> None:
    limit = database_pool.webhooks_max
    answers = await asyncio.gather(*(create(shop, PUBLIC) for _ in range(limit + 4)))
    made = [each["webhook"] for each in answers if "webhook" in each]

    refused = await _refused(shop, PUBLIC)
    assert (refused["__typename"], refused["limit"], len(made)) == ("WebhookLimitReached", limit, limit)
    await shop.do(DISABLE, webhookId=made[0]["id"])
    await hook(shop, PUBLIC)
    assert (await shop.refused(ENABLE, webhookId=made[0]["id"]))["limit"] == limit
    await shop.do(DISABLE, webhookId=made[1]["id"])
    assert (await shop.do(ENABLE, webhookId=made[0]["id"]))["webhook"]["disabledAt"] is None


async def test_disabling_and_enabling_again_change_nothing(shop: Shop) -> None:
    made = (await create(shop, PUBLIC))["webhook"]
    disabled = [(await shop.do(DISABLE, webhookId=made["id"]))["webhook"] for _ in range(2)]
    after_disabling = await shop.state()
    enabled = [(await shop.do(ENABLE, webhookId=made["id"]))["webhook"] for _ in range(2)]

    assert disabled[0] == disabled[1]
    assert (disabled[0]["disabledReason"], disabled[0]["disabledAt"] is None) == ("REQUESTED", False)
    assert enabled == [made] * 2
    assert (await shop.state()).since(after_disabling) == {"webhook": 0, "event": 1}
    assert (await shop.event_types())[-3:] == ["webhook.created", "webhook.disabled", "webhook.enabled"]


async def test_enabling_hastens_the_soonest_of_what_waits_and_nothing_that_is_under_way(shop: Shop) -> None:
    webhook = await hook(shop, PUBLIC, "pool.activated")
    for _ in range(5):
        await happen(shop, 0)
    await make_deliveries()
    row_id = ids.decode("webhook", webhook["id"])
    await database().row(WAIT, shop.merchant_id, [28.0, 4_000.0, 3_000.0, 2_000.0, 1_000.0])
    async with transaction(None) as tx:
        await tx.row(RESUME, merchant_id=shop.merchant_id, webhook_id=row_id, lease_seconds=lease_seconds(), limit=2)
        some = [row["waits"] for row in await tx.rows(WAITS, shop.merchant_id)]
    await shop.do(DISABLE, webhookId=webhook["id"])
    await shop.do(ENABLE, webhookId=webhook["id"])
    everything = [row["waits"] for row in await database().rows(WAITS, shop.merchant_id)]

    assert some == [True, True, True, False, False]
    assert everything == [True, False, False, False, False]


async def test_during_a_rotation_both_secrets_verify_and_after_it_the_new_one(shop: Shop) -> None:
    async with receiving() as receiver:
        webhook = await hook(shop, receiver.url, "pool.paused")
        answers = [await shop.do(ROTATE, webhookId=webhook["id"]) for _ in range(2)]
        secrets = [webhook["secret"], *(each["secret"] for each in answers)]
        await happen(shop)
        await deliver(shop)
        await database().row(
            "UPDATE webhook SET previous_secret_until = now() - interval '1 s' WHERE merchant_id = $1",
            shop.merchant_id,
        )
        await happen(shop)
        await deliver(shop)
        ended = await shop.do(ROTATE, webhookId=webhook["id"], overlapHours=0)
        await happen(shop)
        await deliver(shop)

    secrets.append(ended["secret"])
    verified = []
    for each in receiver.requests:
        good = []
        for turn, secret in enumerate(secrets):
            try:
                Webhook(secret).verify(each.body, each.headers)
            except WebhookVerificationError:
                continue
            good.append(turn)
        verified.append((good, len(each.headers["webhook-signature"].split(" "))))
    # The newest one signs first; with three there would be a secret that was rotated twice.
    assert verified == [([1, 2], 2), ([2], 1), ([3], 1)]
    first = receiver.requests[0]
    signed = sign(secrets[2], first.id, int(first.headers["webhook-timestamp"]), first.body)
    assert first.headers["webhook-signature"].split(" ")[0] == signed
    assert answers[1]["webhook"]["previousSecretUntil"]
    assert ended["webhook"]["previousSecretUntil"] is None
    assert problems(await shop.refused(ROTATE, webhookId=webhook["id"], overlapHours=169)) == {
        "overlapHours": "must be between 0 and 168"
    }
    assert (await shop.event_types()).count("webhook.secret_rotated") == 3


def test_a_signature_is_the_one_of_the_specification() -> None:
    secret, message_id, body = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
    )

    assert sign(secret, message_id, 1614265330, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_neither_secrets_nor_urls_are_readable_in_the_database_and_both_move_to_new_keys(shop: Shop) -> None:
    webhook = await hook(shop, PUBLIC, "pool.paused")
    rotated = (await shop.do(ROTATE, webhookId=webhook["id"]))["secret"]
    await make_deliveries()
    found: list[str] = []
    for table in ("webhook", "webhook_delivery", "event"):
        rows = await database().rows(f"SELECT * FROM {table} WHERE merchant_id = $1", shop.merchant_id)
        found += [str(value) for row in rows for value in row.values()]
    written = " ".join(found)
    for secret in (webhook["secret"], rotated):
        raw = base64.b64decode(secret.removeprefix("whsec_"))
        assert secret.removeprefix("whsec_") not in written
        assert raw.hex() not in written
        assert repr(raw)[2:-1] not in written
    assert "8.8.8.8" not in written
    assert "s3cret" not in written

    await next_key(shop.merchant_id, "ENCRYPTION")
    await database().rows(
        "UPDATE data_key SET created_at = created_at - interval '1 minute' WHERE merchant_id = $1", shop.merchant_id
    )
    with Progress(disable=True) as progress:
        done = await reencrypt([shop.merchant_id], progress)
    (row,) = await database().rows("SELECT * FROM webhook WHERE merchant_id = $1", shop.merchant_id)
    tenants._kept.drop(shop.merchant_id)
    owner = await tenants.tenant(shop.merchant_id)
    assert owner is not None
    columns = [("url", "url"), ("secret", "secret"), ("previous_secret", "secret")]
    assert done.unreadable == set()
    assert [row[column][:2] for column, _ in columns] == [b"\x00\x02"] * 3
    assert [owner.keys.decrypt(row["id"], identity, row[column]) for column, identity in columns] == [
        PUBLIC, rotated, webhook["secret"],
    ]  # fmt: skip


async def test_deliveries_are_listed_by_webhook_and_state_newest_first(shop: Shop) -> None:
    async with receiving(status(410)) as receiver:
        gone = await hook(shop, receiver.url, "webhook.created")
        await deliver(shop)
    quiet = await hook(shop, "https://quiet.invalid/", "pool.paused")
    for _ in range(3):
        await happen(shop)
    await make_deliveries()
    document = """
    query ($id: ID, $states: [WebhookDeliveryState!], $first: Int, $after: String) {
      webhookDeliveries(webhookId: $id, states: $states, first: $first, after: $after) {
        edges { node { id } } pageInfo { hasNextPage endCursor }
      }
    }
    """
    everything = [each["id"] for each in reversed(await deliveries(shop))]
    paged: list[str] = []
    after, more = None, True
    while more:
        found = (await shop.data(document, {"first": 2, "after": after}))["webhookDeliveries"]
        paged += [edge["node"]["id"] for edge in found["edges"]]
        after, more = found["pageInfo"]["endCursor"], found["pageInfo"]["hasNextPage"]

    assert len(everything) == 4
    assert paged == everything
    assert [each["id"] for each in await deliveries(shop, quiet, "PENDING", "DEAD")] == everything[2::-1]
    assert [each["lastStatus"] for each in await deliveries(shop, gone, "DEAD")] == [410]
    assert await deliveries(shop, quiet, "DELIVERED") == []
    assert (await shop.data(document, {"id": "webhook_1"}))["webhookDeliveries"]["edges"] == []
    assert (await shop.data(document, {"states": []}))["webhookDeliveries"]["edges"] == []
    assert await shop.error_code(document, {"first": 101}) == "BAD_USER_INPUT"


async def test_a_delivery_that_waits_is_attempted_when_somebody_asks_and_not_while_it_is_under_way(shop: Shop) -> None:
    async with receiving(status(404)) as receiver:
        webhook = await hook(shop, receiver.url, "webhook.created")
        await deliver(shop)
        await hasten(shop)
        await deliver(shop)
        (waits,) = await deliveries(shop, webhook)
        asked = (await shop.do(REDELIVER, deliveryId=waits["id"]))["delivery"]
        await deliver(shop)
        events = await shop.event_types()
        await database().row(
            "UPDATE webhook_delivery SET next_attempt_at = now() + interval '20 s' WHERE merchant_id = $1",
            shop.merchant_id,
        )
        under_way = (await shop.do(REDELIVER, deliveryId=waits["id"]))["delivery"]
        await deliver(shop)

    assert waits["nextAttemptAt"] > asked["nextAttemptAt"]
    assert (asked["attempts"], under_way["attempts"]) == (2, 3)
    assert len(receiver.requests) == 3
    assert await shop.event_types() == events


async def test_what_is_not_there_can_not_be_changed(shop: Shop, other_shop: Shop) -> None:
    theirs = await hook(other_shop, PUBLIC)
    await make_deliveries()
    (delivery,) = await deliveries(other_shop, theirs)
    for foreign in (theirs["id"], ids.encode("webhook", ids.new()), "webhook_1", ""):
        for document in (DISABLE, ENABLE, ROTATE, REDELIVER_DEAD):
            refused = await shop.refused(document, webhookId=foreign)
            assert (refused["__typename"], refused["id"]) == ("NotFound", foreign)
            assert refused["message"] == "There is no such webhook."
    for foreign in (delivery["id"], ids.encode("webhookdelivery", ids.new()), theirs["id"]):
        refused = await shop.refused(REDELIVER, deliveryId=foreign)
        assert (refused["__typename"], refused["message"]) == ("NotFound", "There is no such delivery.")
    for role in ("ANALYST", "CHECKOUT"):
        key = await shop.key(role)
        assert await shop.error_code(CREATE, {"input": {"url": PUBLIC}}, key=key) == "FORBIDDEN"
        node = "query ($id: ID!) { node(id: $id) { id } }"
        assert (await other_shop.data(node, {"id": theirs["id"]}, key=await other_shop.key(role)))["node"] is None


@pytest.mark.parametrize(
    ("constraint", "changed"),
    [
        ("webhook_delivery_turn", "next_attempt_at = now()"),
        ("webhook_delivery_order", "position = 2"),
        ("webhook_delivery_due", "state = 'DEAD', settled_at = now()"),
        ("webhook_delivery_settled", "state = 'DELIVERED', next_attempt_at = NULL"),
        ("webhook_delivery_state", "state = 'LOST', settled_at = now(), next_attempt_at = NULL"),
    ],
)
async def test_the_table_keeps_the_order_whoever_writes_to_it(shop: Shop, constraint: str, changed: str) -> None:
    await hook(shop, "https://nowhere.invalid/", "pool.paused", "pool.activated")
    await happen(shop, 2)
    await make_deliveries()

    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=constraint):
        await database().row(f"UPDATE webhook_delivery SET {changed} WHERE merchant_id = $1", shop.merchant_id)
    assert not any((await recompute(shop.merchant_id)).values())
