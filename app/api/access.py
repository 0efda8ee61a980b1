"""Who may call what: one table, looked up by every operation, and nothing is allowed that it doesn't list."""

from typing import Final
from uuid import UUID

from graphql import GraphQLError

from app.api.context import Role, Viewer

_ADMIN: Final = frozenset({Role.ADMIN})
_TILL: Final = frozenset({Role.ADMIN, Role.CHECKOUT})
_KEYS: Final = frozenset({Role.ADMIN, Role.CHECKOUT, Role.ANALYST})
_TILL_AND_MEMBER: Final = frozenset({Role.ADMIN, Role.CHECKOUT, Role.MEMBER})
_READERS: Final = frozenset({Role.ADMIN, Role.ANALYST})
_EVERYONE: Final = frozenset(Role)

#: Every operation, and the fields of objects that are not for everyone who can reach the object.
ACCESS: Final[dict[str, frozenset[Role]]] = {
    "Query.viewer": _EVERYONE,
    "Query.node": _EVERYONE,
    "Query.pool": _KEYS,
    "Query.pools": _KEYS,
    "Query.codes": _KEYS,
    "Query.redemptions": _KEYS,
    "Query.campaign": _KEYS,
    "Query.checkCodes": _TILL,
    "Query.member": _EVERYONE,
    "Query.members": _KEYS,
    "Query.wallet": _EVERYONE,
    "Query.pointsEntries": _KEYS,
    "Query.rewards": _EVERYONE,
    "Query.pointsLiability": _READERS,
    "Query.referralProgram": _EVERYONE,
    "Query.inviteQuota": _EVERYONE,
    "Query.invites": _EVERYONE,
    "Query.referrals": _EVERYONE,
    "Query.heldReferrals": _READERS,
    "Query.events": _READERS,
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
    "Mutation.createPool": _ADMIN,
    "Mutation.editPool": _ADMIN,
    "Mutation.activatePool": _ADMIN,
    "Mutation.pausePool": _ADMIN,
    "Mutation.archivePool": _ADMIN,
    "Mutation.generateCodes": _ADMIN,
    "Mutation.claimCode": _TILL_AND_MEMBER,
    "Mutation.redeemCodes": _TILL,
    "Mutation.reverseRedemption": _TILL,
    "Mutation.revokeCode": _ADMIN,
    "Mutation.revealCode": _ADMIN,
    "Mutation.enrollMember": _TILL,
    "Mutation.issueMemberToken": _TILL,
    "Mutation.revokeMemberTokens": _ADMIN,
    "Mutation.createApiKey": _ADMIN,
    "Mutation.revokeApiKey": _ADMIN,
    "Mutation.createCampaign": _ADMIN,
    "Mutation.verifyMemberEmail": _ADMIN,
    "Campaign.deliveries": _ADMIN,
    "Subscription.walletChanged": frozenset({Role.MEMBER}),
    "Mutation.configureMerchant": _ADMIN,
    "Mutation.recordPurchase": _TILL,
    "Mutation.reversePurchase": _TILL,
    "Mutation.grantPoints": _ADMIN,
    "Mutation.createReward": _ADMIN,
    "Mutation.editReward": _ADMIN,
    "Mutation.retireReward": _ADMIN,
    "Mutation.redeemReward": _TILL_AND_MEMBER,
    "Mutation.reverseRewardRedemption": _TILL,
    "Mutation.configureReferralProgram": _ADMIN,
    "Mutation.inviteMembers": _TILL_AND_MEMBER,
    "Mutation.acceptInvite": _TILL,
    "Mutation.cancelInvite": _TILL_AND_MEMBER,
    "Mutation.releaseReferral": _ADMIN,
    "Mutation.declineReferral": _ADMIN,
    "Mutation.takeGraphSnapshot": _ADMIN,
    "Mutation.askAdvisor": _ADMIN,
    "Subscription.adviceRunChanged": _READERS,
    "Query.webhooks": _ADMIN,
    "Query.webhookDeliveries": _ADMIN,
    "Mutation.createWebhook": _ADMIN,
    "Mutation.disableWebhook": _ADMIN,
    "Mutation.enableWebhook": _ADMIN,
    "Mutation.rotateWebhookSecret": _ADMIN,
    "Mutation.redeliver": _ADMIN,
    "Mutation.redeliverDead": _ADMIN,
    "Pool.stock": _KEYS,
    "Pool.codes": _KEYS,
}


def require(viewer: Viewer, coordinate: str) -> None:
    """Raise FORBIDDEN unless the viewer's role may use this operation or field."""
    if viewer.role not in ACCESS[coordinate]:
        raise GraphQLError(f"{coordinate} is not for the role {viewer.role.value}.", extensions={"code": "FORBIDDEN"})


def is_another(viewer: Viewer, member_id: UUID) -> bool:
    """Whether a member reads what is another member's, on whichever way it came there: most of that is null."""
    return viewer.role is Role.MEMBER and viewer.member_id != member_id
