"""What must hold of codes, claims, wallets and stock whatever happened, recomputed from the rows by raw SQL."""

from typing import Any, Final

from app.storage.database import transaction
from tests.factories import CLAIM_CODE, CREATE_CAMPAIGN, VERIFY_MEMBER_EMAIL, Shop

#: Each selects what breaks a promise, as text.
BREACHES: Final = {
    "a code that is someone's is claimed of its pool, by its owner": """
        SELECT c.id::text AS breach FROM code c
        WHERE c.merchant_id = $1 AND c.state IN ('ALLOCATED', 'REDEEMED') AND NOT EXISTS (
            SELECT FROM claim k WHERE k.merchant_id = $1 AND k.code_id = c.id AND k.pool_id = c.pool_id
        )
        UNION ALL
        SELECT c.id::text FROM claim k JOIN code c ON c.merchant_id = $1 AND c.id = k.code_id
        WHERE k.merchant_id = $1 AND (
            k.member_id IS DISTINCT FROM c.member_id
            OR (c.member_id IS NULL AND k.email_index IS DISTINCT FROM c.email_index)
        )
    """,
    "a code that is nobody's is in stock, and the other way round": """
        SELECT id::text AS breach FROM code
        WHERE merchant_id = $1 AND state IN ('ALLOCATED', 'REDEEMED') AND member_id IS NULL AND email_index IS NULL
    """,
    "a member has no more live codes of a pool than it can have": """
        SELECT k.pool_id || ' of ' || k.member_id AS breach
        FROM claim k JOIN code c ON c.merchant_id = $1 AND c.id = k.code_id
        JOIN pool p ON p.merchant_id = $1 AND p.id = k.pool_id
        WHERE k.merchant_id = $1 AND k.member_id IS NOT NULL
        GROUP BY k.pool_id, k.member_id, p.claims_per_member
        HAVING count(*) FILTER (WHERE c.state = 'ALLOCATED') > p.claims_per_member
            OR (count(*) > p.claims_per_member AND bool_and(c.state = 'ALLOCATED'))
    """,
    "an address has no more codes of a pool than a member can have": """
        SELECT k.pool_id::text AS breach FROM claim k JOIN pool p ON p.merchant_id = $1 AND p.id = k.pool_id
        WHERE k.merchant_id = $1 AND k.member_id IS NULL
        GROUP BY k.pool_id, k.email_index, p.claims_per_member HAVING count(*) > p.claims_per_member
    """,
    "a code or a claim is a member's or an address's": """
        SELECT id::text AS breach FROM code WHERE merchant_id = $1 AND num_nonnulls(member_id, email_index) > 1
        UNION ALL
        SELECT code_id::text FROM claim WHERE merchant_id = $1 AND num_nonnulls(member_id, email_index) <> 1
    """,
    "no code waits for an address that is known to be a member's": """
        SELECT c.id::text AS breach FROM code c JOIN address a ON a.merchant_id = $1 AND a.email_index = c.email_index
        WHERE c.merchant_id = $1 AND a.member_id IS NOT NULL
    """,
    "an address that is written down or that a code waits for has a row": """
        SELECT found.what AS breach FROM (
            SELECT 'member ' || id AS what, email_index FROM member WHERE merchant_id = $1
            UNION ALL
            SELECT 'pending of member ' || id, pending_email_index FROM member WHERE merchant_id = $1
            UNION ALL
            SELECT 'code ' || id, email_index FROM code WHERE merchant_id = $1
        ) found LEFT JOIN address a ON a.merchant_id = $1 AND a.email_index = found.email_index
        WHERE found.email_index IS NOT NULL AND a.email_index IS NULL
    """,
    "nobody has an address that another has proved": """
        SELECT m.id::text AS breach FROM member m
        JOIN address a ON a.merchant_id = $1 AND a.email_index IN (m.email_index, m.pending_email_index)
        WHERE m.merchant_id = $1 AND a.member_id <> m.id
    """,
    "an address is a member's exactly when the member's is verified": """
        SELECT m.id::text AS breach FROM member m FULL JOIN (
            SELECT * FROM address WHERE merchant_id = $1 AND member_id IS NOT NULL
        ) a ON a.email_index = m.email_index AND m.email_verified
        WHERE (m.merchant_id = $1 AND m.email_verified AND a.member_id IS DISTINCT FROM m.id)
            OR (a.merchant_id = $1 AND m.id IS DISTINCT FROM a.member_id)
    """,
    "the stock of a pool is its codes": """
        SELECT coalesce(c.pool_id, s.pool_id)::text AS breach FROM (
            SELECT pool_id, count(*) FILTER (WHERE state = 'AVAILABLE') AS available,
                count(*) FILTER (WHERE state = 'ALLOCATED') AS allocated,
                count(*) FILTER (WHERE state = 'REDEEMED') AS redeemed,
                count(*) FILTER (WHERE state = 'EXPIRED') AS expired,
                count(*) FILTER (WHERE state = 'REVOKED') AS revoked
            FROM code WHERE merchant_id = $1 GROUP BY pool_id
        ) c FULL JOIN (
            SELECT pool_id, sum(available) AS available, sum(allocated) AS allocated, sum(redeemed) AS redeemed,
                sum(expired) AS expired, sum(revoked) AS revoked
            FROM stock_change WHERE merchant_id = $1 GROUP BY pool_id
        ) s ON s.pool_id = c.pool_id
        WHERE (c.available, c.allocated, c.redeemed, c.expired, c.revoked)
            IS DISTINCT FROM (s.available, s.allocated, s.redeemed, s.expired, s.revoked)
    """,
    "each version of a wallet has one event": """
        SELECT w.member_id::text AS breach FROM wallet w LEFT JOIN event e
            ON e.merchant_id = $1 AND e.member_id = w.member_id
        WHERE w.merchant_id = $1 GROUP BY w.member_id, w.version
        HAVING (count(e.id), coalesce(max(e.wallet_version), 0)) <> (w.version, w.version)
    """,
    "what a campaign sends is what its recipients have": """
        SELECT d.code_id::text AS breach FROM delivery d
        WHERE d.merchant_id = $1 AND NOT EXISTS (
            SELECT FROM code WHERE merchant_id = $1 AND id = d.code_id AND state <> 'AVAILABLE'
        )
        UNION ALL
        SELECT k.id::text FROM campaign k
        WHERE k.merchant_id = $1 AND (
            SELECT count(*) FROM delivery WHERE merchant_id = $1 AND campaign_id = k.id
        ) NOT BETWEEN k.allocated_count AND k.recipient_count
    """,
}


