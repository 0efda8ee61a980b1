"""A real browser, Debian's Chromium: one for each test worker.

A new profile costs as much as a visit in it. So plain visits share one, in which each leaves nothing behind.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: What the browser itself says of a network that a test cut.
OF_THE_NETWORK = "net::ERR_"
TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ blockedURI, violatedDirective }) => {
  console.error(`policy: ${violatedDirective} refused ${blockedURI}`);
});
"""


class Visit(Protocol):
    """Opens a page; `how` describes the screen and the like. What a page can't change by itself gets a profile."""

    def __call__(self, *, cut: bool = False, alone: bool = False, **how: Any) -> AbstractAsyncContextManager[Page]:
        """After the block nothing may have gone wrong in the page, except for a network that was `cut`.

        Who changes the clock, which is the profile's, is `alone` in one.
        """


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A running browser."""
    if CHROMIUM is None:
        pytest.skip("the pages are NOT tried: there is no browser (apt-get install chromium)")
    # Root, as in a container, has no sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        await running.close()


@dataclass
class Profile:
    """What plain visits share."""

    context: BrowserContext
    tools: CDPSession

    async def forget(self, origins: set[str]) -> None:
        """Close what is open and remove what these origins have stored."""
        for page in self.context.pages[1:]:
            await page.close()
        await self.context.set_offline(False)
        await self.context.clear_cookies()
        for origin in origins:
            await self.tools.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def profile(browser: Browser) -> AsyncIterator[Profile]:
    """A profile, with a page that stays: without any its window would close, and the next one be as dear."""
    context = await browser.new_context()
    await context.add_init_script(TELL_VIOLATIONS)
    yield Profile(context, await context.new_cdp_session(await context.new_page()))
    await context.close()


@pytest.fixture
def visit(browser: Browser, profile: Profile) -> Visit:
    """Visits with this browser."""

    @asynccontextmanager
    async def visiting(*, cut: bool = False, alone: bool = False, **how: Any) -> AsyncIterator[Page]:
        complaints: list[str] = []
        asked: set[str] = set()
        shared = not alone and how.keys() <= {"viewport", "color_scheme"}
        context = profile.context if shared else await browser.new_context(**how)
        try:
            if not shared:
                await context.add_init_script(TELL_VIOLATIONS)
            page = await context.new_page()
            if shared and "viewport" in how:
                await page.set_viewport_size(how["viewport"])
            if shared and "color_scheme" in how:
                await page.emulate_media(color_scheme=how["color_scheme"])
            page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: asked.add(request.url))
            page.on("websocket", lambda socket: asked.add(socket.url))
            yield page
        finally:
            if shared:
                parts = [urlsplit(url) for url in asked]
                await profile.forget({f"{each.scheme}://{each.netloc}" for each in parts if each.scheme == "http"})
            else:
                await context.close()
        assert [said for said in complaints if not (cut and OF_THE_NETWORK in said)] == []
        # Data addresses have no host.
        assert {urlsplit(url).hostname for url in asked} - {None, ""} == {"127.0.0.1"}

    return visiting
