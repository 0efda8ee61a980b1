"""What tests build a world from: a shop is a merchant with a client, and everything is made through the API."""

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from app import ids
from app.integrity.promises import PROMISES
from app.integrity.recompute import READ_ONCE
from app.merchants.create_merchant import create_merchant
from app.storage.database import database, transaction
from tests.digests import State, state
from tests.wire import Wire

_numbers = itertools.count(1)

POOL = """
  id name status allowedTransitions kind percentOff amountOff { amountMinor currency } giftSku
  minimumSpend { amountMinor currency } maximumDiscount { amountMinor currency } startsAt endsAt
  codeLifetimeDays claimsPerMember stacking transferable codePattern createdAt
"""
CODE = """
  id masked text state matchedBy allocatedAt expiresAt redeemedAt pool { id } owner { id wallet { version } }
"""
REFUSALS = """
  ... on Refusal {
    message
    ... on InvalidInput { problems { path message } }
    ... on NotFound { id }
  }
"""
CREATE_POOL = f"""
mutation ($input: CreatePoolInput!) {{
  answer: createPool(input: $input) {{ __typename ... on CreatePoolSuccess {{ pool {{ {POOL} }} }} {REFUSALS} }}
}}
"""
EDIT_POOL = f"""
mutation ($input: EditPoolInput!) {{
  answer: editPool(input: $input) {{
    __typename ... on EditPoolSuccess {{ pool {{ {POOL} }} }} {REFUSALS} ... on PoolNotEditable {{ status fields }}
  }}
}}
"""
GENERATE_CODES = f"""
mutation ($input: GenerateCodesInput!) {{
  answer: generateCodes(input: $input) {{
    __typename ... on GenerateCodesSuccess {{ replayed batch {{ id size createdAt pool {{ id }} }} }}
    {REFUSALS} ... on PoolNotEditable {{ status }}
  }}
}}
"""
CHANGE_STATUS = f"""
mutation ($input: PoolIdInput!) {{
  answer: %s(input: $input) {{
    __typename ... on ChangePoolStatusSuccess {{ pool {{ {POOL} }} }} {REFUSALS}
    ... on PoolTransitionRejected {{ from to allowed }}
  }}
}}
"""
CLAIM_CODE = f"""
mutation ($input: ClaimCodeInput!) {{
  answer: claimCode(input: $input) {{
    __typename ... on ClaimCodeSuccess {{ replayed servedBy {{ id }} code {{ {CODE} }} }}
    {REFUSALS} ... on PoolNotActive {{ status }} ... on PoolExhausted {{ poolsTried }}
  }}
}}
"""
REDEEM_CODES = f"""
mutation ($input: RedeemCodesInput!) {{
  answer: redeemCodes(input: $input) {{
    __typename
    ... on RedeemCodesSuccess {{
      replayed totalDiscount {{ amountMinor currency }}
      redemptions {{
        id source orderId position orderAmount {{ amountMinor currency }} base {{ amountMinor }}
        discount {{ amountMinor }} redeemedAt reversedAt code {{ {CODE} }}
      }}
    }}
    {REFUSALS} ... on CodesRejected {{ rejections {{ masked reason }} }}
  }}
}}
"""
CREATE_CAMPAIGN = f"""
mutation ($input: CreateCampaignInput!) {{
  answer: createCampaign(input: $input) {{
    __typename
    ... on CreateCampaignSuccess {{
      replayed campaign {{ id name recipientCount allocatedCount createdAt pool {{ id }} }}
    }}
    {REFUSALS} ... on PoolNotActive {{ status }} ... on PoolExhausted {{ poolsTried }}
  }}
}}
"""
DELIVERIES = f"""
query ($id: ID!, $after: String) {{
  campaign(id: $id) {{
    deliveries(first: 100, after: $after) {{
      edges {{ cursor node {{ recipient code {{ {CODE} }} }} }} pageInfo {{ hasNextPage endCursor }}
    }}
  }}
}}
"""
VERIFY_MEMBER_EMAIL = f"""
mutation ($input: VerifyMemberEmailInput!) {{
  answer: verifyMemberEmail(input: $input) {{
    __typename
    ... on VerifyMemberEmailSuccess {{ member {{ id emailVerified wallet {{ version }} }} displaced {{ id }} }}
    {REFUSALS} ... on MemberAlreadyExists {{ existing {{ id }} }}
  }}
}}
"""
CHECK_CODES = REDEEM_CODES.replace("mutation", "query").replace("redeemCodes", "checkCodes")
ENROLL_MEMBER = f"""
mutation ($input: EnrollMemberInput!) {{
  answer: enrollMember(input: $input) {{
    __typename
    ... on EnrollMemberSuccess {{
      member {{ id externalId displayName maskedEmail emailVerified source joinedAt wallet {{ id version }} }}
      displaced {{ id }}
    }}
    {REFUSALS} ... on MemberAlreadyExists {{ existing {{ id }} }}
  }}
}}
"""
EDIT_MEMBER = f"""
mutation ($input: EditMemberInput!) {{
  answer: editMember(input: $input) {{
    __typename
    ... on EditMemberSuccess {{
      member {{
        id externalId externalIds {{ source id }} displayName maskedEmail emailVerified pendingMaskedEmail
        wallet {{ version }}
      }}
      displaced {{ id }}
    }}
    {REFUSALS} ... on MemberAlreadyExists {{ existing {{ id }} }}
  }}
}}
"""
ISSUE_MEMBER_TOKEN = f"""
mutation ($input: IssueMemberTokenInput!) {{
  answer: issueMemberToken(input: $input) {{
    __typename ... on IssueMemberTokenSuccess {{ token expiresAt }} {REFUSALS}
  }}
}}
"""
CREATE_API_KEY = f"""
mutation ($input: CreateApiKeyInput!) {{
  answer: createApiKey(input: $input) {{
    __typename ... on CreateApiKeySuccess {{ secret apiKey {{ id label role createdAt revokedAt }} }} {REFUSALS}
  }}
}}
"""
REVOKE_API_KEY = f"""
mutation ($input: RevokeApiKeyInput!) {{
  answer: revokeApiKey(input: $input) {{
    __typename ... on RevokeApiKeySuccess {{ apiKey {{ id label role createdAt revokedAt }} }} {REFUSALS}
  }}
}}
"""
STOCK = "query ($id: ID!) { pool(id: $id) { stock { total available allocated redeemed expired revoked } } }"


