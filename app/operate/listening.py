"""The listening socket that a supervisor shares among its API processes, and a plain HTTP request to it."""

import asyncio
import contextlib
import socket
import sys
from typing import Final

from app.errors import ConfigurationError

_BACKLOG: Final = 2048
#: How long a client may read nothing before its connection is dropped.
_UNREAD_MILLISECONDS_MAX: Final = 30_000


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError when the address isn't available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted connections inherit it.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS_MAX)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no such host"
        raise ConfigurationError(
            f"Can't listen on {host}:{port} ({reason.lower()}); stop what listens there, or choose another --port."
        ) from None
    return listening


def allow_many_sockets() -> None:
    """Raise the limit on open files as far as the system allows; some shells set 256 or 1,024."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  (Windows has no such module)

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address_of(listening: socket.socket) -> str:
    """Return the `host:port` at which a client on this machine reaches the socket."""
    host, port = _reachable(listening)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def ask(
    listening: socket.socket, path: str, *, body: bytes = b"", key: str = "", within_seconds: float = 2.0
) -> tuple[int, bytes]:
    """Send one HTTP request, a POST if it has a body. Returns status and body; status 0 for no answer in time."""
    verb = "POST" if body else "GET"
    head = f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    try:
        async with asyncio.timeout(within_seconds):
            reader, writer = await asyncio.open_connection(*_reachable(listening))
            try:
                writer.write(f"{head}\r\n".encode() + body)
                answer_head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
                return int(answer_head.split(b" ", 2)[1]), answer
            finally:
                writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, b""


def _reachable(listening: socket.socket) -> tuple[str, int]:
    host, port = listening.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104  (compared, not bound)
