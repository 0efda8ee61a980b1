"""The web application: GraphQL over requests, sockets and event streams; health and metrics; pages for development."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import ids
from app.advisor.advice_feed import AdviceFeed
from app.config import Settings, settings
from app.members.token_feed import TokenFeed
from app.merchants.key_feed import KeyFeed
from app.pages import ASSETS, Page
from app.storage.database import Readiness, connected, standing
from app.storage.master_keys import keyring
from app.storage.pulse import within
from app.storage.rings import ringing
from app.telemetry import logs, traces
from app.telemetry.observed import request_id
from app.wallets.wallet_feed import WalletFeed
from app.web.graph_files import graph_file
from app.web.graphql_documents import Documents
from app.web.graphql_http import GraphQLEndpoint
from app.web.graphql_socket import SocketEndpoint
from app.web.huge_pages import use_huge_pages
from app.web.metrics_page import MetricsPage, sampling
from app.web.open_streams import OpenStreams
from app.web.origins import CrossOrigin, Origins
from app.web.trusted_documents import trusted_documents

_GRAPHQL: Final = "/graphql"
#: Python's own is 10.
_MIDDLE_COLLECTIONS_PER_FULL: Final = 100
READY_SECONDS_MAX: Final = 1.5
#: What proxies tell of their callers.
_PROXIED: Final = {b"x-forwarded-for", b"x-forwarded-proto"}


class Application(Starlette):
    """Starlette, whose middleware and routes GraphQL passes by.

    They cost more than reading a request does, and what they keep of a socket while it is open takes 2 KB.
    """

    def __init__(
        self,
        requests: GraphQLEndpoint,
        sockets: SocketEndpoint,
        origins: Origins,
        streams: OpenStreams,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.state.streams = streams
        self._ending = streams.ending
        self.add_middleware(CrossOrigin, origins)
        self._sockets = sockets
        self._requests = requests
        self._of_pages = CrossOrigin(requests, origins)
        self._behind_proxy: Any = self._direct

    def trust(self, proxies: list[str] | str) -> None:
        """Take the addresses of callers from these proxies, as uvicorn does."""
        self._behind_proxy = ProxyHeadersMiddleware(cast(Any, self._direct), proxies)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve a request or a socket, under an id of its own."""
        if scope["type"] == "lifespan":
            return super().__call__(scope, receive, send)
        request_id.set(ids.new().hex)
        if self._ending.is_set() and scope["type"] == "http":
            send = _last(send)
        is_proxied = not _PROXIED.isdisjoint(dict(scope["headers"]))
        return (self._behind_proxy if is_proxied else self._direct)(scope, receive, send)

    def _direct(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["path"] != _GRAPHQL:
            return super().__call__(scope, receive, send)
        if scope["type"] == "websocket":
            return self._sockets(scope, receive, send)
        return (self._of_pages if b"origin" in dict(scope["headers"]) else self._requests)(scope, receive, send)


def _last(send: Send) -> Send:
    """Return what sends an answer over a connection that takes no further request."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last


async def fault(_request: Request, _error: Exception) -> Response:
    """Answer after an unexpected error outside of GraphQL."""
    return JSONResponse({"error": "Internal error."}, status_code=500, headers={"cache-control": "no-store"})


async def healthz(_request: Request) -> Response:
    """Say that the process is alive."""
    return PlainTextResponse("ok")


async def readyz(request: Request) -> Response:
    """Say whether a claim would work. A missing Valkey is told, but claims work without it.

    Behind a router they work as long as one server does; each is named.
    """
    # At once, so that two silent servers take no longer than one.
    database, valkey = await asyncio.gather(
        standing(within_seconds=READY_SECONDS_MAX), _valkey(request.app.state.redis)
    )
    body: dict[str, Any] = {"database": database.readiness.value, "valkey": valkey}
    if database.servers:
        body["servers"] = {name: readiness.value for name, readiness in database.servers.items()}
    if request.app.state.streams.ending.is_set():
        return JSONResponse(body | {"process": "ending"}, status_code=503)
    return JSONResponse(body, status_code=200 if database.readiness is Readiness.OK else 503)


async def wallet(_request: Request) -> Response:
    """Answer with the page of a member's wallet. The page sends the member's token itself."""
    return Page.WALLET.response()


async def graph(_request: Request) -> Response:
    """Answer with the page that draws the network."""
    return Page.GRAPH.response()


async def portfolio(_request: Request) -> Response:
    """Answer with the page of a merchant's pools and of the advisor's suggestions."""
    return Page.PORTFOLIO.response()


async def _valkey(redis: Redis | None) -> str:
    if redis is None:
        return "unset"
    try:
        await within(READY_SECONDS_MAX, redis.ping())
    except (RedisError, OSError, TimeoutError):
        return "away"
    return "ok"


def collect_seldom() -> None:
    """Make full garbage collections skip what stays for good, and come a tenth as often.

    With a thousand live wallets a collection stops the process for 0.3 s (measured). At Python's own pace there was one
    every 14 s, which delayed two deliveries in a hundred.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MIDDLE_COLLECTIONS_PER_FULL)


def application(configured: Settings | None = None) -> Application:
    """Return the application. It connects to its servers when it starts."""
    chosen = configured or settings()
    # A cancelled operation leaves coroutines that were never awaited; nothing can be done about these.
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    logs.configure(chosen)
    traces.configure(chosen)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        keyring()
        app.state.redis = (
            Redis.from_url(chosen.redis_url, socket_timeout=READY_SECONDS_MAX, socket_connect_timeout=1)
            if chosen.redis_url
            else None
        )
        async with (
            connected(chosen, limited=True),
            ringing(chosen.redis_url),
            WalletFeed(chosen).running(),
            AdviceFeed(chosen).running(),
            TokenFeed(chosen).running(),
            KeyFeed(chosen).running(),
            sampling(),
        ):
            collect_seldom()
            use_huge_pages()
            try:
                yield
            finally:
                if app.state.redis is not None:
                    await app.state.redis.aclose()
                await asyncio.to_thread(traces.flush)

    documents = Documents(chosen, trusted_documents(chosen))
    streams = OpenStreams(chosen)
    origins = Origins(chosen)
    routes: list[BaseRoute] = [
        Route("/graph/{name}", graph_file),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]
    if chosen.metrics_token is not None or not chosen.production:
        routes.append(Route("/metrics", MetricsPage(chosen).answer))
    if not chosen.production:
        routes += [
            Route("/", RedirectResponse("/graphql")),
            Route("/wallet", wallet),
            Route("/graph", graph),
            Route("/portfolio", portfolio),
            Mount("/assets", StaticFiles(directory=ASSETS)),
        ]
    app = Application(
        GraphQLEndpoint(chosen, documents, streams, origins),
        SocketEndpoint(chosen, documents, streams, origins),
        origins,
        streams,
        routes=routes,
        lifespan=lifespan,
        exception_handlers={Exception: fault},
    )
    # Redirects would name the caller's Host with http: behind a proxy a client would send its credential there.
    app.router.redirect_slashes = False
    return app
