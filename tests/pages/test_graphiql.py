"""GraphiQL in a browser. Without these its policy could break it unseen, or a newcomer meet a stack trace."""

import pytest
from playwright.async_api import Page, expect

from tests.conftest import Api
from tests.factories import Shop
from tests.pages.conftest import Visit

SECONDS_MAX = 30_000


async def _enter(page: Page, key: str) -> None:
    await page.get_by_label("Key or token").fill(key)
    await page.get_by_role("button", name="Open GraphiQL").click()


async def _answers(page: Page, text: str) -> None:
    """Run the query that is there, and expect its answer."""
    await page.get_by_role("button", name="Execute query").click(timeout=SECONDS_MAX)
    await expect(page.locator(".result-window")).to_contain_text(text, timeout=SECONDS_MAX)


async def test_a_query_runs_under_the_pages_policy(shop: Shop, api: Api, visit: Visit) -> None:
    async with visit() as page:
        await page.goto(f"{api.url}/graphql#key={shop.admin}")

        await _answers(page, '"role": "ADMIN"')


async def test_without_a_key_it_asks_for_one_and_keeps_it_in_the_tab(shop: Shop, api: Api, visit: Visit) -> None:
    key = await shop.key("ANALYST")
    async with visit() as page:
        await page.goto(f"{api.url}/graphql")
        await expect(page.get_by_role("heading", name="Ask as whom?")).to_be_visible()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(page.get_by_role("button", name="Execute query")).to_have_count(0)

        await _enter(page, f" {key} ")
        await _answers(page, '"role": "ANALYST"')
        await page.reload()
        await _answers(page, '"role": "ANALYST"')
        kept = await page.evaluate("JSON.stringify(localStorage)")
        another = await page.context.new_page()
        await another.goto(f"{api.url}/graphql")

        await expect(another.get_by_label("Key or token")).to_be_visible()
        assert key not in kept


@pytest.mark.parametrize("wrong", ["flash_…", "größer", "two words"])
async def test_what_is_no_key_is_not_sent(wrong: str, shop: Shop, api: Api, visit: Visit) -> None:
    async with visit() as page:
        await page.goto(f"{api.url}/graphql")

        await _enter(page, wrong)

        await expect(page.get_by_role("alert")).to_have_text("This is no key and no token.")
        await _enter(page, shop.admin)
        await _answers(page, '"role": "ADMIN"')


async def test_a_key_that_is_not_accepted_is_asked_for_again(shop: Shop, api: Api, visit: Visit) -> None:
    async with visit() as page:
        await page.goto(f"{api.url}/graphql#key=flash_{shop.merchant_id.hex}_nobody")
        await page.get_by_role("button", name="Execute query").click(timeout=SECONDS_MAX)

        await expect(page.get_by_role("alert")).to_have_text(
            "The engine doesn't accept this key or token, or no longer."
        )
        await _enter(page, await shop.token((await shop.member())["id"]))
        await _answers(page, '"role": "MEMBER"')


async def test_headers_of_ones_own_come_first_and_broken_ones_are_a_sentence(
    shop: Shop, api: Api, visit: Visit
) -> None:
    key = await shop.key("CHECKOUT")
    async with visit() as page:
        await page.goto(f"{api.url}/graphql#key={shop.admin}")
        await page.get_by_role("button", name="Headers").click(timeout=SECONDS_MAX)
        editor = page.get_by_role("region", name="Headers").locator(".CodeMirror:visible")
        await editor.click()
        await page.keyboard.insert_text(f'{{"Authorization": "Bearer {key}"}}')

        await _answers(page, '"role": "CHECKOUT"')
        await editor.click()
        await page.keyboard.press("ControlOrMeta+A")
        await page.keyboard.insert_text('{"Authorization": "Bearer …"}')
        await _answers(page, "The headers below can't be sent")
