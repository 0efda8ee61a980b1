"""revealCode: a person with a reason reads a code, and that is on record."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.api.reasons import sealed
from app.coupons.rows import JOIN_CODE, WholeCodeRow
from app.coupons.types import Code
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement


@strawberry.input(description="A code to read.")
class RevealCodeInput:
    code_id: strawberry.ID = strawberry.field(description="The code.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The code can be read in this answer.")
class RevealCodeSuccess:
    code: Code = strawberry.field(description="The code, with its text.")


RevealCodeResult = Annotated[
    RevealCodeSuccess | InvalidInput | NotFound,
    strawberry.union("RevealCodeResult", description="The code with its text, or why not."),
]

# The statement that reads the ciphertext writes the event: nothing is revealed off the record.
REVEAL: Final = statement(
    WholeCodeRow,
    f"""
WITH asked AS (
    SELECT id FROM code WHERE merchant_id = :merchant_id AND id = :code_id
), recorded AS (
    {event("code.revealed", subject="id", source="asked", reason=":reason")} RETURNING subject_id
)
SELECT {columns(WholeCodeRow)} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id = (SELECT subject_id FROM recorded)
""",
)


@mutation(description="Read a code's text; who did it, and why, is an event. ADMIN only.")
async def reveal_code(
    info: Info, input: Annotated[RevealCodeInput, strawberry.argument(description="What to read, and why.")]
) -> RevealCodeResult:
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    code_id = node_id("code", "code", input.code_id)
    row = await database().row(
        REVEAL,
        merchant_id=viewer.merchant_id,
        code_id=code_id,
        event_id=event_id,
        actor=viewer.actor,
        reason=reason,
    )
    if row is None:
        raise not_found("code", input.code_id)
    return RevealCodeSuccess(code=Code.of(row, revealed=True))
