"""The GraphQL documents of the replay's steps."""

from functools import cache
from typing import Final

VIEWER: Final = "query { viewer { role merchant { name currency } } }"
POOLS: Final = """
query ($after: String) {
  pools(first: 100, after: $after) { edges { node { id name status } } pageInfo { hasNextPage endCursor } }
}
"""
ENROL: Final = """
mutation ($input: EnrollMemberInput!) {
  answer: enrollMember(input: $input) {
    __typename
    ... on EnrollMemberSuccess { member { id externalId } }
    ... on MemberAlreadyExists { existing { id externalId } }
    ... on Refusal { message }
  }
}
"""
CREATE_POOL: Final = """
mutation ($input: CreatePoolInput!) {
  answer: createPool(input: $input) { __typename ... on Refusal { message } }
}
"""
GENERATE: Final = """
mutation ($input: GenerateCodesInput!) {
  answer: generateCodes(input: $input) {
    __typename ... on GenerateCodesSuccess { replayed } ... on Refusal { message }
  }
}
"""
ACTIVATE: Final = """
mutation ($input: PoolIdInput!) {
  answer: activatePool(input: $input) {
    __typename ... on PoolTransitionRejected { from } ... on Refusal { message }
  }
}
"""
PAUSE: Final = ACTIVATE.replace("activatePool", "pausePool")
SEND: Final = """
mutation ($input: CreateCampaignInput!) {
  answer: createCampaign(input: $input) {
    __typename
    ... on CreateCampaignSuccess { replayed campaign { recipientCount allocatedCount } }
    ... on Refusal { message }
  }
}
"""
WALLET: Final = """
query ($id: ID!, $after: String) {
  member(id: $id) {
    wallet { codes(first: 100, after: $after) { edges { node { pool { id } } } pageInfo { hasNextPage endCursor } } }
  }
}
"""
CLAIM: Final = """
mutation ($input: ClaimCodeInput!) {
  answer: claimCode(input: $input) {
    __typename ... on ClaimCodeSuccess { replayed code { text } } ... on Refusal { message }
  }
}
"""
REDEEM: Final = """
mutation ($input: RedeemCodesInput!) {
  answer: redeemCodes(input: $input) {
    __typename
    ... on RedeemCodesSuccess { replayed }
    ... on CodesRejected { rejections { reason } }
    ... on Refusal { message }
  }
}
"""
REWARDS: Final = """
query ($after: String) {
  rewards(first: 100, after: $after) { edges { node { id name active } } pageInfo { hasNextPage endCursor } }
}
"""
CREATE_REWARD: Final = """
mutation ($input: CreateRewardInput!) {
  answer: createReward(input: $input) { __typename ... on Refusal { message } }
}
"""
REDEEM_REWARD: Final = """
mutation ($input: RedeemRewardInput!) {
  answer: redeemReward(input: $input) {
    __typename ... on RedeemRewardSuccess { replayed } ... on Refusal { message }
  }
}
"""
REFUND: Final = """
mutation ($input: RefundPurchaseInput!) {
  answer: refundPurchase(input: $input) {
    __typename ... on RefundPurchaseSuccess { replayed } ... on Refusal { message }
  }
}
"""
POINTS: Final = "query ($id: ID!) { member(id: $id) { wallet { points shortfall } } }"
CONFIGURE: Final = """
mutation ($input: ConfigureReferralProgramInput!) {
  answer: configureReferralProgram(input: $input) { __typename ... on Refusal { message } }
}
"""
ISSUE: Final = """
mutation ($input: IssueMemberTokenInput!) {
  answer: issueMemberToken(input: $input) {
    __typename ... on IssueMemberTokenSuccess { token } ... on Refusal { message }
  }
}
"""
INVITE: Final = """
mutation ($input: InviteMembersInput!) {
  answer: inviteMembers(input: $input) {
    __typename ... on InviteMembersSuccess { skipped { email reason } } ... on Refusal { message }
  }
}
"""
PENDING: Final = """
query ($after: String) {
  invites(status: PENDING, first: 100, after: $after) {
    edges { node { token acceptedAt } } pageInfo { hasNextPage endCursor }
  }
}
"""
ACCEPT: Final = """
mutation ($input: AcceptInviteInput!) {
  answer: acceptInvite(input: $input) {
    __typename ... on AcceptInviteSuccess { member { id } } ... on Refusal { message }
  }
}
"""
REFERRED_BY: Final = "query ($id: ID!) { member(id: $id) { referredBy { referrer { id } } } }"


@cache
def record_purchases(count: int) -> str:
    """Return the document that records some purchases one after the other; the variables are p0, p1 and so on."""
    names = [f"p{number}" for number in range(count)]
    declared = ", ".join(f"${name}: RecordPurchaseInput!" for name in names)
    fields = " ".join(f"{name}: recordPurchase(input: ${name}) {{ ...Recorded }}" for name in names)
    recorded = "__typename ... on RecordPurchaseSuccess { replayed } ... on Refusal { message }"
    return f"mutation ({declared}) {{ {fields} }} fragment Recorded on RecordPurchaseResult {{ {recorded} }}"
