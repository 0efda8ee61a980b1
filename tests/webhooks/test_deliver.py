"""Delivering, to servers that do what servers do. Without these an event could be lost, out of order, or forged."""

import asyncio
import gc
import ssl
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from app import ids
from app.storage.database import database
from app.webhooks import addresses, posting
from app.webhooks import deliveries as rows
from app.webhooks.deliver import PER_WEBHOOK, deliver_waiting
from app.webhooks.feed import make_deliveries
from app.webhooks.posting import Outcome, WebhookFailure
from tests.factories import Shop
from tests.points.documents import grant
from tests.webhooks.documents import (
    DISABLE,
    ENABLE,
    REDELIVER,
    REDELIVER_DEAD,
    deliver,
    deliveries,
    eventually,
    happen,
    hasten,
    hook,
    read,
)
from tests.webhooks.receiver import OK, Received, Reply, receiving, status

#: Nothing is paused, and what was attempted waits for an hour.
WAIT_LONG = """
WITH w AS (UPDATE webhook SET paused_until = NULL WHERE merchant_id = $1)
UPDATE webhook_delivery SET next_attempt_at = now() + interval '1 hour'
WHERE merchant_id = $1 AND next_attempt_at IS NOT NULL
"""
#: What a newer release may write that serves the same database.
UNKNOWN = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
VALUES ($1, $2, 'comet.sighted', 'comet', $3, 'system', '2026-02-03T04:05:06Z')
"""
MOVES = ("pool.activated", "pool.paused")
#: Of ten attempts nine are followed by another.
ATTEMPTS = rows.ATTEMPTS_MAX


def _by_subject(events: list[Any]) -> dict[str, list[str]]:
    """Return the ids of events by their subject, in the order in which they came."""
    found: dict[str, list[str]] = {}
    for event in events:
        found.setdefault(event["data"]["subjectId"], []).append(event["data"]["id"])
    return found


async def _recorded(shop: Shop, *types: str) -> dict[str, list[str]]:
    """Return the ids of the events of some types by their subject, in the order in which they happened."""
    listed = "SELECT id, subject_id FROM event WHERE merchant_id = $1 AND type = ANY($2) ORDER BY id"
    found: dict[str, list[str]] = {}
    for row in await database().rows(listed, shop.merchant_id, list(types)):
        found.setdefault(ids.encode("pool", row["subject_id"]), []).append(ids.encode("event", row["id"]))
    return found


async def test_what_happens_is_posted_as_ids_with_a_signature_that_others_verify(shop: Shop) -> None:
    async with receiving() as receiver:
        webhook = await hook(shop, receiver.url + "?shop=1", "webhook.created", "code.claimed", "member.enrolled")
        member = await shop.member(email="jo@example.com", displayName="Jo Doe")
        code = await shop.claim(await shop.pool(), member)
        await deliver(shop)
        await deliver(shop)

    claimed, enrolled, created = sorted(receiver.requests, key=lambda each: str(each.event["type"]))
    merchant = ids.encode("merchant", shop.merchant_id)
    assert created.event["type"] == "webhook.created"
    assert created.event["data"]["subjectId"] == webhook["id"]
    assert enrolled.event["data"].keys() == {"id", "merchantId", "subjectId", "actor"}
    assert claimed.event == {
        "type": "code.claimed",
        "timestamp": claimed.event["timestamp"],
        "data": {
            "id": claimed.id,
            "merchantId": merchant,
            "subjectId": code["id"],
            "actor": claimed.event["data"]["actor"],
            "memberId": member["id"],
            "walletVersion": 1,
        },
    }
    for each in receiver.requests:
        assert Webhook(webhook["secret"]).verify(each.body, each.headers) == each.event
        assert each.id == each.event["data"]["id"]
        assert (each.path, each.headers["content-type"]) == ("/hooks?shop=1", "application/json")
        assert abs(int(each.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(webhook["secret"]).verify(each.body.replace(b"pool", b"poor") + b" ", each.headers)
    for secret in ("jo@", "Jo Doe", code["text"], code["text"][4:]):
        assert all(secret.encode() not in each.body for each in receiver.requests)
    told = await deliveries(shop, webhook)
    assert [(each["eventId"], each["state"], each["attempts"], each["lastStatus"]) for each in told] == [
        (each.id, "DELIVERED", 1, 200) for each in (created, enrolled, claimed)
    ]
    assert {(each["nextAttemptAt"], each["lastFailure"]) for each in told} == {(None, None)}


async def test_an_event_about_points_says_how_many(shop: Shop) -> None:
    async with receiving() as receiver:
        await hook(shop, receiver.url, "points.credited", "points.debited")
        member = await shop.member()
        await grant(shop, member, 70, "in")
        await grant(shop, member, -20, "out")
        await deliver(shop)

    told = {each.event["type"]: each.event["data"] for each in receiver.requests}
    assert {name: (data["points"], data["walletVersion"]) for name, data in told.items()} == {
        "points.credited": (70, 1), "points.debited": (20, 2)
    }  # fmt: skip


async def test_an_event_of_a_type_that_this_process_does_not_know_is_shown_and_sent_as_it_is(shop: Shop) -> None:
    event_id, subject_id = ids.new(), ids.new()
    async with receiving() as receiver:
        webhook = await hook(shop, receiver.url)
        await database().row(UNKNOWN, shop.merchant_id, event_id, subject_id)
        await deliver(shop)

    (sent,) = [each for each in receiver.requests if each.id == ids.encode("event", event_id)]
    assert sent.event == {
        "type": "comet.sighted",
        "timestamp": "2026-02-03T04:05:06Z",
        "data": {
            "id": ids.encode("event", event_id),
            "merchantId": ids.encode("merchant", shop.merchant_id),
            "subjectId": f"comet_{subject_id.hex}",
            "actor": "system",
        },
    }
    shown = [
        (each["eventType"], each["subjectId"], each["state"])
        for each in await deliveries(shop, webhook)
        if each["eventId"] == ids.encode("event", event_id)
    ]
    assert shown == [("comet.sighted", f"comet_{subject_id.hex}", "DELIVERED")]


async def test_a_delivery_that_fails_holds_up_its_subject_and_nothing_else(shop: Shop) -> None:
    stuck, free = await shop.pool(codes=1), await shop.pool(codes=1)
    fails = True

    def choose(received: Received) -> Reply:
        return status(422) if fails and received.event["data"]["subjectId"] == stuck["id"] else OK

    async with receiving(choose) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        await happen(shop, 3, stuck)
        await happen(shop, 3, free)
        await deliver(shop, rounds=2)
        while_stuck = _by_subject(receiver.told())
        waiting = await deliveries(shop, webhook, "PENDING")
        fails = False
        await deliver(shop)
        await hasten(shop)
        await deliver(shop)
        everything = receiver.told()

    happened = await _recorded(shop, *MOVES)
    first, *others = happened[stuck["id"]][-3:]
    assert while_stuck == {stuck["id"]: [first, first], free["id"]: happened[free["id"]][-3:]}
    assert [(each["attempts"], each["lastStatus"], each["lastFailure"]) for each in waiting] == [
        (2, 422, "STATUS"), (0, None, None), (0, None, None),
    ]  # fmt: skip
    assert [each["nextAttemptAt"] is None for each in waiting] == [False, True, True]
    assert _by_subject(everything)[stuck["id"]] == [first, first, first, *others]
    assert await deliveries(shop, webhook, "PENDING", "DEAD") == []


async def test_after_all_attempts_a_delivery_is_dead_the_next_one_goes_and_it_can_be_made_again(shop: Shop) -> None:
    refused: set[str] = set()
    async with receiving(lambda received: status(500) if received.id in refused else OK) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        pool = await happen(shop, 3)
        first, second, third, fourth = (await _recorded(shop, *MOVES))[pool["id"]]
        refused |= {second, third}
        await deliver(shop, rounds=2 * ATTEMPTS + 1)
        told = [each["data"]["id"] for each in receiver.told()]
        dead = await deliveries(shop, webhook, "DEAD")
        refused.clear()
        again = await shop.do(REDELIVER, deliveryId=dead[1]["id"])
        await deliver(shop)
        rest = await shop.do(REDELIVER_DEAD, webhookId=webhook["id"])
        nothing = await shop.do(REDELIVER_DEAD, webhookId=webhook["id"])
        await deliver(shop)
        delivered_again = await shop.do(REDELIVER, deliveryId=again["delivery"]["id"])
        await deliver(shop)

    assert told == [first, *[second] * ATTEMPTS, *[third] * ATTEMPTS, fourth]
    assert [(each["eventId"], each["attempts"], each["lastStatus"]) for each in dead] == [
        (second, ATTEMPTS, 500),
        (third, ATTEMPTS, 500),
    ]
    assert (again["delivery"]["state"], again["delivery"]["attempts"]) == ("PENDING", 0)
    assert (rest["count"], rest["hasMore"], nothing["count"]) == (1, False, 0)
    assert delivered_again["delivery"]["state"] == "PENDING"
    assert [each["data"]["id"] for each in receiver.told()][len(told) :] == [third, second, third]
    assert {each["state"] for each in await deliveries(shop, webhook)} == {"DELIVERED"}
    assert (await shop.event_types()).count("webhook.redelivered") == 3


async def test_deliveries_made_again_keep_their_order_and_come_after_what_waits(shop: Shop) -> None:
    bad = True
    async with receiving(lambda _: status(404) if bad else OK) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        pool = await happen(shop, 2)
        await deliver(shop, rounds=3 * ATTEMPTS)
        pool = await happen(shop, 3, pool)
        await deliver(shop)
        again = await shop.do(REDELIVER_DEAD, webhookId=webhook["id"])
        bad = False
        receiver.requests.clear()
        await deliver(shop, rounds=2)

    happened = (await _recorded(shop, *MOVES))[pool["id"]]
    assert again["count"] == 3
    assert [each.id for each in receiver.requests] == happened[3:] + happened[:3]


async def test_410_disables_the_webhook_and_what_waits_goes_on_when_it_is_enabled(shop: Shop) -> None:
    async with receiving(status(410), OK) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES, "webhook.enabled")
        pool = await happen(shop, 2)
        await deliver(shop, rounds=2)
        gone = await read(shop, webhook)
        dead, *waiting = await deliveries(shop, webhook)
        pool = await happen(shop, 2, pool)
        await deliver(shop, rounds=2)
        while_disabled = len(receiver.requests)
        refused = [
            await shop.refused(REDELIVER, deliveryId=dead["id"]),
            await shop.refused(REDELIVER_DEAD, webhookId=webhook["id"]),
        ]
        enabled = (await shop.do(ENABLE, webhookId=webhook["id"]))["webhook"]
        await happen(shop, 1, pool)
        await deliver(shop)

    happened = (await _recorded(shop, *MOVES))[pool["id"]]
    assert (gone["disabledReason"], while_disabled) == ("GONE", 1)
    assert (dead["state"], dead["lastStatus"], dead["attempts"]) == ("DEAD", 410, 1)
    assert [(each["state"], each["nextAttemptAt"]) for each in waiting] == [("PENDING", None)] * 2
    assert [(each["__typename"], each["disabledAt"]) for each in refused] == [
        ("WebhookDisabled", gone["disabledAt"])
    ] * 2
    assert (enabled["disabledAt"], enabled["disabledReason"]) == (None, None)
    told = [each.id for each in receiver.requests]
    # The one that was gone, the two that waited, not the two of the time without, its own, and the last.
    assert [each for each in told if each in happened] == [happened[0], *happened[1:3], happened[5]]
    assert [each.event["type"] for each in receiver.requests].count("webhook.enabled") == 1
    assert (await shop.event_types()).count("webhook.disabled") == 1


async def test_a_server_that_asks_for_a_pause_gets_it_for_all_its_deliveries(shop: Shop) -> None:
    later = datetime.now(UTC) + timedelta(minutes=30)
    answers = [
        (status(429, "Retry-After: 120"), 120.0, {1}),
        (status(503, f"retry-after: {later:%a, %d %b %Y %H:%M:%S GMT}"), 1800.0, {1}),
        (status(503, "Retry-After: 9999999"), 3600.0, {1}),
        # It rests for half a second at least, which may be over on a busy machine.
        (status(503, "Retry-After: soon"), 5.0, {1, 2}),
        (status(400, "Retry-After: 1000"), 5.0, {2}),
    ]
    for answer, seconds, requests in answers:
        async with receiving(answer) as receiver:
            webhook = await hook(shop, receiver.url, *MOVES)
            await happen(shop)
            await deliver(shop)
            # Another subject, which could go if the server hadn't asked.
            await happen(shop)
            await deliver(shop)
            paused = await read(shop, webhook)
            first, *_ = await deliveries(shop, webhook, "PENDING")
            waits = datetime.fromisoformat(first["nextAttemptAt"]) - datetime.now(UTC)
            await shop.data("mutation ($id: ID!) { disableWebhook(input: { webhookId: $id }) { __typename } }",
                            {"id": webhook["id"]})  # fmt: skip

        assert 0.7 * seconds - 20 < waits.total_seconds() < 1.3 * seconds + 1, answer
        assert len(receiver.requests) in requests, answer
        assert (paused["pausedUntil"] is None) == (b" 400 " in answer)
        assert paused["failingSince"]


async def test_redirects_are_not_followed(shop: Shop) -> None:
    async with receiving() as secret:
        answers = [status(code, f"Location: {secret.url}") for code in (301, 302, 303, 307, 308)]
        async with receiving(*answers) as receiver:
            webhook = await hook(shop, receiver.url, *MOVES)
            await happen(shop)
            await deliver(shop, rounds=5)
            (delivery, *_) = await deliveries(shop, webhook)

    assert secret.requests == []
    assert len(receiver.requests) == 5
    assert (delivery["lastStatus"], delivery["lastFailure"]) == (308, "STATUS")


async def test_only_a_whole_answer_of_2xx_is_a_delivery(shop: Shop) -> None:
    answers: list[tuple[Reply, tuple[str, int | None, str | None]]] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", ("PENDING", None, "ANSWER_BROKEN")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", ("PENDING", None, "ANSWER_BROKEN")),
        (b"HTTP/1.1 20", ("PENDING", None, "ANSWER_BROKEN")),
        (b"", ("PENDING", None, "ANSWER_BROKEN")),
        (b"SSH-2.0-OpenSSH_9.9\r\n", ("PENDING", None, "ANSWER_BROKEN")),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, ("PENDING", None, "ANSWER_BROKEN")),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", ("PENDING", None, "ANSWER_BROKEN")),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + status(204), ("DELIVERED", 204, None)),
        (b"HTTP/1.0 201 Created\r\n\r\nuntil the end", ("DELIVERED", 201, None)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 200_000, ("DELIVERED", 200, None)),
        (status(199), ("PENDING", None, "ANSWER_BROKEN")),
        (status(300), ("PENDING", 300, "STATUS")),
    ]
    for answer, expected in answers:
        async with receiving(answer) as receiver:
            webhook = await hook(shop, receiver.url, "webhook.created")
            await deliver(shop)
            (made,) = await deliveries(shop, webhook)
            await shop.data("mutation ($id: ID!) { disableWebhook(input: { webhookId: $id }) { __typename } }",
                            {"id": webhook["id"]})  # fmt: skip

        assert (made["state"], made["lastStatus"], made["lastFailure"]) == expected, answer
        assert len(receiver.requests) == 1


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_says_nothing_is_given_up_in_time(shop: Shop) -> None:
    async with receiving(None) as receiver:
        webhook = await hook(shop, receiver.url, "webhook.created")
        await deliver(shop)
        (made,) = await deliveries(shop, webhook)

    assert (made["state"], made["lastStatus"], made["lastFailure"]) == ("PENDING", None, "TIMED_OUT")


async def test_who_is_slow_delays_nobody_else(shop: Shop, other_shop: Shop) -> None:
    async with receiving(is_open=False) as slow, receiving() as quick, receiving() as others:
        patient = await hook(shop, slow.url, "pool.paused")
        await hook(shop, quick.url, "pool.paused")
        await hook(other_shop, others.url, "pool.paused")
        for _ in range(PER_WEBHOOK + 2):
            await happen(shop)
        await happen(other_shop)
        working = asyncio.create_task(deliver_waiting(seconds_max=60))
        await eventually(lambda: len(quick.requests) == PER_WEBHOOK + 2 and len(others.requests) == 1)
        await happen(shop)
        await eventually(lambda: len(quick.requests) == PER_WEBHOOK + 3)
        while_slow = len(slow.requests)
        slow.gate.set()
        await working

    assert (while_slow, slow.at_once_max) == (PER_WEBHOOK, PER_WEBHOOK)
    assert len(slow.requests) == PER_WEBHOOK + 3
    assert {each["attempts"] for each in await deliveries(shop, patient)} == {1}


async def test_two_workers_share_the_work_and_keep_the_order(shop: Shop) -> None:
    async with receiving() as receiver:
        await hook(shop, receiver.url, *MOVES)
        pools = [await shop.pool(codes=1) for _ in range(4)]
        working = [asyncio.create_task(deliver_waiting(seconds_max=60)) for _ in range(2)]
        for turn in range(6):
            pools = await asyncio.gather(*(happen(shop, 2, pool) for pool in pools))
            if turn % 2:
                working += [asyncio.create_task(deliver_waiting(seconds_max=60)) for _ in range(2)]
        await asyncio.gather(*working)
        await deliver(shop)

    assert _by_subject(receiver.told()) == await _recorded(shop, *MOVES)
    assert max(Counter(each.id for each in receiver.requests).values()) == 1


async def test_a_worker_that_is_stopped_gives_back_what_it_has_under_way(shop: Shop) -> None:
    async with receiving(is_open=False) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        await happen(shop)
        working = asyncio.create_task(deliver_waiting(seconds_max=60))
        await eventually(lambda: receiver.at_once == 1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        receiver.gate.set()
        await deliver(shop)
        told = [each.id for each in receiver.requests]

    assert told[0] == told[1]
    assert [each["attempts"] for each in await deliveries(shop, webhook)] == [2, 1]
    assert {each["state"] for each in await deliveries(shop, webhook)} == {"DELIVERED"}


async def test_a_worker_tells_what_ended_it_once_however_many_deliveries_failed_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settling = asyncio.Barrier(3)

    class ResetError(ConnectionResetError):
        """What no other test's tasks left behind."""

    async def settle(*_: object) -> None:
        await settling.wait()
        raise ResetError

    monkeypatch.setattr(rows, "settle", settle)
    async with receiving() as receiver:
        for _ in range(3):
            await hook(shop, receiver.url, "pool.activated")
        await happen(shop, 0)
        with pytest.raises(ResetError):
            await deliver(shop)
    gc.collect()

    assert [record.message for record in caplog.records if record.exc_info and record.exc_info[0] is ResetError] == []


