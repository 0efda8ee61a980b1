"""An endpoint on this machine that answers, or misbehaves, as a test tells it to, and keeps every request it gets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

#: What the server does with a request: return status, headers and body; None: say nothing for ever.
Reply = tuple[int, dict[str, str], bytes] | None
JSON = {"content-type": "application/json"}


def said(content: object, **choice: Any) -> Reply:
    """Return a chat completion of a model that says this."""
    message = {"role": "assistant", "content": content}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "test-model-7b",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message} | choice],
    }  # fmt: skip
    return 200, JSON, json.dumps(body).encode()


def suggested(*suggestions: dict[str, Any]) -> str:
    """Return an answer with these suggestions."""
    return json.dumps({"suggestions": list(suggestions)})


def suggestion(**known: Any) -> dict[str, Any]:
    """Return a suggestion that passes: 15 % for those who lapsed."""
    values = {
        "title": "Come back", "rationale": "They stopped buying.", "segment": "lapsed", "pools": [], "kind": "PERCENT",
        "percent_off": 15, "amount_off": None, "gift_sku": None, "minimum_spend": None, "maximum_discount": None,
        "claims_per_member": 1, "audience": None, "redemption_rate": None,
    }  # fmt: skip
    return values | known


@dataclass
class ModelServer:
    """A running server; `replies` are used in turn, the last one again and again."""

    url: str = ""
    replies: list[Reply | Callable[[dict[str, Any]], Reply]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                self.requests.append(body)
                self.headers.append(head)
                chosen = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                reply = chosen(body) if callable(chosen) else chosen
                if reply is None:
                    await reader.read()
                    break
                status, extra, content = reply
                lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in extra.items())]
                if "content-length" not in extra:
                    lines.append(f"content-length: {len(content)}")
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                await writer.drain()
                if "content-length" in extra:
                    # More was promised than comes.
                    break
        writer.close()


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """Run a server for the length of the block."""
    server = ModelServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
