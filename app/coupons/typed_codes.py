"""Reading typed codes: our own form by its check character, codes from elsewhere exactly first, then as people misread.

What is read is the fingerprint of the code that is meant.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, TypedDict

from app.api.context import Viewer
from app.coupons import code_text
from app.storage.crypto import MerchantKeys
from app.storage.database import database
from app.storage.statements import statement

#: Whatever is longer is no code, whatever is ignored in it.
CODE_LENGTH_MAX: Final = 100


class _FoundRow(TypedDict):
    exact: list[bytes]
    folded: list[bytes]
    meant: list[bytes]
    lengths: list[str]


# Nothing of other merchants, and of this one only whether it has such a text. Of those that read alike two are enough:
# a spelling between them names neither.
FIND: Final = statement(
    _FoundRow,
    """
SELECT
    ARRAY(
        SELECT fingerprint FROM code WHERE merchant_id = :merchant_id AND fingerprint = ANY(:fingerprints::bytea[])
    ) AS exact,
    coalesce(alike.folded, '{}') AS folded, coalesce(alike.meant, '{}') AS meant,
    ARRAY(SELECT length::text FROM code_length WHERE merchant_id = :merchant_id) AS lengths
FROM (
    SELECT array_agg(asked.folded) AS folded, array_agg(c.fingerprint) AS meant
    FROM unnest(:folded::bytea[]) AS asked (folded) CROSS JOIN LATERAL (
        SELECT fingerprint FROM code WHERE merchant_id = :merchant_id AND folded = asked.folded LIMIT 2
    ) c
) alike
""",
)


def foreign_fingerprint(keys: MerchantKeys, text: str) -> bytes:
    """Return the fingerprint of a code from elsewhere, in its one spelling. No code of our own form has the same."""
    return keys.code_fingerprint(f"={text}")


async def read_typed(viewer: Viewer, typed: Sequence[str]) -> list[bytes | None]:
    """Return the fingerprint of the code that each text means; None for what can't be a code of this merchant.

    Codes of our own form cost nothing; where there are others, one statement reads all of them.
    """
    keys = viewer.tenant.keys
    own = [code_text.parse(text) for text in typed]
    others = {
        place: spelling
        for place, text in enumerate(typed)
        if own[place] is None and (spelling := code_text.foreign(text)) is not None
    }
    read = [None if text is None else keys.code_fingerprint(text) for text in own]
    if not others:
        return read
    exact = {place: foreign_fingerprint(keys, text) for place, text in others.items()}
    folded = {place: foreign_fingerprint(keys, code_text.folded(text)) for place, text in others.items()}
    found = await database().row(
        FIND, merchant_id=viewer.merchant_id, fingerprints=list(exact.values()), folded=list(folded.values())
    )
    if found is None:
        raise RuntimeError("a sum without groups returned no row")
    meant: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for reading, fingerprint in zip(found["folded"], found["meant"], strict=True):
        meant[reading].add(fingerprint)
    for place, text in others.items():
        alike = meant[folded[place]]
        if exact[place] in found["exact"] or len(alike) != 1:
            is_possible = exact[place] in found["exact"] or str(len(text)) in found["lengths"]
            read[place] = exact[place] if is_possible else None
        else:
            (read[place],) = alike
    return read
