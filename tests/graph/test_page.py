"""The page. Without these it could load code from somebody else's server, or be served in production."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import pytest

from app.config import Settings
from app.pages import ASSETS, PAGES
from app.web.application import application
from bench.networks import grown, store
from tests.factories import Shop
from tests.graph.documents import age, taken
from tests.referrals.documents import accepted, program
from tests.sizes import size

#: Notes how many milliseconds each frame takes, from now on.
WATCH_FRAMES = """
() => {
  globalThis.frames = [];
  let last = performance.now();
  const note = (now) => { globalThis.frames.push(now - last); last = now; requestAnimationFrame(note); };
  requestAnimationFrame(note);
}
"""


async def test_the_page_and_all_that_it_loads_are_served_from_here(shop: Shop) -> None:
    root = shop.url.removesuffix("/graphql")
    page = await shop.http.get(f"{root}/graph")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert len(loaded) == 5
    for address in loaded:
        if address != "data:,":
            assert (await shop.http.get(root + address)).status_code == 200, address


@pytest.mark.parametrize("path", [PAGES / "graph.html", ASSETS / "graph/page.js", ASSETS / "graph/page.css"])
def test_what_is_written_here_names_no_other_server(path: Any) -> None:
    assert not re.search(r"https?:|(?<!:)//[a-z0-9-]+\.[a-z]", path.read_text())


def test_production_has_no_page_but_the_files() -> None:
    paths = [getattr(route, "path", "") for route in application(Settings(environment="production")).routes]

    assert "/graph/{name}" in paths
    assert "/graph" not in paths


@asynccontextmanager
async def browsing(complaints: list[str]) -> AsyncIterator[Any]:
    """Open a page in Debian's Chromium, which draws in software. What goes wrong in it is noted."""
    playwright = pytest.importorskip("playwright.async_api", reason="the page is NOT tried: playwright isn't installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page is NOT tried: there is no browser (apt-get install chromium)")
    async with playwright.async_playwright() as running:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await running.chromium.launch(
            executable_path=chromium, args=[*sandbox, "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        )
        page = await browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        yield page
        await browser.close()


async def find(page: Any, label: str) -> str:
    """Search a member by the end of its id, and return what is chosen then."""
    await page.fill("#label", label.removeprefix("Member "))
    await page.press("#label", "Enter")
    chosen: str = await page.text_content("#chosen b")
    return chosen


async def test_a_browser_draws_the_network_finds_a_member_and_shows_another_day(shop: Shop) -> None:
    await program(shop)
    hub = await shop.member()
    for _ in range(3):
        await accepted(shop, hub)
    before = await taken(shop)
    await age(shop)
    await accepted(shop, hub)
    label = (await taken(shop))["nodes"]["edges"][0]["node"]["label"]
    complaints: list[str] = []

    async with browsing(complaints) as page:
        await page.goto(f"{shop.url.removesuffix('/graphql')}/graph#key={shop.admin}")
        await page.wait_for_selector('body[data-drawn="5"]')
        summary = await page.text_content("#summary")
        chosen = await find(page, label)
        await page.focus("#network")
        for key in ("ArrowLeft", "+", "-", "0", "Escape"):
            await page.keyboard.press(key)
        await page.wait_for_selector("#chosen b", state="detached")
        await page.focus("#day")
        await page.keyboard.press("ArrowLeft")
        await page.wait_for_selector('body[data-drawn="4"]')
        shown = await page.text_content("#date")

    assert summary == "5 members · 4 converted referrals · 1 hub"
    assert chosen == label
    assert shown != before["takenOn"]
    assert complaints == []


async def test_a_browser_draws_ten_thousand_members_and_lets_them_be_dragged(shop: Shop) -> None:
    """Two thousand in `make test`."""
    members = size(2_000, 10_000)
    await store(shop.merchant_id, grown(members))
    snapshot = await taken(shop)
    hub = snapshot["nodes"]["edges"][0]["node"]
    complaints: list[str] = []

    async with browsing(complaints) as page:
        await page.goto(f"{shop.url.removesuffix('/graphql')}/graph#key={shop.admin}")
        await page.wait_for_selector(f'body[data-drawn="{snapshot["memberCount"]}"]', timeout=60_000)
        chosen = await find(page, hub["label"])
        box = await page.locator("#network").bounding_box()
        await page.evaluate(WATCH_FRAMES)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        await page.mouse.move(x, y)
        await page.mouse.down()
        for step in range(12):
            await page.mouse.move(x + 10 * step, y + 7 * step)
        await page.mouse.up()
        frames = await page.evaluate("frames")

    # In software, and beside whatever else this machine does: told, not judged.
    print(f"a drag at {members:,} members: {median(frames):.0f} ms a frame, {max(frames):.0f} ms the longest")
    assert snapshot["memberCount"] >= members
    assert chosen == hub["label"]
    assert complaints == []
