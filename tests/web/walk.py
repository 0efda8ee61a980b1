"""Documents made from the schema, so that an operation added tomorrow is tested without anyone thinking of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

from app import ids
from app.api.access import ACCESS, Otherwise
from app.api.context import Role
from app.web.graphql_documents import SCHEMA

#: A value of each scalar that a resolver can take.
VALUES: dict[str, Any] = {
    "BigInt": 100,
    "Boolean": False,
    "Date": "2030-01-31",
    "DateTime": "2030-01-31T00:00:00Z",
    "Float": 10.0,
    "Int": 1,
    "String": "walked",
}
#: Values for inputs that need a special one.
NAMED_VALUES: dict[str, Any] = {"currency": "USD", "email": "walked@example.com", "emails": ["walked@example.com"],
                                "url": "https://walked.invalid/"}  # fmt: skip
#: Which kind of node an argument or input field of type ID names.
KINDS: dict[str, ids.Kind] = {
    "apiKeyId": "apikey",
    "codeId": "code",
    "deliveryId": "webhookdelivery",
    "fallbackPoolId": "pool",
    "holdId": "hold",
    "inviteId": "invite",
    "jobId": "job",
    "memberId": "member",
    "poolId": "pool",
    "purchaseId": "purchase",
    "redemptionId": "redemption",
    "referralId": "referral",
    "rewardId": "reward",
    "rewardIds": "reward",
    "suggestionId": "suggestion",
    "batchId": "batch",
    "campaignId": "campaign",
    "webhookId": "webhook",
    "keptId": "member",
    "mergedId": "member",
}
#: For `id` arguments, by the operation.
KINDS_BY_OPERATION: dict[str, ids.Kind] = {
    "adviceRun": "advicerun", "adviceRunChanged": "advicerun",
    "campaign": "campaign", "graphSnapshotJob": "graphjob", "hold": "hold", "member": "member",
    "node": "pool", "pool": "pool",
}  # fmt: skip


#: Of several arguments, or fields of an input, one is needed: this one is passed.
ONE_OF = {"member(id:)"}
ONE_OF_FIELDS = {
    *(f"{name}Input.memberId" for name in ("GrantPoints", "IssueMemberToken", "RecordPurchase")),
    "CreateCampaignInput.segment",
}


@dataclass(frozen=True)
class Operation:
    """A field of Query or Mutation."""

    root: str
    name: str
    field: GraphQLField

    @property
    def coordinate(self) -> str:
        """How access.py and error messages call it."""
        return f"{self.root}.{self.name}"

    def document(self, depth: int = 3, *, role: Role | None = None) -> str:
        """Return a document that asks it for everything that needs no arguments, down to a depth.

        Of an interface that is every type: a level less keeps it within the tokens that a document may have. For a role
        it leaves out the fields that are FORBIDDEN to it.
        """
        if isinstance(get_named_type(self.field.type), GraphQLInterfaceType):
            depth -= 1
        arguments = self.field.args
        # What has a default may be left out, also where it can't be null.
        declared = ", ".join(
            f"${name}: {argument.type if is_required_argument(argument) else str(argument.type).removesuffix('!')}"
            for name, argument in arguments.items()
        )
        passed = ", ".join(f"{name}: ${name}" for name in arguments)
        asked = f"{self.name}{f'({passed})' if passed else ''} {selection(self.field.type, depth, role)}"
        return f"{self.root.lower()} Walk{f'({declared})' if declared else ''} {{ answer: {asked} }}"

    def variables(self, known: dict[ids.Kind, str]) -> dict[str, Any]:
        """Return the smallest arguments: what is required, with `known` ids."""
        return {
            name: self.value(name, argument.type, known)
            for name, argument in self.field.args.items()
            if is_required_argument(argument) or f"{self.name}({name}:)" in ONE_OF
        }

    def kind_of(self, name: str) -> ids.Kind:
        """Return what an argument or input field of type ID names. Raises KeyError until KINDS says it."""
        return KINDS_BY_OPERATION[self.name] if name == "id" else KINDS[name]

    def value(self, name: str, kind: GraphQLInputType, known: dict[ids.Kind, str]) -> Any:
        """Return the smallest value of an input type."""
        if isinstance(kind, GraphQLNonNull):
            return self.value(name, kind.of_type, known)
        if name in NAMED_VALUES:
            return NAMED_VALUES[name]
        if isinstance(kind, GraphQLList):
            return [self.value(name, kind.of_type, known)]
        if isinstance(kind, GraphQLInputObjectType):
            return {
                field_name: self.value(field_name, field.type, known)
                for field_name, field in kind.fields.items()
                if is_required_input_field(field) or f"{kind.name}.{field_name}" in ONE_OF_FIELDS
            }
        if isinstance(kind, GraphQLEnumType):
            return next(iter(kind.values))
        return known[self.kind_of(name)] if kind.name == "ID" else VALUES[kind.name]

    def id_paths(self) -> Iterator[tuple[str, ...]]:
        """Yield the path of every place in the arguments, required or not, that takes an ID."""
        return (path for path, kind in self.places() if kind == "ID")

    def places(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the path of every place in the arguments, required or not, and the name of the type that it takes."""
        for name, argument in self.field.args.items():
            yield from _places((name,), argument.type)


