"""docs/webhooks.md. Without this a reader could build a receiver that takes forgeries, or takes nothing."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.storage.database import database
from tests.factories import Shop
from tests.guides import blocks
from tests.operate.processes import reserved_port
from tests.webhooks.documents import deliver, deliveries, eventually, hook


def texts(language: str) -> list[str]:
    """Return the guide's code blocks of a language."""
    return [block.text for block in blocks("docs/webhooks.md", language=language)]


@contextmanager
def received(secret: str, port: int, folder: Path) -> Iterator[Path]:
    """Run the guide's receiver for the length of the block; what it prints is in a file."""
    (script,) = texts("python")
    program, output = folder / "receive.py", folder / "output"
    program.write_text(script)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(program), str(port)],
            env=os.environ | {"WEBHOOK_SECRET": secret}, stdout=file, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield output
        finally:
            process.terminate()
            process.wait(timeout=20)


async def test_the_guides_receiver_takes_what_is_ours_once_and_nothing_else(shop: Shop, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        url = f"http://127.0.0.1:{port}/"
        webhook = await hook(shop, url, "code.claimed", "webhook.created")
        output = stack.enter_context(received(webhook["secret"], port, tmp_path))
        await eventually(lambda: _answers(port))
        code = await shop.claim(await shop.pool(), await shop.member())
        await deliver(shop)
        accepted = await deliveries(shop, webhook, "DELIVERED")
        await database().row("UPDATE webhook_delivery SET state = 'PENDING', settled_at = NULL, "
                             "next_attempt_at = now() WHERE merchant_id = $1", shop.merchant_id)  # fmt: skip
        await deliver(shop)
        again = await deliveries(shop, webhook, "DELIVERED")
        async with httpx.AsyncClient(verify=False, timeout=30) as http:
            forged = [
                (await http.post(url, content=b'{"type":"x"}', headers=headers)).status_code
                for headers in ({}, {"webhook-id": "event_1", "webhook-timestamp": "1", "webhook-signature": "v1,eA=="})
            ]
        printed = output.read_text().splitlines()

    assert sorted(printed) == sorted([f"webhook.created {webhook['id']}", f"code.claimed {code['id']}"])
    assert [each["attempts"] for each in again] == [each["attempts"] + 1 for each in accepted] == [2, 2]
    assert {each["lastStatus"] for each in again} == {204}
    assert forged == [400, 400]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_guides_documents_answer(shop: Shop) -> None:
    make, listed, redeliver, rotate = texts("graphql")
    made = (await shop.data(make, {"url": "https://8.8.8.8/hooks"}))["createWebhook"]
    refused = (await shop.data(make, {"url": "https://10.0.0.1/hooks"}))["createWebhook"]
    webhook_id = made["webhook"]["id"]

    assert made["webhook"]["eventTypes"] == ["code.claimed", "code.redeemed", "points.credited"]
    assert refused == {
        "__typename": "InvalidInput",
        "message": "url must not lead to a private, local or reserved address.",
    }
    found = (await shop.data(listed, {"webhook": webhook_id}))["webhookDeliveries"]
    assert found == {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    assert (await shop.data(redeliver, {"webhook": webhook_id}))["redeliverDead"]["count"] == 0
    rotated = (await shop.data(rotate, {"webhook": webhook_id}))["rotateWebhookSecret"]
    assert rotated["secret"] != made["secret"]
    assert rotated["webhook"]["previousSecretUntil"]