async def breaches(shop: Shop) -> dict[str, list[str]]:
    """Return what breaks a promise, by the promise; empty when all hold."""
    async with transaction(None) as tx:
        # Nothing analyses these tables: what looks small to the planner may be 5,000 rows to go through 5,000 times.
        await tx.row("SET LOCAL enable_nestloop = off")
        found = {name: await tx.rows(statement, shop.merchant_id) for name, statement in BREACHES.items()}
    return {name: [row["breach"] for row in rows] for name, rows in found.items() if rows}


async def claim_by_email(shop: Shop, pool: Any, email: str, **input: Any) -> Any:
    """Claim a code of a pool for an address, and return the code."""
    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], email=email, **input)
    assert answer["__typename"] == "ClaimCodeSuccess", answer
    return answer["code"]


async def send(shop: Shop, pool: Any, *recipients: dict[str, str], **input: Any) -> Any:
    """Send a campaign and return the answer, which must be a success."""
    values = {"name": "Spring", "poolId": pool["id"], "recipients": list(recipients)} | input
    answer = await shop.do(CREATE_CAMPAIGN, **values)
    assert answer["__typename"] == "CreateCampaignSuccess", answer
    return answer


async def verify(shop: Shop, member: Any, **named: str) -> Any:
    """Verify a member's address and return the member."""
    return (await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], **named))["member"]
