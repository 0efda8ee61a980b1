"""The one list of what the database holds of persons: how it is found, and what erasing does with it.

Erasing and the export of a member read it, and a test compares it with the catalog.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Fate(Enum):
    """What erasing does with a column."""

    #: It is null.
    CLEARED = "cleared"
    #: It is bytes that nobody can make again: equal ones of one erasure stay equal.
    RANDOM = "random"
    #: Its row is deleted.
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Personal:
    """A table with something of persons. `found` is the condition by which the rows `t` of one are found.

    It takes `:member_ids` (the person's, with those that were merged), `:email_indexes` and `:mailbox_indexes`. `fates`
    are of the columns that erasing changes; `kept` says why the others may stay. `erased` finds what is erased where
    that isn't all that is found, and `also` is what is written with it.
    """

    table: str
    found: str
    fates: Mapping[str, Fate] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    erased: str | None = None
    also: str | None = None


#: A person's codes, with those in whose place they were issued: these wait for no address any more.
CODES: Final = """
    SELECT id FROM (
        WITH RECURSIVE own AS (
            SELECT id FROM (
                SELECT id FROM code WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
                UNION ALL
                SELECT id FROM code WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[])
            ) fresh
            UNION
            SELECT dead.id FROM own JOIN code dead ON dead.merchant_id = :merchant_id AND dead.reissued_as = own.id
        )
        SELECT id FROM own
    ) own_codes
"""
_PRESENTED: Final = """
    SELECT id FROM sales_order WHERE merchant_id = :merchant_id AND presenter_id = ANY(:member_ids::uuid[])
    UNION ALL SELECT id FROM sales_order
    WHERE merchant_id = :merchant_id AND mailbox_index = ANY(:mailbox_indexes::bytea[]) AND presenter_id IS NULL
"""
# With those that somebody else presented, and the person has paid with its points.
_ORDERS: Final = f"""
    {_PRESENTED}
    UNION ALL SELECT id FROM sales_order WHERE merchant_id = :merchant_id AND payer_id = ANY(:member_ids::uuid[])
"""
_ENTRIES: Final = (
    "SELECT id FROM points_entry WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])"
)
_PURCHASES: Final = "SELECT id FROM purchase WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])"
_EXCHANGES: Final = """
    SELECT id FROM reward_redemption WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
"""
# Where the person is the one who was invited.
_INVITES: Final = """
    SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status = 'PENDING'
    UNION ALL SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status <> 'PENDING'
    UNION ALL SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(:member_ids::uuid[]) AND status <> 'EXPIRED'
    UNION ALL SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(:member_ids::uuid[]) AND status = 'EXPIRED'
"""
_REFERRALS: Final = """
    SELECT id FROM referral WHERE merchant_id = :merchant_id AND referrer_id = ANY(:member_ids::uuid[])
    UNION ALL SELECT id FROM referral WHERE merchant_id = :merchant_id AND referee_id = ANY(:member_ids::uuid[])
"""
_REDEMPTIONS: Final = f"""
    SELECT id FROM redemption WHERE merchant_id = :merchant_id AND code_id = ANY(ARRAY({CODES}))
    UNION SELECT r.id FROM sales_order o JOIN redemption r
        ON r.merchant_id = :merchant_id AND r.order_id = o.order_id AND r.source = o.source
    WHERE o.merchant_id = :merchant_id AND o.id = ANY(ARRAY({_ORDERS}))
"""
# What events with a person's words can be about.
_SUBJECTS: Final = f"""
    SELECT unnest(:member_ids::uuid[]) UNION ALL {CODES} UNION ALL {_ORDERS} UNION ALL {_ENTRIES} UNION ALL
    {_PURCHASES} UNION ALL {_EXCHANGES} UNION ALL {_INVITES} UNION ALL {_REFERRALS} UNION ALL ({_REDEMPTIONS})
    UNION ALL SELECT id FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = ANY(ARRAY({_ORDERS}))
