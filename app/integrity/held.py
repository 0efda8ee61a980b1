"""What holds each promise: constraints by name, guarded statements, transactions. docs/promises.md says it in words."""

from enum import Enum
from typing import Final, NamedTuple

from app.integrity.references import REFERENCES


class Holder(Enum):
    """A way to hold a promise."""

    #: A key, a check, a trigger: whatever writes.
    CONSTRAINT = "constraint"
    #: One statement that decides and changes, under the lock of the row that it decides by.
    GUARDED_STATEMENT = "guarded statement"
    #: What belongs together is written in one transaction, mostly by one statement.
    TRANSACTION = "transaction"


class Held(NamedTuple):
    """What holds a promise, what counts most first, and the names of the constraints, unique indexes and triggers."""

    by: tuple[Holder, ...]
    constraints: tuple[str, ...]


_CONSTRAINT, _STATEMENT, _TRANSACTION = Holder.CONSTRAINT, Holder.GUARDED_STATEMENT, Holder.TRANSACTION

HELD: Final = {
    "ONE_OWNER": Held(
        (_CONSTRAINT, _TRANSACTION),
        ("code_pkey", "code_available", "code_available_to_all", "code_allocated", "code_owned", "code_one_owner",
         "code_bearer", "code_issued_once", "code_kept", "address_pkey", "member_email_proven",
         "member_email_to_verify", "member_gone", "member_merged_into_other",
         "member_pending_email_beside"),
    ),
    "CLAIM_LIMIT": Held(
        (_STATEMENT, _CONSTRAINT),
        ("claim_slot", "claim_email_slot", "claim_slot_counts", "claim_claimant", "claim_key", "claim_mailbox"),
    ),
    "REDEEMED_ONCE": Held(
        (_CONSTRAINT, _TRANSACTION),
        ("redemption_live", "redemption_order", "redemption_kept", "redemption_fixed", "sales_order_key",
         "sales_order_kept", "sales_order_fixed", "sales_order_guard", "first_order_pkey", "order_amendment_key",
         "pool_budget_remaining", "pool_budget_begun",
         "pool_budget_set", "redemption_spent", "redemption_respent", "redemption_given_back",
         "hold_code_spent", "hold_code_respent", "hold_code_relieved", "hold_code_given_back", "hold_given_back",
         "order_amendment_totals",
         "order_amendment_kept", "order_amendment_fixed", "reversal_pkey", "reversal_redemption",
         "reversal_kept", "reversal_fixed", "code_redeemed"),
    ),
    "WHOLE_BATCHES": Held(
        (_TRANSACTION, _CONSTRAINT),
        ("code_batch_size", "code_batch_key", "code_batch_kept", "code_batch_fixed", "code_kept", "code_fixed",
         "bearer_code_once", "bearer_code_kept", "bearer_code_fixed", "campaign_key", "campaign_counts",
         "campaign_kept", "delivery_kept"),
    ),
    "UNIQUE_CODES": Held((_CONSTRAINT,), ("code_fingerprint", "code_kept", "code_fixed")),
    "CREDITED_ONCE": Held(
        (_CONSTRAINT, _TRANSACTION),
        ("points_entry_origin", "points_entry_kept", "points_entry_fixed", "purchase_order", "purchase_kept",
         "purchase_fixed", "purchase_follows", "purchase_refunded", "purchase_paid", "sales_order_paid",
         "refund_once", "refund_kept",
         "refund_fixed", "reward_redemption_key",
         "reward_redemption_paid", "reward_redemption_kept", "reward_redemption_fixed", "reward_redemption_follows",
         "reward_redemption_reversed_once"),
    ),
    "EXACT_BALANCES": Held(
        (_CONSTRAINT, _TRANSACTION),
        ("wallet_points", "wallet_points_posted", "wallet_points_spendable", "wallet_shortfall", "wallet_begins_empty",
         "wallet_closed", "wallet_kept", "points_entry_balance", "points_entry_lifetime", "points_entry_kept",
         "points_entry_fixed",
         "points_lot_amounts", "points_lot_held", "points_lot_open", "points_lot_begins_whole", "points_lot_moved",
         "points_lot_follows", "points_return_follows", "points_entry_merged",
         "points_lot_kept", "points_lot_fixed", "points_part_pkey", "points_part_returned", "points_part_kept",
         "points_part_fixed", "hold_part_pkey", "hold_part_amount", "points_return_amounts", "points_return_kept",
         "points_return_fixed", "points_cover_amount"),
    ),
    "INVITE_QUOTAS": Held(
        (_STATEMENT, _CONSTRAINT),
        ("invite_quota_day", "invite_quota_lifetime", "invite_quota_kept", "invite_kept"),
    ),
    "CONVERTED_REFERRALS": Held(
        (_CONSTRAINT, _TRANSACTION),
        ("referral_invite", "referral_converted", "referral_once", "referral_referee", "referral_purchase_once",
         "referral_not_self", "referral_guard", "referral_credited", "referral_kept", "invite_guard",
         "invite_not_self", "rewarded_mailbox_pkey", "rewarded_mailbox_once", "rewarded_mailbox_kept",
         "rewarded_mailbox_fixed"),
    ),
    "POOL_LIFECYCLE": Held(
        (_CONSTRAINT, _STATEMENT),
        ("pool_guard", "pool_status", "pool_kept", "pool_terms_pkey", "pool_terms_begun", "pool_terms_written",
         "pool_terms_kept", "pool_terms_fixed"),
    ),
    "ONE_MERCHANT": Held(
        (_CONSTRAINT, _TRANSACTION),
        (*(each.constraint for each in REFERENCES if each.constraint), "claim_refers", "claim_still_refers",
         "code_unclaimed", "member_kept", "member_fixed", "address_refers", "address_fixed", "merchant_kept",
         "merchant_fixed", "delivery_refers", "delivery_still_refers", "campaign_fixed"),
    ),
    "ON_RECORD": Held(
        (_TRANSACTION, _CONSTRAINT),
        ("event_wallet_version", "event_wallet", "event_wallet_points", "event_kept", "event_fixed",
         "event_archive_kept", "event_archive_fixed", "archived_event_kept", "archived_event_fixed",
         "archived_wallet_kept", "archived_wallet_fixed", "wallet_version",
         "wallet_version_grows", "wallet_begins_empty"),
    ),
    "HELD_IS_THERE": Held(
        (_STATEMENT, _CONSTRAINT),
        ("code_held", "code_hold", "hold_live", "hold_captured_once", "hold_guard", "hold_status", "hold_amounts",
         "hold_points", "hold_lifetime", "hold_ended", "hold_captured", "hold_kept", "hold_fixed", "hold_follows",
         "hold_code_pkey",
         "hold_code_amounts", "hold_reward_pkey", "hold_reward_cost", "hold_request_pkey", "hold_request_kept",
         "hold_request_fixed"),
    ),
}  # fmt: skip
