"""The API's table of contents: every operation, one line each."""

import strawberry
from strawberry.tools import create_type

from app.advisor import queries as advisor
from app.advisor.advice_run_changed import advice_run_changed
from app.advisor.ask_advisor import ask_advisor
from app.api.node import node
from app.api.resolvers import look_up_once
from app.api.scalars import config
from app.api.turns import TurnTaking
from app.coupons import queries as coupons
from app.coupons.change_pool_status import activate_pool, archive_pool, pause_pool
from app.coupons.claim_code import claim_code
from app.coupons.create_campaign import create_campaign
from app.coupons.create_pool import create_pool
from app.coupons.discard_pool import discard_pool
from app.coupons.edit_pool import edit_pool
from app.coupons.fill_pool import fill_pool
from app.coupons.generate_codes import generate_codes
from app.coupons.import_codes import import_codes
from app.coupons.issue_codes import issue_codes
from app.coupons.offers import offers
from app.coupons.reissue_code import reissue_code
from app.coupons.reveal_code import reveal_code
from app.coupons.revoke_code import revoke_code
from app.coupons.revoke_codes import revoke_codes
from app.graph import queries as graph
from app.graph.take_graph_snapshot import take_graph_snapshot
from app.integrity.check_integrity import check_integrity
from app.integrity.integrity_report import integrity_report
from app.jobs import queries as jobs
from app.jobs.cancel_job import cancel_job
from app.members import queries as members
from app.members.issue_member_token import issue_member_token
from app.members.revoke_member_tokens import revoke_member_tokens
from app.members.viewer import viewer
from app.merchants import queries as merchants
from app.merchants.configure_merchant import configure_merchant
from app.merchants.create_api_key import create_api_key
from app.merchants.revoke_api_key import revoke_api_key
from app.orders import queries as orders
from app.orders.amend_order import amend_order
from app.orders.cancel_order import cancel_order
from app.orders.capture_hold import capture_hold
from app.orders.check_codes import check_codes
from app.orders.check_refund import check_refund
from app.orders.extend_hold import extend_hold
from app.orders.hold_checkout import hold_checkout
from app.orders.record_purchase import record_purchase
from app.orders.redeem_codes import redeem_codes
from app.orders.refund_purchase import refund_purchase
from app.orders.release_hold import release_hold
from app.orders.reverse_purchase import reverse_purchase
from app.orders.reverse_redemption import reverse_redemption
from app.people.accept_invite import accept_invite
from app.people.check_erase import check_erase
from app.people.check_merge import check_merge
from app.people.edit_member import edit_member
from app.people.enroll_member import enroll_member
from app.people.erase_member import erase_member
from app.people.merge_members import merge_members
from app.people.verify_member_email import verify_member_email
from app.points import queries as points
from app.points.create_reward import create_reward
from app.points.edit_reward import edit_reward
from app.points.grant_points import grant_points
from app.points.liability import points_liability
from app.points.redeem_reward import redeem_reward
from app.points.retire_reward import retire_reward
from app.points.reverse_reward_redemption import reverse_reward_redemption
from app.referrals import queries as referrals
from app.referrals.cancel_invite import cancel_invite
from app.referrals.configure_referral_program import configure_referral_program
from app.referrals.decline_referral import decline_referral
from app.referrals.invite_members import invite_members
from app.referrals.release_referral import release_referral
from app.reports import queries as reports
from app.wallets import queries as wallets
from app.wallets.wallet_changed import wallet_changed
from app.webhooks import queries as webhooks
from app.webhooks.create_webhook import create_webhook
from app.webhooks.disable_webhook import disable_webhook
from app.webhooks.enable_webhook import enable_webhook
from app.webhooks.redeliver import redeliver
from app.webhooks.redeliver_dead import redeliver_dead
from app.webhooks.rotate_webhook_secret import rotate_webhook_secret

Query = create_type(
    "Query",
    [
        viewer,
        node,
        coupons.pool,
        coupons.pools,
        coupons.codes,
        coupons.code,
        coupons.redemptions,
        coupons.campaign,
        offers,
        coupons.campaigns,
        jobs.jobs,
        check_codes,
        orders.order,
        orders.hold,
        check_refund,
        check_merge,
        members.member,
        members.members,
        check_erase,
        wallets.wallet,
        points.points_entries,
        points.rewards,
        points_liability,
        referrals.referral_program,
        referrals.invite_quota,
        referrals.invites,
        referrals.referrals,
        graph.latest_graph_snapshot,
        graph.graph_snapshots,
        graph.graph_snapshot_job,
        referrals.held_referrals,
        advisor.portfolio,
        advisor.advice_run,
        advisor.latest_advice_run,
        merchants.events,
        merchants.api_keys,
        webhooks.webhooks,
        webhooks.webhook_deliveries,
        integrity_report,
        reports.report_pools,
        reports.report_codes,
        reports.report_members,
        reports.report_purchases,
        reports.report_points_entries,
        reports.report_redemptions,
        reports.report_invites,
        reports.report_referrals,
    ],
    description="What can be read.",
)

Mutation = create_type(
    "Mutation",
    [
        create_pool,
        edit_pool,
        discard_pool,
        activate_pool,
        pause_pool,
        archive_pool,
        generate_codes,
        fill_pool,
        import_codes,
        issue_codes,
        claim_code,
        redeem_codes,
        hold_checkout,
        capture_hold,
        release_hold,
        extend_hold,
        reissue_code,
        reverse_redemption,
        amend_order,
        cancel_order,
        revoke_code,
        revoke_codes,
        reveal_code,
        create_campaign,
        cancel_job,
        enroll_member,
        edit_member,
        erase_member,
        merge_members,
        verify_member_email,
        issue_member_token,
        revoke_member_tokens,
        create_api_key,
        revoke_api_key,
        configure_merchant,
        record_purchase,
        refund_purchase,
        reverse_purchase,
        grant_points,
        create_reward,
        edit_reward,
        retire_reward,
        redeem_reward,
        reverse_reward_redemption,
        configure_referral_program,
        invite_members,
        accept_invite,
        cancel_invite,
        release_referral,
        decline_referral,
        take_graph_snapshot,
        ask_advisor,
        check_integrity,
        create_webhook,
        disable_webhook,
        enable_webhook,
        rotate_webhook_secret,
        redeliver,
        redeliver_dead,
    ],
    description="What can be done. Each answer is the success or a refusal that says why not.",
)

Subscription = create_type(
    "Subscription",
    [
        wallet_changed,
        advice_run_changed,
    ],
    description="What can be followed, over a WebSocket (graphql-transport-ws) or as server-sent events.",
)

schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=config(),
    execution_context_class=TurnTaking,
)
look_up_once(schema)


def sdl() -> str:
    """Return the schema as it is committed in schema.graphql."""
    return schema.as_str() + "\n"
