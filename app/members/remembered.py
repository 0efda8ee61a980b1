"""What is remembered of who was erased, as statements ask for it: HMACs of mailboxes, addresses and external ids.

They are made in SQL of what a row says, by the merchant's `:memory_pads` (MerchantKeys), since a verb that had to ask
for a mailbox first would pay a round trip.
"""

from typing import Final

_HMAC: Final = """
    sha256(substring(:memory_pads::bytea FROM 65) || sha256(substring(:memory_pads::bytea FROM 1 FOR 64) || {0}))
"""
#: The HMACs of the blind index {0} of a mailbox, of that of an address, and of the external id {0}, {1}.
OF_MAILBOX: Final = _HMAC.format("'MAILBOX'::bytea || {0}")
OF_ADDRESS: Final = _HMAC.format("'ADDRESS'::bytea || {0}")
OF_EXTERNAL_ID: Final = _HMAC.format("convert_to('EXTERNAL_ID' || {0} || '/' || {1}, 'UTF8')")
#: Whether what {0} says is young enough to count: what is too old may be there until the night.
IS_CURRENT: Final = """
    {0}.erased_at > now() - make_interval(days => (
        SELECT erasure_memory_days FROM merchant WHERE merchant_id = :merchant_id
    ))
"""
#: Whether somebody was erased whose mailbox has the blind index {0}, and of whom {1} is kept, a condition of a row `r`.
#: In the order of the index to read: to a planner that saw the table empty, reading all of it is as good.
REMEMBERS: Final = f"""
    EXISTS (
        SELECT FROM (
            SELECT * FROM erasure_memory
            WHERE merchant_id = :merchant_id AND hmac = ANY(ARRAY[{OF_MAILBOX}]) ORDER BY hmac LIMIT 1
        ) r WHERE {{1}} AND {IS_CURRENT.format("r")}
    )
"""
