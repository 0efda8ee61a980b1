"""What makes a conversion worth a person's look: counts of what its referrer did, and nothing about who anybody is.

Flags are written down with the referral and hold nothing back by themselves; the program's review policy does.
"""

from typing import Final

#: Conversions of the referrer within 24 hours before this one.
VELOCITY_COUNT: Final = 5
#: Invites of the referrer to one domain, this one included, in 30 days; public providers don't count.
ONE_DOMAIN_COUNT: Final = 10
#: Referrals of the referrer that returns reversed.
REFUNDS_COUNT: Final = 2

#: An expression for the flags of the invite `i` that is being converted. Each count stops at its limit
#: and has an order, for which there is one index, so that it costs the same for any history.
FLAGS: Final = f"""
array_remove(ARRAY[
    CASE WHEN (SELECT count(*) FROM (
        SELECT FROM referral WHERE merchant_id = :merchant_id AND referrer_id = i.referrer_id
            AND converted_at > now() - interval '24 hours' ORDER BY converted_at DESC LIMIT {VELOCITY_COUNT}
    ) latest) = {VELOCITY_COUNT} THEN 'VELOCITY' END,
    CASE WHEN (SELECT count(*) FROM (
        SELECT FROM invite
        WHERE merchant_id = :merchant_id AND referrer_id = i.referrer_id AND domain_index = i.domain_index
            AND created_at > i.created_at - interval '30 days' ORDER BY created_at DESC LIMIT {ONE_DOMAIN_COUNT}
    ) alike) = {ONE_DOMAIN_COUNT} THEN 'ONE_DOMAIN' END,
    CASE WHEN EXISTS (
        SELECT FROM invite WHERE merchant_id = :merchant_id AND referrer_id = i.referrer_id
            AND mailbox_index = i.mailbox_index AND id <> i.id AND accepted_at IS NOT NULL
    ) THEN 'ONE_MAILBOX' END,
    CASE WHEN (SELECT count(*) FROM (
        SELECT FROM referral
        WHERE merchant_id = :merchant_id AND referrer_id = i.referrer_id AND reversed_at IS NOT NULL
        LIMIT {REFUNDS_COUNT}
    ) returned) = {REFUNDS_COUNT} THEN 'REFUNDS' END
]::text[], NULL)
"""
