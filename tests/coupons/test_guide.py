"""docs/codes.md. Without this the guide could show what doesn't work."""

import json
from typing import Any

from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CLAIM_CODE, Shop
from tests.guides import blocks
from tests.jobs.documents import CANCEL, carried_out


async def done(shop: Shop, section: str, **named: str) -> Any:
    """Send a section's document with its input, in which ids stand for `pool_…` and `code_…`."""
    document, values = blocks("docs/codes.md", section)
    answer = await shop.data(document.text, {"input": json.loads(values.text) | named})
    return next(iter(answer.values()))


async def test_the_guide_to_codes_does_what_it_says(shop: Shop) -> None:
    pool = await shop.pool(codes=5, active=False, transferable=True, endsAt="2090-06-01T00:00:00Z")
    imported = await done(shop, "Bring printed codes along", poolId=pool["id"])
    assert (imported["replayed"], imported["batch"]["size"]) == (False, 2)
    filled = await done(shop, "Fill a pool", poolId=pool["id"])
    assert (filled["replayed"], filled["job"]["status"], filled["job"]["total"]) == (False, "QUEUED", 19995)
    await shop.data(CANCEL, {"input": filled["job"]["id"]})
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    printed = await done(shop, "Print", poolId=pool["id"])
    assert len({edge["node"]["text"] for edge in printed["batch"]["texts"]["edges"]}) == 2

    stolen = await done(shop, "Codes that leaked", poolId=pool["id"], batchId=printed["batch"]["id"])
    revoked = await carried_out(shop, stolen["job"])
    assert (stolen["replayed"], stolen["job"]["status"], revoked["status"], revoked["done"]) == (
        False, "QUEUED", "DONE", 2
    )  # fmt: skip

    patterned = await done(shop, "Texts of your own")
    assert patterned["pool"]["codePattern"] == "WINTER-####-####-####"

    extended = await done(shop, "Extend a sale", poolId=pool["id"])
    assert extended == {"pool": {"endsAt": "2091-01-01T00:00:00Z"}}

    member = await shop.member()
    code = await shop.claim(pool, member)
    await shop.do(REVOKE, codeId=code["id"], reason="leaked")
    welcome = await done(shop, "Send to a segment", poolId=pool["id"])
    campaign = welcome["campaign"]
    assert (welcome["replayed"], campaign["segment"], campaign["recipientCount"], campaign["job"]["total"]) == (
        False, "NEW", 1, 1
    )  # fmt: skip
    dead = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])
    fresh = await done(shop, "A code that leaked", codeId=code["id"])
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])
    assert (dead["replayed"], dead["code"]["state"]) == (True, "REVOKED")
    assert (again["replayed"], again["code"]["id"], again["code"]["state"]) == (True, fresh["code"]["id"], "ALLOCATED")
