"""The web pages of development, with their assets beside them: nothing is loaded from elsewhere."""

from enum import Enum
from pathlib import Path
from typing import Final

from starlette.responses import Response

PAGES: Final = Path(__file__).parent
ASSETS: Final = PAGES / "assets"

_OURS_ONLY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'self'"
)


class Page(Enum):
    """A page: its file and what it may load."""

    # GraphiQL's editor writes styles into the document, and its style sheet holds its font.
    GRAPHIQL = "graphiql.html", f"{_OURS_ONLY} 'unsafe-inline'; font-src data:"
    GRAPH = "graph.html", _OURS_ONLY
    PORTFOLIO = "portfolio.html", _OURS_ONLY
    WALLET = "wallet.html", _OURS_ONLY

    def response(self) -> Response:
        """Return the page with its content security policy."""
        file, policy = self.value
        headers = {"content-security-policy": policy, "cache-control": "no-cache"}
        return Response((PAGES / file).read_bytes(), media_type="text/html", headers=headers)
