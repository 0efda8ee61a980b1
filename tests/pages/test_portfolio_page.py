"""The portfolio page. Without these it could be blank, invent a figure, or create what nobody asked for."""

import pytest
from playwright.async_api import Page, expect

from app.coupons.carry_out import carry_out_jobs
from tests.advisor.documents import advised
from tests.conftest import Api
from tests.factories import Shop
from tests.pages.conftest import Visit
from tests.points.documents import purchase

HOSTILE = "<img src=x onerror=alert(1)>"


async def _opened(page: Page, api: Api, key: str) -> None:
    await page.goto(f"{api.url}/portfolio#key={key}")
    await page.wait_for_selector("body[data-pools]")


async def _without_overflow(page: Page) -> bool:
    fits: bool = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fits


async def test_a_suggestion_is_followed_live_and_created_only_when_a_person_submits_it(
    shop: Shop, api: Api, visit: Visit
) -> None:
    await shop.pool(name=HOSTILE, codes=2)
    await purchase(shop, await shop.member(), "o1", 5_000)
    before = await shop.state()
    async with visit() as page:
        await _opened(page, api, shop.admin)
        assert "key=" not in page.url
        await expect(page.locator("#bubbles title")).to_have_text(
            f"{HOSTILE}: dog, share 0 %, growth \u2013, 0 redeemed"
        )
        await expect(page.locator("#segments li")).to_have_count(5)
        await page.get_by_role("button", name="Ask the advisor").click()
        await expect(page.locator("#status")).to_have_text("The advisor has been asked …")
        run = await advised(shop)
        await expect(page.locator(".card")).to_have_count(len(run["suggestions"]))
        await expect(page.locator("#source")).to_have_text("Proposed by the engine's rules: No endpoint is configured.")
        await expect(page.locator("#status")).to_have_text("")
        first = run["suggestions"][0]
        await page.get_by_role("button", name="Adopt…").first.click()
        await expect(page.locator("#create [name=name]")).to_have_value(first["draft"]["name"])
        assert (await shop.state())["pool"] == before["pool"]
        await page.locator("#create [name=name]").fill("Adopted")
        await page.get_by_role("button", name="Create the draft").click()
        await expect(page.locator("#pools tr")).to_have_count(2)
        await expect(page.locator("#status")).to_contain_text("“Adopted” is a draft now")
        card = page.locator(".card").first
        await expect(card.locator(".told")).to_have_text("“Adopted” is a draft without codes.")
        await expect(card.get_by_label("Codes")).to_have_value("1")
        await card.get_by_label("Codes").fill("3")
        await card.get_by_role("button", name="Make codes").click()
        await expect(card.locator(".told")).to_have_text("Making codes: 0 of 3")
        await carry_out_jobs(seconds_max=30)
        await expect(card.locator(".told")).to_have_text("“Adopted” is a draft with 3 codes.")
        await card.get_by_role("button", name="Activate").click()
        await expect(card.locator(".told")).to_have_text("“Adopted” is active.")
        await card.get_by_role("button", name=f"Send to: {first['segment']}").click()
        await expect(card.locator(".told")).to_have_text("Sending: 0 of 1")
        await page.reload()
        await expect(card.locator(".told")).to_have_text("Sending: 0 of 1")
        await carry_out_jobs(seconds_max=30)
        await expect(card.locator(".told")).to_have_text("Sent to 1 member.")
        await expect(card.get_by_role("button")).to_be_hidden()

    made = await shop.data(
        "{ pools { edges { node { name status kind percentOff audience amountOff { amountMinor } suggestion { id } "
        "stock { available allocated } } } } }"
    )
    adopted = made["pools"]["edges"][0]["node"]
    draft = first["draft"]
    assert (adopted["name"], adopted["status"], adopted["kind"]) == ("Adopted", "ACTIVE", draft["kind"])
    assert adopted["stock"] == {"available": 2, "allocated": 1}
    assert adopted["suggestion"] == {"id": first["id"]}
    assert adopted["percentOff"] == draft["percentOff"]
    assert adopted["audience"] == draft["audience"] != []
    assert (adopted["amountOff"] or {}).get("amountMinor") == (draft["amountOff"] or {}).get("amountMinor")


async def test_what_createpool_refuses_is_shown_and_nothing_is_created(shop: Shop, api: Api, visit: Visit) -> None:
    await advised(shop)
    before = await shop.state()
    async with visit() as page:
        await _opened(page, api, shop.admin)
        await page.get_by_role("button", name="Adopt…").first.click()
        await page.locator("#create [name=kind]").select_option("GIFT")
        await page.get_by_role("button", name="Create the draft").click()
        await expect(page.locator("#problem")).to_have_text("giftSku must not be blank.")
        await page.get_by_role("button", name="Not now").click()
        await expect(page.locator("#adopt")).to_be_hidden()

    assert await shop.state() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_merchant_with_nothing_sees_a_page_on_a_phone(shop: Shop, api: Api, visit: Visit, scheme: str) -> None:
    async with visit(viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        await page.goto(f"{api.url}/portfolio")
        await expect(page.get_by_role("heading", name="Show a merchant's portfolio")).to_be_visible()
        await page.get_by_label("Key").fill("nonsense")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#notice")).to_be_visible()
        await page.get_by_label("Key").fill(await shop.key("ANALYST"))
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#pools-empty")).to_be_visible()
        await expect(page.locator("#suggestions-empty")).to_have_text("Nobody has asked the advisor yet.")
        await expect(page.locator("#segments li")).to_have_count(5)
        await expect(page.get_by_role("button", name="Ask the advisor")).to_be_hidden()
        assert await _without_overflow(page)
