"""revealCode: a person with a reason reads a code, and that is on record."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.api.reasons import sealed
from app.coupons.rows import JOIN_CODE, WHOLE_CODE
from app.coupons.types import Code
from app.storage.database import database


@strawberry.input(description="A code to read.")
class RevealCodeInput:
    """Which one and why."""

    code_id: strawberry.ID = strawberry.field(description="The code.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The code can be read in this answer.")
class RevealCodeSuccess:
    """The code with its text."""

    code: Code = strawberry.field(description="The code, with its text.")


RevealCodeResult = Annotated[
    RevealCodeSuccess | InvalidInput | NotFound,
    strawberry.union("RevealCodeResult", description="The code with its text, or why not."),
]

# The event is written by the statement that reads the ciphertext: nothing is revealed off the record.
REVEAL: Final = f"""
WITH recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, reason)
    SELECT $1, $3, 'code.revealed', id, $4, now(), $5 FROM code WHERE merchant_id = $1 AND id = $2
    RETURNING subject_id
)
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id = (SELECT subject_id FROM recorded)
"""


@mutation(description="Read a code's text; who did it, and why, is an event. ADMIN only.")
async def reveal_code(
    info: Info, input: Annotated[RevealCodeInput, strawberry.argument(description="What to read, and why.")]
) -> RevealCodeResult:
    """Record, then show."""
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    code_id = node_id("code", "code", input.code_id)
    row = await database().row(REVEAL, viewer.merchant_id, code_id, event_id, viewer.actor, reason)
    if row is None:
        raise not_found("code", input.code_id)
    return RevealCodeSuccess(code=Code.of(row, revealed=True))
