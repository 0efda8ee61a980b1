"""Which columns name rows of which tables, of the same merchant."""

from typing import Final, NamedTuple


class Reference(NamedTuple):
    """That a column of a table names a row of another one, of the same merchant."""

    table: str
    column: str
    target: str
    key: str = "id"
    #: The foreign key that holds it.
    constraint: str | None = None


#: Every reference between rows of a merchant that a foreign key holds; tests/integrity compares them with the catalog.
REFERENCES: Final = (
    Reference("wallet", "member_id", "member", constraint="wallet_member"),
    Reference("address", "member_id", "member", constraint="address_member"),
    Reference("external_id", "member_id", "member", constraint="external_id_member"),
    Reference("member", "external_id", "external_id", "external_id", constraint="member_external_id"),
    Reference("member", "accepted_invite_id", "invite", constraint="member_accepted_invite"),
    Reference("erasure", "member_id", "member", constraint="erasure_member"),
    Reference("member", "merged_into_id", "member", constraint="member_merged"),
    Reference("pool", "fallback_pool_id", "pool", constraint="pool_fallback"),
    Reference("pool", "suggestion_id", "suggestion", constraint="pool_suggestion"),
    Reference("suggestion", "run_id", "advice_run", constraint="suggestion_run"),
    Reference("pool_budget", "pool_id", "pool", constraint="pool_budget_pool"),
    Reference("pool_terms", "pool_id", "pool", constraint="pool_terms_pool"),
    Reference("code_revival", "pool_id", "pool", constraint="code_revival_pool"),
    Reference("stock_alert", "pool_id", "pool", constraint="stock_alert_pool"),
    Reference("code_batch", "pool_id", "pool", constraint="code_batch_pool"),
    Reference("bearer_code", "batch_id", "code_batch", constraint="bearer_code_batch"),
    Reference("bearer_code", "code_id", "code", constraint="bearer_code_code"),
    Reference("bearer_code", "pool_id", "pool", constraint="bearer_code_pool"),
    Reference("code", "pool_id", "pool", constraint="code_pool"),
    Reference("code", "batch_id", "code_batch", constraint="code_batch"),
    Reference("code", "member_id", "member", constraint="code_member"),
    Reference("code", "reissued_as", "code", constraint="code_reissued_as"),
    Reference("campaign", "pool_id", "pool", constraint="campaign_pool"),
    Reference("bulk_job", "pool_id", "pool", constraint="bulk_job_pool"),
    Reference("bulk_job", "campaign_id", "campaign", constraint="bulk_job_campaign"),
    Reference("bulk_job_page", "job_id", "bulk_job", constraint="bulk_job_page_job"),
    Reference("redemption", "code_id", "code", constraint="redemption_code"),
    Reference("redemption", "pool_id", "pool_terms", "pool_id", constraint="redemption_terms"),
    Reference("redemption", "order_id", "sales_order", "order_id", constraint="redemption_sales_order"),
    Reference("sales_order", "payer_id", "member", constraint="sales_order_payer"),
    Reference("sales_order", "presenter_id", "member", constraint="sales_order_presenter"),
    Reference("order_amendment", "sales_order_id", "sales_order", constraint="order_amendment_sales_order"),
    Reference("reversal", "redemption_id", "redemption", constraint="reversal_redemption"),
    Reference("points_entry", "member_id", "wallet", "member_id", constraint="points_entry_wallet"),
    Reference("points_entry", "lot_id", "points_lot", "entry_id", constraint="points_entry_lot"),
    Reference("entry_reference", "entry_id", "points_entry", constraint="entry_reference_entry"),
    Reference("points_lot", "entry_id", "points_entry", constraint="points_lot_entry"),
    Reference("points_part", "entry_id", "points_entry", constraint="points_part_entry"),
    Reference("points_part", "lot_id", "points_lot", "entry_id", constraint="points_part_lot"),
    Reference("hold_part", "hold_id", "hold", constraint="hold_part_hold"),
    Reference("hold_part", "lot_id", "points_lot", "entry_id", constraint="hold_part_lot"),
    Reference("points_return", "lot_id", "points_lot", "entry_id", constraint="points_return_lot"),
    Reference("points_cover", "lot_id", "points_lot", "entry_id", constraint="points_cover_lot"),
    Reference("points_cover", "return_id", "points_return", constraint="points_cover_return"),
    Reference("purchase", "member_id", "member", constraint="purchase_member"),
    Reference("refund", "purchase_id", "purchase", constraint="refund_purchase"),
    Reference("reward", "pool_id", "pool", constraint="reward_pool"),
    Reference("reward_redemption", "reward_id", "reward", constraint="reward_redemption_reward"),
    Reference("reward_redemption", "member_id", "member", constraint="reward_redemption_member"),
    Reference("reward_redemption", "code_id", "code", constraint="reward_redemption_code"),
    Reference("reward_redemption", "entry_id", "points_entry", constraint="reward_redemption_entry"),
    Reference("hold", "sales_order_id", "sales_order", constraint="hold_sales_order"),
    Reference("hold", "member_id", "member", constraint="hold_member"),
    Reference("hold_code", "hold_id", "hold", constraint="hold_code_hold"),
    Reference("hold_code", "code_id", "code", constraint="hold_code_code"),
    Reference("hold_code", "pool_id", "pool_terms", "pool_id", constraint="hold_code_terms"),
    Reference("hold_code", "redemption_id", "redemption", constraint="hold_code_redemption"),
    Reference("hold_reward", "hold_id", "hold", constraint="hold_reward_hold"),
    Reference("hold_reward", "reward_id", "reward", constraint="hold_reward_reward"),
    Reference("hold_reward", "code_id", "code", constraint="hold_reward_code"),
    Reference("hold_reward", "redemption_id", "reward_redemption", constraint="hold_reward_redemption"),
    Reference("hold_request", "sales_order_id", "sales_order", constraint="hold_request_sales_order"),
    Reference("code", "hold_id", "hold", constraint="code_hold"),
    Reference("invite", "referrer_id", "member", constraint="invite_referrer"),
    Reference("invite", "referee_id", "member", constraint="invite_referee"),
    Reference("rewarded_mailbox", "invite_id", "invite", constraint="rewarded_mailbox_invite"),
    Reference("invite_quota", "member_id", "member", constraint="invite_quota_member"),
    Reference("referral", "invite_id", "invite", constraint="referral_invite"),
    Reference("referral", "purchase_id", "purchase", constraint="referral_purchase"),
    Reference("referral", "referrer_entry_id", "points_entry", constraint="referral_referrer_entry"),
    Reference("referral", "referee_entry_id", "points_entry", constraint="referral_referee_entry"),
    Reference("segment_member", "member_id", "member", constraint="segment_member_member"),
    Reference("graph_snapshot", "id", "graph_job", constraint="graph_snapshot_job"),
    Reference("graph_snapshot", "drawing_id", "graph_drawing", constraint="graph_snapshot_drawing"),
    Reference("graph_node", "drawing_id", "graph_drawing", constraint="graph_node_drawing"),
    Reference("graph_node", "member_id", "member", constraint="graph_node_member"),
    Reference("graph_edge", "drawing_id", "graph_drawing", constraint="graph_edge_drawing"),
    Reference("graph_edge", "referrer_id", "member", constraint="graph_edge_referrer"),
    Reference("graph_edge", "referee_id", "member", constraint="graph_edge_referee"),
    Reference("graph_file", "drawing_id", "graph_drawing", constraint="graph_file_drawing"),
    Reference("import_row", "import_id", "import_file", constraint="import_row_file"),
    Reference("webhook_delivery", "webhook_id", "webhook", constraint="webhook_delivery_webhook"),
    Reference("archived_event", "archive_id", "event_archive", constraint="archived_event_archive"),
    Reference("archived_wallet", "archive_id", "event_archive", constraint="archived_wallet_archive"),
)
#: Those that none holds: of rows that are appended without a look-up, of claims and deliveries, which triggers look at
#: together, of what is sent to webhooks, which is written from the events that it names, of lots, whose entry names the
#: same person and whose parts name the entry, and of take-backs, whose lot names the member.
UNKEYED: Final = (
    Reference("event", "member_id", "wallet", "member_id"),
    Reference("stock_change", "pool_id", "pool"),
    Reference("claim", "pool_id", "pool"),
    Reference("claim", "code_id", "code"),
    Reference("claim", "member_id", "member"),
    Reference("delivery", "campaign_id", "campaign"),
    Reference("delivery", "code_id", "code"),
    Reference("points_lot", "member_id", "wallet", "member_id"),
    Reference("points_lot", "last_entry_id", "points_entry"),
    Reference("points_return", "member_id", "wallet", "member_id"),
    Reference("webhook_delivery", "event_id", "event"),
)
#: What the subjects of events are, by kind. Snapshots of the network and their jobs are forgotten, their events aren't.
SUBJECTS: Final = {
    kind: Reference("event", "subject_id", table, key)
    for kind, table, key in (
        ("advicerun", "advice_run", "id"),
        ("apikey", "api_key", "id"),
        ("batch", "code_batch", "id"),
        ("campaign", "campaign", "id"),
        ("code", "code", "id"),
        ("entry", "points_entry", "id"),
        ("hold", "hold", "id"),
        ("invite", "invite", "id"),
        ("job", "bulk_job", "id"),
        ("member", "member", "id"),
        ("merchant", "merchant", "merchant_id"),
        ("order", "sales_order", "id"),
        ("pool", "pool", "id"),
        ("purchase", "purchase", "id"),
        ("redemption", "redemption", "id"),
        ("referral", "referral", "id"),
        ("reward", "reward", "id"),
        ("rewardredemption", "reward_redemption", "id"),
        ("webhook", "webhook", "id"),
    )
}