def _places(path: tuple[str, ...], kind: GraphQLInputType) -> Iterator[tuple[tuple[str, ...], str]]:
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            if name not in path:
                yield from _places((*path, name), field.type)
    else:
        yield path, named.name


def operations(*roots: str) -> list[Operation]:
    """Return every operation of these root types (Query and Mutation unless told)."""
    found = []
    for root in roots or ("Query", "Mutation"):
        kind = SCHEMA.get_type(root)
        assert isinstance(kind, GraphQLObjectType)
        found += [Operation(root, name, field) for name, field in kind.fields.items()]
    return found


def selection(kind: GraphQLOutputType, depth: int, role: Role | None = None) -> str:
    """Return a selection of everything on a type that isn't FORBIDDEN, and on what it holds, down to a depth."""
    named = get_named_type(kind)
    if is_leaf_type(named):
        return ""
    if isinstance(named, GraphQLUnionType | GraphQLInterfaceType):
        kinds = SCHEMA.get_possible_types(named)
        plain = _plain_types(kinds)
        parts = [f"... on {each.name} {{ {' '.join(_fields(each, depth, plain, role))} }}" for each in kinds]
        return f"{{ __typename {' '.join(parts)} }}"
    assert isinstance(named, GraphQLObjectType)
    return f"{{ __typename {' '.join(_fields(named, depth, {}, role))} }}"


def _plain_types(kinds: Sequence[GraphQLObjectType]) -> dict[str, str]:
    """Return the type that a field's name stands for: others of that name need aliases, of which there may be few."""
    types: dict[str, str] = {}
    for kind in kinds:
        for name, field in kind.fields.items():
            types.setdefault(name, str(field.type))
    return types


def _fields(kind: GraphQLObjectType, depth: int, plain: dict[str, str], role: Role | None) -> Iterator[str]:
    for name, field in kind.fields.items():
        if any(is_required_argument(argument) for argument in field.args.values()):
            continue
        rule = ACCESS.get(f"{kind.name}.{name}")
        if role is not None and rule is not None and rule.otherwise is Otherwise.FORBIDDEN and role not in rule:
            continue
        asked = name if plain.get(name, str(field.type)) == str(field.type) else f"{kind.name}_{name}: {name}"
        if is_leaf_type(get_named_type(field.type)):
            yield asked
        elif depth > 1:
            yield f"{asked} {selection(field.type, depth - 1, role)}"


def placed(variables: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return a copy of the variables with a value at a path; the last list on the way holds only it."""
    name, *rest = path
    if not rest:
        inner: Any = value
    else:
        below = variables.get(name) or {}
        inner = placed(below[0] if isinstance(below, list) else below, tuple(rest), value)
    return variables | {name: [inner] if isinstance(variables.get(name), list) else inner}
