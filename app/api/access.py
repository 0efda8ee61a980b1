"""Who may call and read what: one table. Every check looks it up, and nothing is allowed that it doesn't list."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from graphql import GraphQLError

from app.api.context import Role, Viewer


class Otherwise(Enum):
    """What a role gets that a rule doesn't name."""

    FORBIDDEN = "FORBIDDEN"
    NULL = "null"
    MASKED = "masked"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may, and what happens to everybody else."""

    roles: frozenset[Role]
    otherwise: Otherwise

    def __contains__(self, role: Role) -> bool:
        """Whether this role may."""
        return role in self.roles


def _otherwise(otherwise: Otherwise, roles: Mapping[str, frozenset[Role]]) -> dict[str, Rule]:
    return {coordinate: Rule(allowed, otherwise) for coordinate, allowed in roles.items()}


_ADMIN: Final = frozenset({Role.ADMIN})
_MEMBER: Final = frozenset({Role.MEMBER})
_TILL: Final = frozenset({Role.ADMIN, Role.CHECKOUT})
_REPAIR: Final = frozenset({Role.ADMIN, Role.SUPPORT})
_COUNTER: Final = frozenset({Role.ADMIN, Role.CHECKOUT, Role.SUPPORT})
_KEYS: Final = frozenset(Role) - _MEMBER
_TILL_AND_MEMBER: Final = frozenset({Role.ADMIN, Role.CHECKOUT, Role.MEMBER})
_READERS: Final = frozenset({Role.ADMIN, Role.ANALYST})
_HISTORY: Final = frozenset({Role.ADMIN, Role.ANALYST, Role.SUPPORT})
_EVERYONE: Final = frozenset(Role)

#: Operations (`Query.pool`) and single arguments of theirs; fields of objects that aren't for everyone who can reach
#: the object (`Pool.stock`); and types (`ApiKey`): whether `node` finds one. What a member sees of its own and of
#: others is a matter of rows, not of this table. docs/roles.md is written from it (`make roles`).
ACCESS: Final[dict[str, Rule]] = {
    **_otherwise(Otherwise.FORBIDDEN, {
        "Query.viewer": _EVERYONE,
        "Query.node": _EVERYONE,
        "Query.pool": _KEYS,
        "Query.pools": _KEYS,
        "Query.codes": _KEYS,
        "Query.code": _COUNTER,
        "Query.redemptions": _KEYS,
        "Query.campaign": _KEYS,
        "Query.offers": _MEMBER,
        "Query.campaigns": _KEYS,
        "Query.jobs": _READERS,
        "Query.checkCodes": _COUNTER,
        "Query.order": _COUNTER,
        "Query.hold": _COUNTER | _MEMBER,
        "Query.checkRefund": _COUNTER,
        "Query.checkMerge": _REPAIR,
        "Query.member": _EVERYONE,
        # By these it tells who is a member.
        "Query.member(externalId:)": _COUNTER,
        "Query.member(email:)": _COUNTER,
        "Query.members": _KEYS,
        "Query.pointsEntries": _KEYS,
        "Query.rewards": _EVERYONE,
        "Query.pointsLiability": _READERS,
        "Query.referralProgram": _EVERYONE,
        "Query.invites": _EVERYONE,
        "Query.referrals": _EVERYONE,
        "Query.heldReferrals": _HISTORY,
        "Query.events": _HISTORY,
        "Query.integrityReport": _READERS,
        "Query.reportPools": _READERS,
        "Query.reportCodes": _READERS,
        "Query.reportMembers": _READERS,
        "Query.reportPurchases": _READERS,
        "Query.reportPointsEntries": _READERS,
        "Query.reportRedemptions": _READERS,
        "Query.reportInvites": _READERS,
        "Query.reportReferrals": _READERS,
        "Query.latestGraphSnapshot": _READERS,
        "Query.graphSnapshots": _READERS,
        "Query.graphSnapshotJob": _READERS,
        "Query.portfolio": _READERS,
        "Query.adviceRun": _READERS,
        "Query.latestAdviceRun": _READERS,
        "Query.apiKeys": _ADMIN,
        "Query.webhooks": _ADMIN,
        "Query.webhookDeliveries": _ADMIN,
        "Mutation.createPool": _ADMIN,
        "Mutation.editPool": _ADMIN,
        "Mutation.activatePool": _ADMIN,
        "Mutation.pausePool": _ADMIN,
        "Mutation.archivePool": _ADMIN,
        "Mutation.discardPool": _ADMIN,
        "Mutation.generateCodes": _ADMIN,
        "Mutation.fillPool": _ADMIN,
        "Mutation.issueCodes": _ADMIN,
        "Mutation.importCodes": _ADMIN,
        "Mutation.claimCode": _TILL_AND_MEMBER,
        "Mutation.redeemCodes": _TILL,
        "Mutation.holdCheckout": _TILL,
        "Mutation.captureHold": _TILL,
        "Mutation.releaseHold": _TILL,
        "Mutation.extendHold": _TILL,
        "Mutation.reverseRedemption": _COUNTER,
        "Mutation.amendOrder": _COUNTER,
        "Mutation.cancelOrder": _COUNTER,
        "Mutation.revokeCode": _ADMIN,
        "Mutation.revokeCodes": _ADMIN,
        "Mutation.cancelJob": _ADMIN,
        "Mutation.checkIntegrity": _READERS,
        "Mutation.revealCode": _ADMIN,
        "Mutation.reissueCode": _REPAIR,
        "Mutation.enrollMember": _TILL,
        "Mutation.issueMemberToken": _TILL,
        "Mutation.eraseMember": _REPAIR,
        "Mutation.revokeMemberTokens": _REPAIR,
        "Query.checkErase": _REPAIR,
        "Mutation.createApiKey": _ADMIN,
        "Mutation.revokeApiKey": _ADMIN,
        "Mutation.createCampaign": _ADMIN,
        "Mutation.verifyMemberEmail": _COUNTER,
        "Mutation.editMember": _REPAIR,
        "Mutation.mergeMembers": _REPAIR,
        "Mutation.configureMerchant": _ADMIN,
        "Mutation.recordPurchase": _TILL,
        "Mutation.refundPurchase": _COUNTER,
        "Mutation.reversePurchase": _COUNTER,
        "Mutation.grantPoints": _REPAIR,
        "Mutation.createReward": _ADMIN,
        "Mutation.editReward": _ADMIN,
        "Mutation.retireReward": _ADMIN,
        "Mutation.redeemReward": _TILL_AND_MEMBER,
        "Mutation.reverseRewardRedemption": _COUNTER,
        "Mutation.configureReferralProgram": _ADMIN,
        "Mutation.inviteMembers": _TILL_AND_MEMBER,
        "Mutation.acceptInvite": _TILL,
        "Mutation.cancelInvite": _TILL_AND_MEMBER,
        "Mutation.releaseReferral": _ADMIN,
        "Mutation.declineReferral": _ADMIN,
        "Mutation.takeGraphSnapshot": _ADMIN,
        "Mutation.askAdvisor": _ADMIN,
        "Mutation.createWebhook": _ADMIN,
        "Mutation.disableWebhook": _ADMIN,
        "Mutation.enableWebhook": _ADMIN,
        "Mutation.rotateWebhookSecret": _ADMIN,
        "Mutation.redeliver": _ADMIN,
        "Mutation.redeliverDead": _ADMIN,
        "Subscription.walletChanged": _MEMBER,
        "Subscription.adviceRunChanged": _READERS,
        "Campaign.deliveries": _ADMIN,
        "Pool.stock": _KEYS,
        "Pool.codes": _KEYS,
        "Pool.batches": _KEYS,
        "CodeBatch.texts": _ADMIN,
    }),
    **_otherwise(Otherwise.NULL, {
        "Query.wallet": _MEMBER,
        "Query.inviteQuota": _MEMBER,
        "Viewer.member": _MEMBER,
        "Merchant.settings": _READERS,
        "ReferralProgram.safeguards": _READERS,
        "Event.reason": _REPAIR,
        "AdviceRun.rawAnswer": _ADMIN,
        "Pool.fallbackPool": _KEYS,
        "Pool.audience": _KEYS,
        "Pool.maximumTotalDiscount": _KEYS,
        "Pool.discountGiven": _KEYS,
        "Pool.suggestion": _READERS,
        "Invite.obstacle": _KEYS,
        "ApiKey": _ADMIN,
        "Event": _HISTORY | _MEMBER,
        "Redemption": _KEYS,
        "Order": _COUNTER,
        "Hold": _COUNTER | _MEMBER,
        "CodeBatch": _KEYS,
        "Campaign": _KEYS,
        "Campaign.job": _READERS,
        "BulkJob": _READERS,
        "HeldReferral": _HISTORY,
        "AdviceRun": _READERS,
        "OfferSuggestion": _READERS,
        "GraphSnapshot": _READERS,
        "GraphSnapshotJob": _READERS,
        "Webhook": _ADMIN,
        "WebhookDelivery": _ADMIN,
    }),
    **_otherwise(Otherwise.MASKED, {
        "Member.displayName": _EVERYONE - {Role.ANALYST},
    }),
}  # fmt: skip


def may(role: Role, coordinate: str) -> bool:
    """Whether a role may use this operation or field, or find this type by its id."""
    return role in ACCESS[coordinate].roles


def admitted(viewer: Viewer, coordinate: str) -> bool:
    """Whether the viewer may use this operation or field. Raises FORBIDDEN where the answer can't be null instead."""
    rule = ACCESS[coordinate]
    if viewer.role in rule.roles:
        return True
    if rule.otherwise is Otherwise.FORBIDDEN:
        raise forbidden(viewer, coordinate)
    return False


def forbidden(viewer: Viewer, coordinate: str) -> GraphQLError:
    """Return the error for an operation or a field that the viewer's role may not use."""
    return GraphQLError(f"{coordinate} is not for the role {viewer.role.value}.", extensions={"code": "FORBIDDEN"})


def is_another(viewer: Viewer, member_id: UUID) -> bool:
    """Whether a member reads what is another member's, on whichever way it came there: most of that is null."""
    return viewer.role is Role.MEMBER and viewer.member_id != member_id
