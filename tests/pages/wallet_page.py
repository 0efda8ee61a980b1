"""The wallet page as its reader sees it."""

from dataclasses import dataclass
from typing import Any

from playwright.async_api import Page, expect

from tests.factories import Shop

PATIENCE_MILLISECONDS = 30_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)


@dataclass
class WalletPage:
    """The page as its reader sees it."""

    page: Page

    async def open(self, url: str, token: str) -> None:
        """Follow a link with a token in it, as `make up` prints it."""
        await self.page.goto(f"{url}/wallet#token={token}")

    async def enter(self, token: str) -> None:
        """Type a token."""
        await self.page.get_by_label("Member token").fill(token)
        await self.page.get_by_role("button", name="Open").click()

    async def is_live(self) -> None:
        """Wait until the page says that it is live."""
        await expect(self.page.get_by_role("status")).to_have_text("Live")

    async def is_offline(self) -> None:
        """Wait until the page says that it is not."""
        await expect(self.page.get_by_role("status")).to_have_text("Offline")

    async def at_version(self, version: int) -> None:
        """Wait until the page shows a version."""
        await expect(self.page.locator("#version")).to_have_text(str(version))

    async def ready(self) -> list[str]:
        """Return the codes that can be used, as shown."""
        return await self.page.locator("#ready .text").all_inner_texts()

    async def past(self) -> list[tuple[str, str]]:
        """Return the codes that can't be used any more and their states."""
        codes = await self.page.locator("#past .code").all()
        return [
            (await code.locator(".text").inner_text(), await code.get_attribute("data-state") or "") for code in codes
        ]

    async def changes(self) -> list[tuple[int, str]]:
        """Return what the log lists, the oldest first."""
        items = await self.page.get_by_role("log").locator("li").all()
        listed = [
            (int(await item.get_attribute("data-version") or ""), await item.locator(".what").inner_text())
            for item in items
        ]
        return listed[::-1]

    async def balance(self) -> str:
        """Return the points, as shown."""
        return await self.page.locator("#balance").inner_text()

    async def entries(self) -> list[tuple[str, str]]:
        """Return amount and reason of each entry that is listed, the newest first."""
        items = await self.page.locator("#entries li").all()
        return [
            (await item.locator(".amount").inner_text(), await item.locator(".reason").inner_text()) for item in items
        ]

    async def rewards(self) -> list[tuple[str, str, str, bool]]:
        """Return name, cost and facts of each reward, and whether it can be redeemed."""
        return [
            (
                await item.locator(".name").inner_text(),
                await item.locator(".cost").inner_text(),
                await item.locator(".fine").inner_text(),
                await item.get_by_role("button").is_enabled(),
            )
            for item in await self.page.locator("#rewards li").all()
        ]

    async def offers(self) -> list[tuple[str, str, str, bool]]:
        """Return name, worth and facts of each offer, and whether it can be claimed."""
        return [
            (
                await item.locator(".name").inner_text(),
                await item.locator(".worth").inner_text(),
                await item.locator(".fine").inner_text(),
                await item.get_by_role("button").is_enabled(),
            )
            for item in await self.page.locator("#offers li").all()
        ]

    async def ask_for(self, name: str) -> None:
        """Press a reward's button, which asks."""
        await self.page.get_by_role("button", name=f"Redeem {name}").click()

    async def answer(self, button: str) -> None:
        """Press a button of the dialog."""
        await self.page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()

    async def is_told(self, sentence: str) -> None:
        """Wait until the dialog says something."""
        await expect(self.page.locator("#redeem-text")).to_have_text(sentence)


async def member_with_token(shop: Shop, **input: Any) -> tuple[Any, str]:
    """Enrol a member and let it sign in."""
    member = await shop.member(**input)
    return member, await shop.token(member["id"])
