"""docs/advisor.md. Without this the way from a suggestion to a campaign could end half-way."""

import json
from typing import Any

from tests.advisor.documents import advised
from tests.factories import Shop
from tests.guides import blocks
from tests.jobs.documents import carried_out


async def test_the_way_from_a_suggestion_to_a_campaign_is_as_the_guide_says(shop: Shop) -> None:
    documents = blocks("docs/advisor.md", "From a suggestion to a campaign", "graphql")
    inputs = [json.loads(each.text) for each in blocks("docs/advisor.md", "From a suggestion to a campaign", "json")]
    steps = iter(zip(documents, inputs, strict=True))

    async def step(**named: Any) -> Any:
        document, values = next(steps)
        return next(iter((await shop.data(document.text, {"input": values | named})).values()))

    members = [await shop.member() for _ in range(3)]
    (suggestion, *_) = (await advised(shop))["suggestions"]
    assert (suggestion["audience"], suggestion["pool"]) == ("NEW", None)

    pool = (await step(suggestionId=suggestion["id"]))["pool"]
    job = (await step(poolId=pool["id"]))["job"]
    filled = await carried_out(shop, job)
    activated = await step(poolId=pool["id"])
    campaign = (await step(poolId=pool["id"]))["campaign"]
    sent = await carried_out(shop, campaign["job"])

    assert (pool["status"], pool["suggestion"]) == ("DRAFT", {"id": suggestion["id"]})
    assert (job["status"], filled["status"], filled["done"]) == ("QUEUED", "DONE", 500)
    assert activated == {"pool": {"status": "ACTIVE"}}
    assert (campaign["recipientCount"], sent["status"], sent["done"]) == (3, "DONE", len(members))
    assert await shop.stock(pool) | {"total": 500} == {
        "total": 500, "available": 497, "allocated": 3, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert next(steps, None) is None
