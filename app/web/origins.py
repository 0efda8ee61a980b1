"""The origins whose pages may call the engine. Browsers send a page's origin, and a page can't change it.

Starlette's CORSMiddleware doesn't do this: it tells pages of every origin which methods and headers there are, and
answers their preflights with 400. Here a foreign page gets what any client gets, and nothing that is meant for pages.
"""

import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import Settings

#: How long a browser may remember that it may call. Chromium remembers no longer than this.
_REMEMBERED_SECONDS: Final = 7200
_OWN_MACHINE: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.ASCII)
_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "Authorization, Content-Type, *",
    "access-control-max-age": str(_REMEMBERED_SECONDS),
}


class Origins:
    """The origins whose pages may call, besides the engine's own.

    In development these are servers of the same machine, unless some are configured.
    """

    def __init__(self, settings: Settings) -> None:
        self._listed = settings.origins
        self._takes_own_machine = not settings.production and not self._listed

    def allow(self, origin: str) -> bool:
        """Whether this origin's pages may read answers."""
        return origin in self._listed or (self._takes_own_machine and _OWN_MACHINE.fullmatch(origin) is not None)

    def are_ours(self, headers: Headers) -> bool:
        """Whether a page that may call, or no page at all, sends this."""
        origin = headers.get("origin")
        return origin is None or self.allow(origin) or origin.partition("://")[2] == headers.get("host")


class CrossOrigin:
    """Middleware: pages of allowed origins may read the answers (https://fetch.spec.whatwg.org/#http-cors-protocol).

    Credentials are never taken from cookies, so none are allowed.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflights, and let pages of allowed origins read other answers."""
        if scope["type"] != "http" or b"origin" not in dict(scope["headers"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers["origin"]
        allowed = self._origins.allow(origin)
        if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            given = {"access-control-allow-origin": origin, "vary": "Origin"} | _PREFLIGHT
            await Response(status_code=204, headers=given)(scope, receive, send)
            return

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.add_vary_header("Origin")
                if allowed:
                    answered["access-control-allow-origin"] = origin
                    answered["access-control-expose-headers"] = "X-Request-Id"
            await send(message)

        await self._app(scope, receive, send_readable)
