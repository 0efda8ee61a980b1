"""GraphiQL. Without these the page could load code from somebody else's server, or be shown to a program."""

import re
from pathlib import Path

import pytest

from app.pages import ASSETS, PAGES
from tests.factories import Shop

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_gets_the_page_with_its_headers(shop: Shop) -> None:
    response = await shop.http.get(shop.url, headers=HTML)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "GraphiQL" in response.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/graphql-response+json"])
async def test_a_program_does_not_get_the_page(shop: Shop, accept: str) -> None:
    response = await shop.http.get(shop.url, headers={"accept": accept})

    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_the_root_leads_to_the_page(shop: Shop) -> None:
    root = shop.url.removesuffix("graphql")

    response = await shop.http.get(root, headers=HTML)

    assert (response.status_code, response.headers["location"]) == (307, "/graphql")


async def test_everything_that_the_page_loads_is_served_from_here(shop: Shop) -> None:
    page = (await shop.http.get(shop.url, headers=HTML)).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(loaded) >= 6
    for address in loaded:
        if address == "data:,":
            continue
        assert address.startswith("/assets/graphiql/")
        response = await shop.http.get(shop.url.removesuffix("/graphql") + address)
        expected = "text/javascript" if address.endswith(".js") else "text/css"
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(expected)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert len(response.content) > 50


@pytest.mark.parametrize("path", [PAGES / "graphiql.html", ASSETS / "graphiql/page.js", ASSETS / "graphiql/page.css"])
def test_what_is_written_here_names_no_other_server(path: Path) -> None:
    text = path.read_text()

    assert not re.search(r"https?:|(?<!:)//[a-z0-9-]+\.[a-z]", text)


def test_the_style_sheets_fetch_nothing_from_elsewhere() -> None:
    for sheet in ASSETS.rglob("*.css"):
        fetched = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]{1,60})", sheet.read_text())
        assert [address for address in fetched if not address.startswith(("data:", "#"))] == [], sheet.name
