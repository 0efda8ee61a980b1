"""GraphiQL in a browser. Without these its content security policy could break it unseen."""

from playwright.async_api import expect

from tests.conftest import Api
from tests.factories import Shop
from tests.pages.conftest import Visit


async def test_a_query_runs_under_the_pages_policy(shop: Shop, api: Api, visit: Visit) -> None:
    async with visit() as page:
        await page.goto(f"{api.url}/graphql#key={shop.admin}")
        await page.get_by_role("button", name="Execute query").click()

        await expect(page.locator(".result-window")).to_contain_text('"role": "ADMIN"', timeout=30_000)
