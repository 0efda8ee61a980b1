"""The pages. Without these one could load code from somebody else's server, or be shown to a program."""

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from app.pages import ASSETS, PAGES
from tests.factories import Shop

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "title"),
    [("graphql", "Flash · GraphiQL"), ("wallet", "Flash · Wallet"), ("portfolio", "Flash · Portfolio")],
)
async def test_a_browser_gets_the_page_with_its_headers(shop: Shop, path: str, title: str) -> None:
    response = await shop.http.get(shop.url.removesuffix("graphql") + path, headers=HTML)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(rule.strip().split(" ", 1) for rule in response.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert f"<title>{title}</title>" in response.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/graphql-response+json"])
async def test_a_program_does_not_get_the_page(shop: Shop, accept: str) -> None:
    response = await shop.http.get(shop.url, headers={"accept": accept})

    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_the_root_leads_to_the_page(shop: Shop) -> None:
    root = shop.url.removesuffix("graphql")

    response = await shop.http.get(root, headers=HTML)

    assert (response.status_code, response.headers["location"]) == (307, "/graphql")


@pytest.mark.parametrize(("path", "count"), [("graphql", 7), ("wallet", 3), ("portfolio", 3)])
async def test_everything_that_the_page_loads_is_served_from_here(shop: Shop, path: str, count: int) -> None:
    page = (await shop.http.get(shop.url.removesuffix("graphql") + path, headers=HTML)).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(loaded) == count
    for address in loaded:
        if address == "data:,":
            continue
        assert address.startswith("/assets/")
        response = await shop.http.get(shop.url.removesuffix("/graphql") + address)
        expected = "text/javascript" if address.endswith(".js") else "text/css"
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(expected)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert len(response.content) > 50


@pytest.mark.parametrize(
    "path",
    [*PAGES.glob("*.html"), *ASSETS.glob("*/page.*"), *ASSETS.glob("wallet/*.js")],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_what_is_written_here_names_no_other_server(path: Path) -> None:
    text = path.read_text()

    assert not re.search(r"https?:|(?<!:)//[a-z0-9-]+\.[a-z]", text)


def test_the_style_sheets_fetch_nothing_from_elsewhere() -> None:
    for sheet in ASSETS.rglob("*.css"):
        fetched = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]{1,60})", sheet.read_text())
        assert [address for address in fetched if not address.startswith(("data:", "#"))] == [], sheet.name


@pytest.mark.parametrize("page", ["wallet", "portfolio"])
async def test_modules_import_nothing_from_elsewhere(shop: Shop, page: str) -> None:
    waiting, seen = {f"/assets/{page}/page.js"}, set[str]()
    while waiting:
        address = waiting.pop()
        seen.add(address)
        module = await shop.http.get(shop.url.removesuffix("/graphql") + address)
        assert module.status_code == 200, address
        imported = re.findall(r"""^(?:import|export)\b.*?from ['"]([^'"]+)['"]""", module.text, re.MULTILINE)
        assert all(each.startswith(("./", "../")) for each in imported), imported
        waiting |= {urljoin(address, each) for each in imported} - seen

    assert "/assets/graphql-ws/client.js" in seen
