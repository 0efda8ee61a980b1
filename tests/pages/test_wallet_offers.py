"""Offers on the wallet page. Without these a member couldn't see what it could have, or claim it."""

from playwright.async_api import expect

from tests.conftest import Api
from tests.factories import Shop
from tests.pages.conftest import Visit
from tests.pages.wallet_page import WalletPage, member_with_token


async def test_a_member_claims_what_is_offered_and_sees_what_is_not_for_it(shop: Shop, api: Api, visit: Visit) -> None:
    _, token = await member_with_token(shop)
    await shop.pool(name="Comeback", listed=True, audience=["LAPSED"])
    await shop.pool(name="Spring", listed=True, endsAt="2090-05-01T00:00:00Z")
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await wallet.is_live()
        await expect(page.locator("#offers li")).to_have_count(2)
        before = await wallet.offers()
        await page.get_by_role("button", name="Claim Spring").click()
        await wallet.at_version(1)
        await expect(page.get_by_role("button", name="Claim Spring")).to_be_disabled()
        after = await wallet.offers()
        ready = len(await wallet.ready())

    assert before == [
        ("Spring", "10% off", "Until May 1, 2090", True), ("Comeback", "10% off", "For other customers", False)
    ]  # fmt: skip
    assert after[0] == ("Spring", "10% off", "In your wallet", False)
    assert ready == 1


async def test_an_offer_that_went_in_between_says_why(shop: Shop, api: Api, visit: Visit) -> None:
    _, token = await member_with_token(shop)
    pool = await shop.pool(name="Last one", listed=True, codes=1)
    async with visit() as page:
        wallet = WalletPage(page)
        await wallet.open(api.url, token)
        await expect(page.locator("#offers li")).to_have_count(1)
        await shop.claim(pool, await shop.member())
        await page.get_by_role("button", name="Claim Last one").click()
        await expect(page.get_by_role("button", name="Claim Last one")).to_be_disabled()
        told = await wallet.offers()

    assert told == [("Last one", "10% off", "The pool has no code left.", False)]
