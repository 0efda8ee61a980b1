"""What models and rules propose, before anybody has checked it."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROPOSALS_MAX: Final = 10
ProposedKind = Literal["PERCENT", "AMOUNT", "GIFT"]
_Figure = Annotated[float | None, Field(allow_inf_nan=False)]


class Unanswered(Exception):  # noqa: N818  (an endpoint without an answer is expected)
    """There are no proposals; the message says why, for people. Of what the endpoint said it has the reason at most."""


class Proposal(BaseModel):
    """One offer; amounts in minor units. Its figures may be anything that is a number: `checks` caps them."""

    model_config = ConfigDict(strict=True, frozen=True)

    title: str = Field(max_length=2_000)
    rationale: str = Field(max_length=10_000)
    segment: str = Field(max_length=100)
    pools: list[Annotated[str, Field(max_length=100)]] = Field(default_factory=list, max_length=50)
    kind: ProposedKind
    percent_off: _Figure = None
    amount_off: _Figure = None
    gift_sku: Annotated[str, Field(max_length=200)] | None = None
    minimum_spend: _Figure = None
    maximum_discount: _Figure = None
    claims_per_member: Annotated[float, Field(allow_inf_nan=False)] = 1
    audience: _Figure = None
    redemption_rate: _Figure = None


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    suggestions: list[Proposal] = Field(min_length=1, max_length=PROPOSALS_MAX)


def read_answer(answer: object) -> tuple[list[Proposal], list[str]]:
    """Return the proposals of an answer that are as the schema wants them, and what is wrong with the others."""
    try:
        return _Answer.model_validate(answer).suggestions, []
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['msg']}" for each in found]
    listed = answer.get("suggestions") if isinstance(answer, dict) else None
    fitting = []
    for each in listed[:PROPOSALS_MAX] if isinstance(listed, list) else ():
        try:
            fitting.append(Proposal.model_validate(each))
        except ValidationError:
            continue
    return fitting, problems
