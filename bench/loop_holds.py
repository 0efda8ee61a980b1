"""S12: the longest that one request holds the event loop of an API process at a time, and the CPU that it costs.

Requests go to the endpoint within this process, beside a callback that notes the CPU between two of its turns.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from graphql import get_introspection_query

from app import ids
from app.api.context import Viewer
from app.config import Settings, settings
from app.members import tokens
from app.web.application import collect_seldom
from app.web.graphql_documents import Documents
from app.web.graphql_http import GraphQLEndpoint
from app.web.open_streams import OpenStreams
from app.web.origins import Origins
from bench.world import add_filled_pool, add_members, add_merchant

ROUNDS = 3
LISTED = 100
POOL = "id name status kind percentOff giftSku startsAt endsAt claimsPerMember stacking transferable createdAt"
CODE = "id masked state matchedBy allocatedAt expiresAt redeemedAt text"
ENTRY = "id amount reason reference expiresAt createdAt balanceAfter"
MEMBER = "id externalId displayName maskedEmail emailVerified source joinedAt"
REPORT = "id poolId batchId campaignId memberId redemptionId masked kind state allocatedAt"
GRANT = """
mutation ($member: ID!, $key: String!) {
  grantPoints(input: { memberId: $member, amount: 1, reference: "bench", idempotencyKey: $key }) { __typename }
}
"""
CHECK = """
query ($codes: [String!]!) {
  checkCodes(input: { codes: $codes, orderId: "x", orderAmount: { amountMinor: 1, currency: "USD" } }) { __typename }
}
"""
INVITE = "mutation ($emails: [String!]!) { inviteMembers(input: { emails: $emails }) { __typename } }"
CAMPAIGN = """
mutation ($recipients: [CampaignRecipientInput!]!) {
  createCampaign(input: { name: "x", poolId: "x", recipients: $recipients }) { __typename }
}
"""
#: What one operation is allowed beside the defaults, so that what they refuse can be measured.
UNLIMITED = {"fields_max": 1_000_000, "depth_max": 30, "answer_bytes_max": 64 * 1024 * 1024}


@dataclass(frozen=True)
class Request:
    """What is sent, and by whom."""

    name: str
    document: str
    variables: dict[str, Any] = field(default_factory=dict)
    role: str = "ADMIN"
    unlimited: bool = False


def page(name: str, inner: str, first: int = LISTED) -> str:
    """Return the selection of a page."""
    return f"{name}(first: {first}) {{ edges {{ cursor node {{ {inner} }} }} }}"


WHOLE_POOLS = page("pools", f"{POOL} {page('codes', CODE)}")
SOME_CODES = page("pools", f"{POOL} {page('codes', CODE, 40)}")
MASKED = page("pools", page("codes", "a: masked b: masked"))
IDS = page("pools", page("codes", "id"))
OWNED = page("codes", f"{CODE} pool {{ {POOL} stock {{ total available }} }} owner {{ {MEMBER} }}")
ENTRIES = page("entries", f"{ENTRY} member {{ {MEMBER} wallet {{ id version points }} }}")
ENTRIES_OF_ENTRIES = page("entries", f"member {{ wallet {{ {ENTRIES} }} }}")
ROWS = f"reportCodes(first: 1000) {{ edges {{ node {{ {REPORT} }} }} }}"
#: Each spreads the next one twice; documents this long are judged each time.
DOUBLING = "".join(f"fragment a{n} on Query {{ ...a{n + 1} ...a{n + 1} }} " for n in range(100)).ljust(21_000)
DOUBLING += "fragment a100 on Query { viewer { role } } { ...a0 }"
ADDRESSES = [f"someone.or.other.{number}@example.com" for number in range(5_000)]
REQUESTS = [
    Request("a page of 100 codes", f"{{ {page('codes', CODE)} }}"),
    Request("a page of 100 codes, their pools and owners", f"{{ {OWNED} }}"),
    Request("100 pools and 40 codes of each", f"{{ {SOME_CODES} }}"),
    Request("100 pools and the ids of 100 codes of each", f"{{ {IDS} }}"),
    Request("and what has to be decrypted of them, twice", f"{{ {MASKED} }}"),
    Request("100 pools and 100 codes of each", f"{{ {WHOLE_POOLS} }}"),
    Request("the same, if it were allowed", f"{{ {WHOLE_POOLS} }}", unlimited=True),
    Request(
        "the entries of the members of a member's entries", f"{{ wallet {{ {ENTRIES_OF_ENTRIES} }} }}", role="MEMBER"
    ),
    Request(
        "the same, if they were allowed", f"{{ wallet {{ {ENTRIES_OF_ENTRIES} }} }}", role="MEMBER", unlimited=True
    ),
    Request("1,000 rows of a report", f"{{ {ROWS} }}"),
    Request("the schema", get_introspection_query()),
    # Documents this long aren't kept, nor are their answers.
    Request("the schema, each time anew", get_introspection_query().ljust(21_000)),
    Request("a document of 100 fragments, never judged before", DOUBLING),
    Request("lists in lists, half a megabyte", CHECK, {"codes": [[[[]] * 230] * 100] * 7}),
    Request("lists in lists, a tenth of that", CHECK, {"codes": [[[]] * 97] * 200}),
    Request("an invitation of 5,000 addresses", INVITE, {"emails": ADDRESSES}, role="MEMBER"),
    Request("a campaign to 5,000 addresses", CAMPAIGN, {"recipients": [{"email": each} for each in ADDRESSES]}),
]


class Holds:
    """Notes the most CPU that this thread uses between two turns of its own, until it is stopped."""

    def __init__(self) -> None:
        """Begin."""
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._next = self._loop.call_soon(self._look)

    def _look(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._next = self._loop.call_soon(self._look)

    def stop(self) -> float:
        """End. Returns the longest, in seconds."""
        self._next.cancel()
        return self.longest


def served(limits: Settings) -> GraphQLEndpoint:
    """Return the endpoint of an API process with these limits."""
    return GraphQLEndpoint(limits, Documents(limits), OpenStreams(limits), Origins(limits))


async def send(endpoint: GraphQLEndpoint, key: str, document: str, variables: dict[str, Any]) -> bytes:
    """Send one request. Returns the body of the answer."""
    body = orjson.dumps({"query": document, "variables": variables})
    named = {"authorization": f"Bearer {key}", "content-type": "application/json", "content-length": str(len(body))}
    headers = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers}
    coming = [{"type": "http.request", "body": body, "more_body": False}]
    answered = bytearray()

    async def receive() -> Any:
        return coming.pop() if coming else await asyncio.Future[Any]()

    async def tell(message: Any) -> None:
        answered.extend(message.get("body", b""))

    await endpoint(scope, receive, tell)
    return bytes(answered)


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table of S12."""
    viewer, key = await add_merchant("Holds")
    limited, unlimited = served(settings()), served(settings().model_copy(update=UNLIMITED))
    (member,) = await add_members(viewer, 1)
    for number in range(LISTED):
        await add_filled_pool(viewer, LISTED)
        await send(limited, key, GRANT, {"member": ids.encode("member", member), "key": str(number)})
    keys = {"ADMIN": key, "MEMBER": tokens.issue(viewer.tenant, member, 3600, generation=0)[0]}
    # As in an API process.
    collect_seldom()
    lines = [
        f"The least of {ROUNDS} turns each. Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| request | answer | fields | longest hold | CPU |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in REQUESTS:
        endpoint = unlimited if each.unlimited else limited
        lines.append(await _line(each, partial(send, endpoint, keys[each.role], each.document, each.variables)))
    return [
        *lines,
        "",
        "Goal: at most 50 ms at a time and 1 s in all.",
    ]


async def _line(request: Request, ask: Callable[[], Awaitable[bytes]]) -> str:
    holds, spent, body = [], [], b""
    for _ in range(ROUNDS):
        noting = Holds()
        body = await ask()
        await asyncio.sleep(0)
        holds.append(noting.stop() * 1000)
        begun = time.process_time()
        await ask()
        spent.append((time.process_time() - begun) * 1000)
    said = orjson.loads(body)
    error = (said.get("errors") or [{"extensions": said.get("extensions")}])[0]
    cost = error["extensions"].get("cost")
    fields = f"{cost['fields']:,}" if cost else ""
    answer = error["extensions"].get("code") or f"{len(body) // 1024:,} KiB"
    return f"| {request.name} | {answer} | {fields} | {min(holds):.0f} ms | {min(spent):.0f} ms |"


if __name__ == "__main__":
    from bench.world import run

    print("\n".join(run(measure)))
