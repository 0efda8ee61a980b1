"""A real browser, Debian's Chromium: one for each test worker, and a fresh profile for each visit."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: What the browser itself says of a network that a test cut.
OF_THE_NETWORK = "net::ERR_"
TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ blockedURI, violatedDirective }) => {
  console.error(`policy: ${violatedDirective} refused ${blockedURI}`);
});
"""


class Visit(Protocol):
    """Opens a page in a profile of its own; `how` describes the screen and the like."""

    def __call__(self, *, cut: bool = False, **how: Any) -> AbstractAsyncContextManager[Page]:
        """After the block nothing may have gone wrong in the page, except for a network that was `cut`."""


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


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """Visits with this browser."""

    @asynccontextmanager
    async def visiting(*, cut: bool = False, **how: Any) -> AsyncIterator[Page]:
        complaints: list[str] = []
        hosts: set[str | None] = set()
        context = await browser.new_context(**how)
        try:
            await context.add_init_script(TELL_VIOLATIONS)
            page = await context.new_page()
            page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
            page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).hostname))
            yield page
        finally:
            await context.close()
        assert [said for said in complaints if not (cut and OF_THE_NETWORK in said)] == []
        # Data addresses have no host.
        assert hosts - {None, ""} == {"127.0.0.1"}

    return visiting