async def test_a_worker_that_lost_its_delivery_changes_nothing(shop: Shop) -> None:
    webhook = await hook(shop, "http://127.0.0.1:9/", *MOVES)
    await happen(shop)
    await make_deliveries()
    (held,) = await rows.take({}, per_webhook=1, most=1)
    assert await rows.take({}, per_webhook=9, most=9) == []
    await hasten(shop)
    (taken,) = await rows.take({}, per_webhook=1, most=1)
    before = await deliveries(shop, webhook)

    await rows.settle(held, Outcome(200))
    await rows.settle(held, Outcome(404, WebhookFailure.STATUS))
    await rows.release(held)

    assert await deliveries(shop, webhook) == before
    await rows.settle(taken, Outcome(200))
    assert [each["state"] for each in await deliveries(shop, webhook)] == ["DELIVERED", "PENDING"]
    assert taken["id"] == held["id"]


async def test_an_event_that_comes_while_the_one_before_it_ends_has_its_turn(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await hook(shop, "http://127.0.0.1:9/", *MOVES)
    pool = await shop.pool(codes=1)
    await make_deliveries()
    (held,) = await rows.take({}, per_webhook=1, most=1)
    reached, goes_on, end = asyncio.Event(), asyncio.Event(), rows._end

    async def slow(*args: Any) -> bool:
        ended = await end(*args)
        reached.set()
        await goes_on.wait()
        return ended

    monkeypatch.setattr(rows, "_end", slow)
    settling = asyncio.create_task(rows.settle(held, Outcome(200)))
    await reached.wait()
    await happen(shop, 1, pool)
    feeding = asyncio.create_task(make_deliveries())

    async def is_waiting() -> bool:
        (found,) = await database().rows("SELECT count(*) AS locks FROM pg_locks WHERE NOT granted")
        return feeding.done() or bool(found["locks"])

    await eventually(is_waiting)
    goes_on.set()
    await asyncio.gather(settling, feeding)

    first, second = await deliveries(shop, webhook)
    assert (first["state"], second["state"], second["nextAttemptAt"] is None) == ("DELIVERED", "PENDING", False)


async def test_an_address_is_judged_at_each_delivery_and_connected_to_as_it_was_judged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers: list[list[str]] = [
        ["169.254.169.254"], ["127.0.0.2"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.2"], [], ["127.0.0.1"],
    ]  # fmt: skip

    def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    monkeypatch.setattr(addresses, "look_up", look_up)
    async with receiving() as receiver:
        webhook = await hook(shop, receiver.url.replace("127.0.0.1", "rebound.invalid"), "webhook.created")
        failures = []
        for _ in answers:
            await deliver(shop)
            await hasten(shop)
            (made,) = await deliveries(shop, webhook)
            failures.append(made["lastFailure"])

    assert failures == [*["ADDRESS_REFUSED"] * 4, "HOST_UNKNOWN", None]
    # One look for each attempt: what was connected to is what was judged.
    assert asked == ["rebound.invalid"] * 6
    assert [each.headers["host"].partition(":")[0] for each in receiver.requests] == ["rebound.invalid"]


def _certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate that vouches for itself, at `name`.pem, and return what a server needs of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_server_must_have_a_certificate_for_its_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = _certificate(tmp_path, "hooks.invalid")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "hooks.invalid.pem"))
    monkeypatch.setattr(addresses, "look_up", lambda _host, _port: ["127.0.0.1"])
    found = []
    async with receiving(tls=served) as receiver:
        for url, trusted in (
            (receiver.url.replace("127.0.0.1", "hooks.invalid"), None),
            (receiver.url.replace("127.0.0.1", "other.invalid"), trusting),
            (receiver.url.replace("127.0.0.1", "hooks.invalid"), trusting),
        ):
            with monkeypatch.context() as patched:
                if trusted is not None:
                    patched.setattr(posting, "certificates", lambda: trusting)
                webhook = await hook(shop, url, "webhook.created")
                await deliver(shop)
            (made,) = await deliveries(shop, webhook)
            found.append((made["state"], made["lastFailure"]))
            # Nothing is sent again while the next ones are looked at.
            await shop.do(DISABLE, webhookId=webhook["id"])

    assert found == [("PENDING", "TLS_FAILED")] * 2 + [("DELIVERED", None)]
    assert len(receiver.requests) == 1