#: Which refusals of which mutations were seen to leave no trace; tests/refusals.py looks for what is missing.
REFUSED: set[tuple[str, str]] = set()
_FIELD = re.compile(r"\{\s*(?:\w+:\s*)?(\w+)")


class UnexpectedGraphQLError(AssertionError):
    """An answer had top-level errors where a test expected none."""


@dataclass
class Shop:
    """A merchant and a way to speak to the API as any of its roles."""

    http: httpx.AsyncClient
    wire: Wire
    url: str
    merchant_id: UUID
    admin: str
    _keys: dict[str, str] = field(default_factory=dict)

    async def post(self, document: str, variables: dict[str, Any] | None = None, *, key: str | None = None,
                   url: str | None = None) -> dict[str, Any]:  # fmt: skip
        """Send a document, as ADMIN unless told. Returns the whole answer, but for what it cost."""
        body = {"query": document, "variables": variables or {}}
        answer: dict[str, Any] = await self.wire.post(url or self.url, body, f"Bearer {key or self.admin}")
        answer.pop("extensions", None)
        return answer

    async def data(self, document: str, variables: dict[str, Any] | None = None, **how: Any) -> dict[str, Any]:
        """Send a document and return its data. Raises UnexpectedGraphQLError if there are errors."""
        answer = await self.post(document, variables, **how)
        if "errors" in answer:
            raise UnexpectedGraphQLError(answer["errors"])
        data: dict[str, Any] = answer["data"]
        return data

    async def do(self, document: str, *, key: str | None = None, url: str | None = None, **input: Any) -> Any:
        """Send one of the documents above and return its answer."""
        return (await self.data(document, {"input": input}, key=key, url=url))["answer"]

    async def error_code(self, document: str, variables: dict[str, Any] | None = None, **how: Any) -> str:
        """Send a document that must fail and return the code of its first error."""
        answer = await self.post(document, variables, **how)
        code: str = answer["errors"][0]["extensions"]["code"]
        return code

    async def key(self, role: str) -> str:
        """Return a key of a role, made on first use."""
        if role == "ADMIN":
            return self.admin
        if role not in self._keys:
            made = await self.do(CREATE_API_KEY, label=f"{role} key", role=role)
            self._keys[role] = made["secret"]
        return self._keys[role]

    async def member(self, **input: Any) -> Any:
        """Enrol a member."""
        values = {"source": "STORE", "externalId": f"c-{next(_numbers)}"} | input
        return (await self.do(ENROLL_MEMBER, **values))["member"]

    async def token(self, member_id: str, **input: Any) -> str:
        """Issue a token for a member."""
        issued = await self.do(ISSUE_MEMBER_TOKEN, memberId=member_id, **input)
        token: str = issued["token"]
        return token

    async def pool(self, *, codes: int = 10, active: bool = True, **input: Any) -> Any:
        """Create a pool (10 % unless told), generate codes in it and activate it."""
        value = {} if {"amountOff", "giftSku", "percentOff"} & input.keys() else {"percentOff": 10.0}
        made = await self.do(CREATE_POOL, **({"name": f"pool {next(_numbers)}", "kind": "PERCENT"} | value | input))
        pool = made["pool"]
        if codes:
            await self.do(GENERATE_CODES, poolId=pool["id"], count=codes)
        if active:
            pool = (await self.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]))["pool"]
        return pool

    async def claim(self, pool: Any, member: Any, **input: Any) -> Any:
        """Claim a code of a pool for a member, and return the code."""
        return (await self.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], **input))["code"]

    async def redeem(self, codes: list[str], member: Any, *, order: str | None = None, amount: int = 10_000) -> Any:
        """Present codes for an order of a member, of its own unless told, and return the answer."""
        order_id = order or f"order-{next(_numbers)}"
        return await self.do(
            REDEEM_CODES, codes=codes, orderId=order_id, orderAmount=usd(amount), memberId=member["id"]
        )

    async def refused(self, document: str, *, key: str | None = None, whole: Any = None, **input: Any) -> Any:
        """Send a document that must be refused without a trace, and return the refusal; `whole` is no input object."""
        before = await self.state()
        answer = (await self.data(document, {"input": input if whole is None else whole}, key=key))["answer"]
        assert not answer["__typename"].endswith("Success"), answer
        assert answer["message"]
        assert await self.state() == before
        field = _FIELD.search(document)
        assert field is not None
        REFUSED.add((field[1], answer["__typename"]))
        return answer

    async def failed(self, document: str, *, key: str | None = None, **input: Any) -> str:
        """Send a document that must fail without a trace, and return the code of its first error."""
        before = await self.state()
        code = await self.error_code(document, {"input": input}, key=key)
        assert await self.state() == before
        return code

    async def wallet_versions(self, member: Any) -> list[int]:
        """Return the versions of a member's wallet that have an event, in order."""
        statement = "SELECT wallet_version FROM event WHERE merchant_id = $1 AND member_id = $2 ORDER BY 1"
        rows = await database().rows(statement, self.merchant_id, ids.decode("member", member["id"]))
        return [row["wallet_version"] for row in rows]

    async def stock(self, pool: Any) -> dict[str, int]:
        """Return a pool's stock."""
        found = await self.data(STOCK, {"id": pool["id"]})
        stock: dict[str, int] = found["pool"]["stock"]
        return stock

    async def state(self) -> State:
        """Return what this merchant has in every table."""
        return await state(self.merchant_id)

    async def count(self, table: str) -> int:
        """Return how many rows this merchant has in a table."""
        (found,) = await database().rows(
            f"SELECT count(*) AS rows FROM {table} WHERE merchant_id = $1", self.merchant_id
        )
        rows: int = found["rows"]
        return rows

    async def broken_promises(self) -> list[tuple[str, int]]:
        """Return what the integrity report finds wrong at this merchant.

        The report plans each statement for the rows that there are, which takes much longer than counting few.
        """
        async with transaction(self.merchant_id) as tx:
            await tx.row(READ_ONCE)
            rows = [await tx.row(promise.count, merchant_id=self.merchant_id) for promise in PROMISES]
        violations = {promise.name: row["violations"] for promise, row in zip(PROMISES, rows, strict=True) if row}
        assert len(violations) == len(PROMISES)
        return [(name, count) for name, count in violations.items() if count]

    async def event_types(self) -> list[str]:
        """Return this merchant's events, oldest first."""
        rows = await database().rows("SELECT type FROM event WHERE merchant_id = $1 ORDER BY id", self.merchant_id)
        return [row["type"] for row in rows]


def usd(amount_minor: int) -> dict[str, Any]:
    """Return an amount as an input."""
    return {"amountMinor": amount_minor, "currency": "USD"}


def problems(refusal: Any) -> dict[str, str]:
    """Return what an InvalidInput complains about, by dotted path."""
    assert refusal["__typename"] == "InvalidInput", refusal
    return {".".join(problem["path"]): problem["message"] for problem in refusal["problems"]}


@asynccontextmanager
async def open_shop(url: str, currency: str = "USD") -> AsyncIterator[Shop]:
    """Make a merchant and a client for it."""
    made = await create_merchant(f"Shop {next(_numbers)}", currency)
    # No expiry: under load httpcore closes connections as expired that it has just given to a request.
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=None)
    # The API speaks plain HTTP here; loading certificates takes longer than most tests.
    async with (
        httpx.AsyncClient(timeout=30, limits=limits, verify=False, trust_env=False) as http,
        aclosing(Wire()) as wire,
    ):
        yield Shop(http, wire, url, made.id, made.api_key)