"""

_NAMES_NOBODY: Final = "it names nobody"
_WORD: Final = "a word of the engine's own"
_MERCHANTS: Final = "the shop finds its order by it, and returns go on"
_AGAIN: Final = "an HMAC by which a request is known again"

#: In the order in which they are erased: what refers to a row comes before it.
PERSONAL: Final = (
    Personal(
        # What is staged of an import: who was erased is passed over.
        "import_row",
        """
        t.email_index = ANY(:email_indexes::bytea[]) OR t.id = ANY(:member_ids::uuid[])
        OR t.found = ANY(:member_ids::uuid[]) OR EXISTS (
            SELECT FROM external_id x WHERE x.merchant_id = :merchant_id AND x.member_id = ANY(:member_ids::uuid[])
                AND x.source = t.external_source AND x.external_id = t.external_id
        )
        """,
        dict.fromkeys(
            (
                "external_source", "external_id", "email", "email_index", "mailbox_index", "display_name", "source",
                "order_id", "ciphertext", "fingerprint", "folded", "suffix", "verdict", "problem",
            ),
            Fate.DELETED,
        ),
    ),
    Personal(
        "member",
        "t.id = ANY(:member_ids::uuid[])",
        {
            "external_id": Fate.CLEARED,
            "email": Fate.CLEARED,
            "email_index": Fate.CLEARED,
            "mailbox_index": Fate.CLEARED,
            "pending_email": Fate.CLEARED,
            "pending_email_index": Fate.CLEARED,
            "pending_mailbox_index": Fate.CLEARED,
            "dropped_email_indexes": Fate.CLEARED,
            "dropped_mailbox_indexes": Fate.CLEARED,
            "display_name": Fate.CLEARED,
        },
        {"source": _WORD},
        also="erased_at = now(), email_verified = false, token_generation = token_generation + 1",
    ),
    Personal(
        "external_id",
        "t.member_id = ANY(:member_ids::uuid[])",
        {"source": Fate.DELETED, "external_id": Fate.DELETED},
    ),
    Personal(
        "address",
        "(t.email_index = ANY(:email_indexes::bytea[]) OR t.member_id = ANY(:member_ids::uuid[]))",
        {"email_index": Fate.DELETED},
        erased="t.email_index = ANY(:email_indexes::bytea[])",
    ),
    Personal("segment_member", "t.member_id = ANY(:member_ids::uuid[])", {"segment": Fate.DELETED}),
    Personal(
        "delivery",
        f"t.code_id = ANY(ARRAY({CODES}))",
        {"recipient": Fate.CLEARED},
    ),
    Personal(
        "claim",
        f"t.code_id = ANY(ARRAY({CODES}))",
        {"email_index": Fate.RANDOM, "mailbox_index": Fate.CLEARED},
        {"idempotency_key": _AGAIN, "told_of": _AGAIN},
    ),
    Personal(
        "event",
        "t.member_id = ANY(:member_ids::uuid[]) AND t.wallet_version IS NOT NULL",
        {"reason": Fate.CLEARED},
        {"type": _WORD, "subject_kind": _WORD, "actor": _NAMES_NOBODY},
        erased=f"t.subject_id = ANY(ARRAY({_SUBJECTS}))",
    ),
    Personal("entry_reference", f"t.entry_id = ANY(ARRAY({_ENTRIES}))", {"reference": Fate.DELETED}),
    Personal("reversal", f"t.redemption_id = ANY(ARRAY({_REDEMPTIONS}))", {"reason": Fate.CLEARED}),
    Personal(
        "redemption",
        f"t.id = ANY(ARRAY({_REDEMPTIONS}))",
        kept={"source": _WORD, "order_id": _MERCHANTS, "currency": _WORD, "presented_by": _AGAIN},
    ),
    Personal(
        "hold",
        f"t.sales_order_id = ANY(ARRAY({_ORDERS}))",
        {"email_index": Fate.RANDOM},
        {"currency": _WORD, "status": _WORD, "presented_by": _AGAIN},
        erased=f"t.sales_order_id = ANY(ARRAY({_PRESENTED}))",
    ),
    Personal(
        "sales_order",
        f"t.id = ANY(ARRAY({_ORDERS}))",
        {"mailbox_index": Fate.CLEARED},
        {"source": _WORD, "order_id": _MERCHANTS, "currency": _WORD},
        erased=f"t.id = ANY(ARRAY({_PRESENTED}))",
    ),
    Personal("first_order", "t.person = ANY(:mailbox_indexes::bytea[])", {"person": Fate.DELETED}),
    Personal("rewarded_mailbox", "t.mailbox_index = ANY(:mailbox_indexes::bytea[])", {"mailbox_index": Fate.RANDOM}),
    Personal(
        "invite",
        f"t.id = ANY(ARRAY({_INVITES})) OR t.referrer_id = ANY(:member_ids::uuid[])",
        {
            "email": Fate.CLEARED,
            "email_index": Fate.RANDOM,
            "mailbox_index": Fate.RANDOM,
            "domain_index": Fate.CLEARED,
            "token": Fate.CLEARED,
            "token_hash": Fate.RANDOM,
        },
        {"status": _WORD, "converts_on": _WORD, "obstacle": _WORD},
        erased=f"t.id = ANY(ARRAY({_INVITES}))",
    ),
    Personal(
        "code",
        f"t.id = ANY(ARRAY({CODES}))",
        {"email_index": Fate.RANDOM},
        {
            "state": _WORD,
            "ciphertext": "codes stay under the merchant's key",
            "fingerprint": "codes stay under the merchant's key",
            "folded": "codes stay under the merchant's key",
            "suffix": _NAMES_NOBODY,
            "matched_by": _WORD,
        },
    ),
    Personal("wallet", "t.member_id = ANY(:member_ids::uuid[])"),
    Personal(
        "points_entry",
        "t.member_id = ANY(:member_ids::uuid[])",
        kept={
            "reason": _WORD,
            "origin": _AGAIN,
            "reference": "an order's id or a reward's name",
            "reference_index": _AGAIN,
            "told_of": _AGAIN,
        },
    ),
    Personal("points_lot", f"t.entry_id = ANY(ARRAY({_ENTRIES}))"),
    Personal(
        "purchase",
        "t.member_id = ANY(:member_ids::uuid[])",
        kept={"source": _WORD, "order_id": _MERCHANTS, "currency": _WORD, "told_of": _AGAIN},
    ),
    Personal("refund", f"t.purchase_id = ANY(ARRAY({_PURCHASES}))", kept={"refund_id": _MERCHANTS}),
    Personal("reward_redemption", "t.member_id = ANY(:member_ids::uuid[])", kept={"idempotency_key": _AGAIN}),
    Personal(
        "order_amendment",
        f"t.sales_order_id = ANY(ARRAY({_ORDERS}))",
        kept={"idempotency_key": _AGAIN, "request_hash": _AGAIN},
    ),
    Personal("referral", f"t.id = ANY(ARRAY({_REFERRALS}))", kept={"invite_status": _WORD, "flags": _WORD}),
    Personal("invite_quota", "t.member_id = ANY(:member_ids::uuid[])"),
)  # fmt: skip
#: Tables with nothing of a person, and why.
NOBODYS: Final = {
    "advice_run": "prompts and answers are about pools and sums",
    "archived_event": "ids, which name nobody",
    "archived_wallet": "ids, which name nobody",
    "api_key": "the merchant's own staff and systems",
    "bearer_code": "a code that is nobody's",
    "bulk_job": "what the merchant wants done with many codes, and why",
    "bulk_job_page": "ids, which name nobody, until their batch is done",
    "campaign": "what the merchant sends; its recipients are deliveries",
    "code_batch": "how codes came into being",
    "code_length": "how long codes are",
    "code_revival": "which pool's codes live again",
    "data_key": "keys, wrapped",
    "erasure": "ids, which name nobody",
    "erasure_memory": "HMACs of who was erased, for as long as the merchant remembers, without an id",
    "event_archive": "which months were archived",
    "fence": "which merchants move, and between which servers",
    "graph_drawing": "when a network was read",
    "graph_edge": "ids, which name nobody",
    "graph_file": "a drawing of ids and labels without names",
    "graph_job": "that a drawing is wanted",
    "graph_node": "ids and labels without names",
    "graph_snapshot": "counts",
    "hold_code": "a code of a hold",
    "hold_part": "points of a hold",
    "hold_request": "HMACs by which requests are known again",
    "hold_reward": "a reward of a hold",
    "import_file": "that a file is brought in; what it says of persons is rows of import_row",
    "merchant": "the merchant",
    "points_cover": "which lot pays for which",
    "points_part": "which entry took from which lot",
    "points_return": "what was taken back of a lot",
    "pool": "the terms of an offer",
    "pool_budget": "a sum",
    "pool_terms": "the terms of an offer",
    "referral_program": "the terms of the program",
    "report_run": "sums of a merchant's rows, and promises that they keep",
    "reward": "what points buy",
    "segment_refresh": "when segments were worked out",
    "stock_alert": "a level",
    "suggestion": "offers that the advisor suggests, of pools and sums",
    "stock_change": "counts",
    "tortoise_migrations": "which migrations have run",
    "webhook": "the merchant's own systems",
    "webhook_delivery": "ids, which name nobody; bodies are made when they are sent",
}