async def test_a_webhook_that_can_not_be_decrypted_fails_alone(shop: Shop) -> None:
    async with receiving() as receiver:
        broken, whole = [await hook(shop, receiver.url, *MOVES) for _ in range(2)]
        await database().row(
            "UPDATE webhook SET secret = $3 WHERE merchant_id = $1 AND id = $2",
            shop.merchant_id, ids.decode("webhook", broken["id"]), b"\x00\x01" + bytes(40),
        )  # fmt: skip
        await happen(shop)
        await deliver(shop)

    (failed, waits), told = await deliveries(shop, broken), await deliveries(shop, whole)
    assert (failed["lastFailure"], failed["lastStatus"], failed["attempts"]) == ("NOT_SENT", None, 1)
    assert waits["attempts"] == 0
    assert (await read(shop, broken))["failingSince"] is None
    assert [each["state"] for each in told] == ["DELIVERED"] * 2
    assert len(receiver.requests) == 2


async def test_after_an_outage_what_waits_is_sent_at_once_and_one_bad_event_is_no_outage(shop: Shop) -> None:
    is_down = True
    stubborn: set[str] = set()

    def choose(received: Received) -> Reply:
        return status(502) if is_down or received.id in stubborn else OK

    async with receiving(choose) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        pools = [await happen(shop) for _ in range(3)]
        for _ in range(4):
            await deliver(shop)
            await hasten(shop)
        await database().row(WAIT_LONG, shop.merchant_id)
        failing = await read(shop, webhook)
        is_down = False
        await happen(shop)
        # Nobody hastens what waits for its next attempt but the success.
        await deliver(shop)
        well = await read(shop, webhook)
        left = await deliveries(shop, webhook, "PENDING")
        receiver.requests.clear()
        await happen(shop, 1, pools[0])
        stubborn.add((await _recorded(shop, *MOVES))[pools[0]["id"]][-1])
        await deliver(shop)
        await database().row(WAIT_LONG, shop.merchant_id)
        await happen(shop)
        await deliver(shop)

    assert failing["failingSince"]
    assert (well["failingSince"], well["pausedUntil"], left) == (None, None, [])
    assert Counter(each.id for each in receiver.requests)[next(iter(stubborn))] == 1


async def test_a_webhook_at_which_nothing_was_accepted_for_all_attempts_is_disabled(shop: Shop) -> None:
    async with receiving(status(503)) as receiver:
        webhook = await hook(shop, receiver.url, *MOVES)
        await happen(shop)
        await deliver(shop, rounds=ATTEMPTS)
        one_dead = await read(shop, webhook)
        # The second one was made when the first one failed already.
        await happen(shop)
        await make_deliveries()
        for _ in range(4 * ATTEMPTS):
            await hasten(shop)
            await deliver(shop)
        disabled = await read(shop, webhook)

    assert one_dead["disabledAt"] is None
    assert disabled["disabledReason"] == "FAILING"
    assert (await shop.event_types()).count("webhook.disabled") == 1


def test_the_attempts_of_a_delivery_go_on_for_three_days() -> None:
    assert ATTEMPTS == 10
    assert 3 <= sum(rows.BACKOFF_SECONDS) / 86_400 <= 3.5
    assert tuple(sorted(rows.BACKOFF_SECONDS)) == rows.BACKOFF_SECONDS
