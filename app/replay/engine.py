"""A client that sends an operation again while the server is away, until it is answered or stays away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import httpx

IN_FLIGHT: Final = 24
ANSWER_SECONDS_MAX: Final = 30.0
#: A server that has never answered gets less time than one that may be restarting.
PATIENCE_FIRST_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class CannotGoOn(Exception):  # noqa: N818  (an end, told in one sentence)
    """The replay can't go on. The message is a sentence that says why and what to do."""


class Fault(Exception):  # noqa: N818  (an answer: this one thing went wrong)
    """A top-level error of one operation; the message is its code."""


class _Away(Exception):  # noqa: N818  (a state of the server)
    """The server didn't answer, or couldn't reach its database."""


class Engine:
    """A client of a GraphQL server.

    Each connection is an httpx client of its own: the pool inside one looks at all its connections on every request,
    which doubles the cost of a small request when there are 24.
    """

    def __init__(self, url: str, key: str, key_from: str) -> None:
        """`key_from` says where the key came from, for the sentence that says it is wrong."""
        if not key.isascii() or not key.isprintable():
            raise CannotGoOn(f"The key from {key_from} isn't a key.")
        self._url = _address(url)
        self._key_from = key_from
        self._answered = False
        self._headers = {"authorization": f"Bearer {key}"}
        self._tls = httpx.create_ssl_context()
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def ask(
        self,
        document: str,
        variables: dict[str, Any],
        *,
        took_effect: Callable[[], Awaitable[Any]] | None = None,
        token: str | None = None,
    ) -> Any:
        """Return the data of an operation, sent again while the server is away. `token` makes it a member's.

        The operation must be idempotent. For one that isn't, `took_effect` is called before it is sent again, and
        returns the answer if the operation took effect, and else None.
        Raises Fault, and CannotGoOn when the server stays away or refuses the key.
        """
        begun: float | None = None
        tries = 0
        while True:
            try:
                answer = await took_effect() if took_effect is not None and tries else None
                return answer if answer is not None else await self._send(document, variables, token)
            except _Away as away:
                # Counts from when it went away, not from the first try: a slow answer is no reason to give up sooner.
                begun = begun or time.monotonic()
                patience = PATIENCE_SECONDS if self._answered else PATIENCE_FIRST_SECONDS
                if time.monotonic() - begun > patience:
                    raise CannotGoOn(self._gave_up(away, patience)) from None
                await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1

    def _gave_up(self, away: _Away, patience: float) -> str:
        if self._answered:
            return f"The server at {self._url} has been away for {patience:.0f} s ({away}); run this again later."
        return f"Nothing answers at {self._url} ({away}); start a server with `flash up`, or name another with --url."

    async def _send(self, document: str, variables: dict[str, Any], token: str | None) -> dict[str, Any]:
        client = self._idle.pop() if self._idle else self._connect()
        as_member = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            response = await client.post(self._url, json={"query": document, "variables": variables}, headers=as_member)
        except (httpx.RequestError, UnicodeError) as error:
            raise _Away(str(error) or type(error).__name__) from None
        finally:
            self._idle.append(client)
        if response.status_code in {502, 503, 504}:
            raise _Away(f"HTTP status {response.status_code}")
        answer = _object(response)
        if "data" not in answer and "errors" not in answer:
            raise CannotGoOn(
                f"{self._url} doesn't answer in GraphQL (HTTP status {response.status_code}); "
                "the address usually ends in /graphql."
            )
        self._answered = True
        errors = answer.get("errors")
        if errors:
            self._refuse(errors[0])
        data: dict[str, Any] = answer["data"]
        return data

    def _connect(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(headers=self._headers, timeout=ANSWER_SECONDS_MAX, verify=self._tls)
        self._clients.append(client)
        return client

    def _refuse(self, error: dict[str, Any]) -> None:
        code = error.get("extensions", {}).get("code", "an error without a code")
        if code in {"TIMEOUT", "UNAVAILABLE"}:
            raise _Away(error["message"])
        if code == "UNAUTHENTICATED":
            raise CannotGoOn(
                f"The server at {self._url} doesn't know the key from {self._key_from}; name a working one with --key."
            )
        if code == "FORBIDDEN":
            raise CannotGoOn(f"This needs an ADMIN key, and the one from {self._key_from} isn't one.")
        raise Fault(code)


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host or not 0 < (parsed.port or 80) < 65_536:
        raise CannotGoOn(f"{url} isn't the address of a server; it must look like http://127.0.0.1:8000/graphql.")
    return url


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    if not isinstance(answer, dict) or not isinstance(answer.get("errors", []), list):
        return {}
    return answer
