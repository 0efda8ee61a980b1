"""What a document may cost, measured before it is executed: each selection once, however often it is spread."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_input_type,
    is_list_type,
    type_from_ast,
)

from app.api.connections import FIRST_DEFAULT, FIRST_MAX
from app.config import Settings

#: Lists that may hold thousands. Their verbs refuse longer ones, together with whatever else is wrong. But beyond
#: LONG_LIST_MAX they are refused unread, because inputs are read before anybody asks whether the caller may send them.
LONG_LISTS: Final = frozenset({"CreateCampaignInput.recipients", "ImportCodesInput.codes", "InviteMembersInput.emails"})
LONG_LIST_MAX: Final = 10_000
#: Lists and objects in all variables together: each item of a long list may be an object.
BRACKETS_MAX: Final = 2 * LONG_LIST_MAX
#: Characters and lines for each token that a document may have. Each error counts the lines before it, so errors in
#: half a megabyte took half a minute (measured). Long strings belong in variables.
CHARACTERS_PER_TOKEN: Final = 50
LINES_PER_TOKEN: Final = 2
#: Of an alias: each row of the answer spells it.
ALIAS_LENGTH_MAX: Final = 200
#: How much a list without pages is assumed to hold.
LIST_SIZE: Final = 10
#: How much lists of the schema itself hold on average; 1 for those that aren't named. One type in two wraps another.
_INTROSPECTION_SIZES: Final = {"fields": 2}
_WRAPPED_ONE_IN: Final = 2
_BRACKETS: Final = frozenset({list, dict})
_META_FIELDS: Final = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}

Variables = Mapping[str, Any]


class PageSize(NamedTuple):
    """How many items a list's page holds."""

    unless_told: int
    most: int

    def of(self, asked: object) -> int:
        """Return how many items a page may hold for this `first`. Lists refuse values that they don't take."""
        # Clients may spell an Int as 100.0.
        return int(min(max(asked, 1), self.most)) if isinstance(asked, int | float) else self.unless_told


class TooCostlyError(Exception):
    """A request exceeds a limit; the message says which."""


class Size(NamedTuple):
    """How much an answer may hold: items of lists, and the fields of all items."""

    nodes: int
    fields: int


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """How much a selection may answer with: a fixed part, and pages whose size is in a variable."""

    nodes: int = 0
    fields: int = 0
    #: Of a connection's selection: the fields that come once, and not for each item of the page.
    fields_once: int = 0
    #: How often, the variable, the sizes it may have, and what each item holds.
    pages: "tuple[tuple[int, str, PageSize, Answered], ...]" = ()

    @property
    def always(self) -> Size:
        """The fixed part."""
        return Size(self.nodes, self.fields + self.fields_once)

    def size(self, variables: Variables) -> Size:
        """Return how much it is with these variables."""
        nodes, fields = self.always
        for times, variable, size, inner in self.pages:
            more = inner.page(size.of(variables.get(variable))).size(variables)
            nodes += times * more.nodes
            fields += times * more.fields
        return Size(nodes, fields)

    def page(self, size: int) -> "Answered":
        """Return a page of so many items, when this is the selection of a connection."""
        pages = tuple((size * times, *page) for times, *page in self.pages)
        return Answered(size * (1 + self.nodes), self.fields_once + size * self.fields, 0, pages)  # type: ignore[arg-type]

    def plus(self, *, nodes: int = 0, fields: int = 0) -> "Answered":
        return Answered(self.nodes + nodes, self.fields + fields, self.fields_once, self.pages)

    @classmethod
    def together(cls, parts: Sequence["Answered"]) -> "Answered":
        return cls(
            sum(part.nodes for part in parts),
            sum(part.fields for part in parts),
            sum(part.fields_once for part in parts),
            tuple(page for part in parts for page in part.pages),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """What a selection or an operation costs with its fragments spread out."""

    depth: int = 0
    aliases: int = 0
    fields: int = 0
    answered: Answered = Answered()


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What an operation costs, apart from its variables."""

    measure: Measure
    #: The variables that may hold lists: name, type, and whether their lists may be long.
    lists: tuple[tuple[str, GraphQLInputType, bool], ...]
    #: The defaults of variables that hold page sizes.
    page_sizes: dict[str, int | None]

    def size(self, variables: Variables) -> Size:
        """Return how much the operation may answer with."""
        answered = self.measure.answered
        return answered.size({**self.page_sizes, **variables}) if answered.pages else answered.always


def refuse_long_text(query: str, limits: Settings) -> None:
    """Raise TooCostlyError if a document's text is too long for its limit of tokens. It isn't parsed yet."""
    characters_max = limits.tokens_max * CHARACTERS_PER_TOKEN
    if len(query) > characters_max:
        raise TooCostlyError(f"A document has at most {characters_max} characters.")
    lines_max = limits.tokens_max * LINES_PER_TOKEN
    if query.count("\n") + query.count("\r") - query.count("\r\n") >= lines_max:
        raise TooCostlyError(f"A document has at most {lines_max} lines.")


def measure_document(document: DocumentNode, schema: GraphQLSchema, limits: Settings) -> dict[str | None, Cost]:
    """Return what each operation costs. Raises TooCostlyError for everything that doesn't depend on variables.

    The document needn't be valid: fields that aren't in the schema cost nothing, and cycles end.
    """
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    if len(operations) > limits.operations_max:
        raise TooCostlyError(f"A document holds at most {limits.operations_max} operations.")
    measuring = _Measuring(document, schema, limits)
    return {each.name.value if each.name else None: measuring.operation(each) for each in operations}


def refuse_many_brackets(body: bytes) -> None:
    """Raise TooCostlyError for JSON with more brackets than variables may have lists and objects. It isn't parsed yet.

    Parsing a megabyte of lists alone takes 50 ms. Brackets in texts count too.
    """
    if len(body) > BRACKETS_MAX and body.count(b"[") + body.count(b"{") > BRACKETS_MAX:
        raise TooCostlyError(f"A request holds at most {BRACKETS_MAX} lists and objects.")


def count_values(variables: Variables) -> int:
    """Return how many values the variables hold, at any depth. Raises TooCostlyError beyond BRACKETS_MAX."""
    values = brackets = 0
    waiting: list[Any] = [variables]
    while waiting:
        value = waiting.pop()
        values += len(value)
        brackets += 1
        if brackets > BRACKETS_MAX:
            raise TooCostlyError(f"The variables hold more than {BRACKETS_MAX} lists and objects.")
        waiting += [item for item in (value.values() if type(value) is dict else value) if type(item) in _BRACKETS]
    return values


def refuse_long_lists(cost: Cost, variables: Variables, items_max: int) -> None:
    """Raise TooCostlyError if a list or an object in the variables is too long. LONG_LISTS may be longer."""
    for variable, expected, may_be_long in cost.lists:
        waiting: list[tuple[Any, Any, bool]] = [(variables.get(variable), expected, may_be_long)]
        while waiting:
            value, kind, is_long = waiting.pop()
            if isinstance(value, list):
                most = max(LONG_LIST_MAX, items_max) if is_long else items_max
                if len(value) > most:
                    raise TooCostlyError(f"`${variable}` holds a list of {len(value)}; at most {most} are taken.")
                waiting += ((item, kind, is_long) for item in value if isinstance(item, list | dict))
            elif isinstance(value, dict):
                if len(value) > items_max:
                    raise TooCostlyError(f"`${variable}` holds {len(value)} fields; at most {items_max} are taken.")
                waiting += _lists_in(value, kind)


def _lists_in(value: dict[str, Any], kind: GraphQLInputType) -> Iterator[tuple[Any, GraphQLInputType, bool]]:
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        for name, inner in value.items():
            if isinstance(inner, list | dict) and name in named.fields:
                yield inner, named.fields[name].type, f"{named.name}.{name}" in LONG_LISTS


class _Measuring:
    """One pass over a document."""

    def __init__(self, document: DocumentNode, schema: GraphQLSchema, limits: Settings) -> None:
        self._schema = schema
        self._limits = limits
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        #: By the identity of the selection set. One that is being measured counts nothing, so that cycles end.
        self._measured: dict[int, Measure] = {}
        self._long_variables: set[str] = set()
        self._introspection_sizes = {"types": len(schema.type_map)} | _INTROSPECTION_SIZES

    def operation(self, operation: OperationDefinitionNode) -> Cost:
        root = self._schema.get_root_type(operation.operation)
        found = self._selection(operation.selection_set, root)
        # Each root field counts as a node, so that nothing is free.
        roots = sum(1 for _ in self._level(operation.selection_set, root))
        answered = found.answered.plus(nodes=roots)
        lists: list[tuple[str, GraphQLInputType, bool]] = []
        page_sizes: dict[str, int | None] = {}
        for definition in operation.variable_definitions or ():
            name = definition.variable.name.value
            kind = type_from_ast(self._schema, definition.type)
            if definition.default_value is not None:
                self._refuse_long_literal(definition.default_value, None)
                page_sizes[name] = _literal(definition.default_value)
            if kind is not None and is_input_type(kind) and self._may_hold_lists(kind):
                lists.append((name, kind, name in self._long_variables))
        return Cost(Measure(found.depth, found.aliases, found.fields, answered), tuple(lists), page_sizes)

    def _may_hold_lists(self, kind: GraphQLInputType) -> bool:
        return is_list_type(get_nullable_type(kind)) or isinstance(get_named_type(kind), GraphQLInputObjectType)

    def _selection(self, selections: SelectionSetNode, parent: GraphQLNamedType | None) -> Measure:
        """Measure a selection set with its fragments. Raises TooCostlyError as soon as a limit is exceeded."""
        known = self._measured.get(id(selections))
        if known is not None:
            return known
        self._measured[id(selections)] = Measure()
        depth = aliases = fields = 0
        within: list[Answered] = []
        for node, owner in self._level(selections, parent):
            inner = self._field(node, owner)
            depth = max(depth, inner.depth)
            aliases += inner.aliases
            fields += inner.fields
            within.append(inner.answered)
            self._refuse_beyond_limits(depth, aliases, fields)
        found = Measure(depth, aliases, fields, Answered.together(within))
        self._measured[id(selections)] = found
        return found

    def _refuse_beyond_limits(self, depth: int, aliases: int, fields: int) -> None:
        if depth > self._limits.depth_max:
            raise TooCostlyError(f"Fields are nested at most {self._limits.depth_max} levels deep.")
        if aliases > self._limits.aliases_max:
            raise TooCostlyError(f"An operation has at most {self._limits.aliases_max} aliases.")
        if fields > self._limits.tokens_max:
            raise TooCostlyError(f"An operation has at most {self._limits.tokens_max} fields.")

    def _level(
        self, selections: SelectionSetNode, parent: GraphQLNamedType | None
    ) -> Iterator[tuple[FieldNode, GraphQLNamedType | None]]:
        """Yield the fields of a selection set and of its fragments, each fragment once, with the types they are on."""
        spread: set[str] = set()
        waiting = [(selections, parent)]
        while waiting:
            selected, owner = waiting.pop()
            for each in selected.selections:
                if isinstance(each, FieldNode):
                    yield each, owner
                elif isinstance(each, InlineFragmentNode):
                    waiting.append((each.selection_set, self._narrowed(each, owner)))
                elif isinstance(each, FragmentSpreadNode) and each.name.value not in spread:
                    spread.add(each.name.value)
                    fragment = self._fragments.get(each.name.value)
                    if fragment is not None:
                        waiting.append((fragment.selection_set, self._narrowed(fragment, owner)))

    def _narrowed(
        self, fragment: InlineFragmentNode | FragmentDefinitionNode, owner: GraphQLNamedType | None
    ) -> GraphQLNamedType | None:
        if fragment.type_condition is None:
            return owner
        return self._schema.get_type(fragment.type_condition.name.value)

    def _field(self, node: FieldNode, owner: GraphQLNamedType | None) -> Measure:
        name = node.name.value
        field = _META_FIELDS.get(name)
        if field is None and isinstance(owner, GraphQLObjectType | GraphQLInterfaceType):
            field = owner.fields.get(name)
        for argument in node.arguments or ():
            definition = field.args.get(argument.name.value) if field else None
            self._refuse_long_literal(argument.value, definition.type if definition else None)
        aliases = 1 if node.alias else 0
        if node.alias and len(node.alias.value) > ALIAS_LENGTH_MAX:
            raise TooCostlyError(f"An alias has at most {ALIAS_LENGTH_MAX} characters.")
        kind = get_named_type(field.type) if field else None
        inner = Measure() if node.selection_set is None else self._selection(node.selection_set, kind)
        answered = self._answered(node, owner, field, inner.answered)
        return Measure(inner.depth + 1, inner.aliases + aliases, inner.fields + 1, answered)

    def _answered(
        self, node: FieldNode, owner: GraphQLNamedType | None, field: GraphQLField | None, inner: Answered
    ) -> Answered:
        """Return how much a field answers with: itself, and `inner` for each of its items."""
        if field is not None and "first" in field.args:
            return self._page(node, field, inner).plus(fields=1)
        fields = inner.fields + inner.fields_once
        if owner is not None and owner.name == "__Type" and node.name.value == "ofType":
            fields //= _WRAPPED_ONE_IN
        if owner is not None and owner.name.endswith("Connection"):
            if node.name.value == "edges":
                return Answered(inner.nodes, fields, 1, inner.pages)
            return Answered(inner.nodes, 0, 1 + fields, inner.pages)
        if owner is None or field is None or not is_list_type(get_nullable_type(field.type)):
            return Answered(inner.nodes, 1 + fields, 0, inner.pages)
        size = LIST_SIZE
        if owner.name.startswith("__"):
            size = self._introspection_sizes.get(node.name.value, 1)
        if not is_composite_type(get_named_type(field.type)):
            return Answered(0, 1 + size)
        return Answered(inner.nodes, fields, 0, inner.pages).page(size).plus(fields=1)

    def _page(self, node: FieldNode, field: GraphQLField, inner: Answered) -> Answered:
        asked = next((each.value for each in node.arguments or () if each.name.value == "first"), None)
        is_report = get_named_type(field.type).name.startswith("Report")
        size = PageSize(*[self._limits.report_rows_max] * 2) if is_report else PageSize(FIRST_DEFAULT, FIRST_MAX)
        if isinstance(asked, VariableNode):
            return Answered(pages=((1, asked.name.value, size, inner),))
        return inner.page(size.of(_literal(asked)))

    def _refuse_long_literal(self, value: ValueNode, kind: GraphQLInputType | None) -> None:
        """Raise TooCostlyError for a long list in a literal. Notes variables that hold one of LONG_LISTS."""
        waiting: list[tuple[ValueNode, GraphQLInputType | None]] = [(value, kind)]
        while waiting:
            value, kind = waiting.pop()
            if isinstance(value, ListValueNode):
                if len(value.values) > self._limits.list_items_max:
                    raise TooCostlyError(f"A list in an argument holds at most {self._limits.list_items_max} items.")
                waiting += ((item, kind) for item in value.values if isinstance(item, ListValueNode | ObjectValueNode))
            elif isinstance(value, ObjectValueNode):
                named = get_named_type(kind) if kind else None
                fields = named.fields if isinstance(named, GraphQLInputObjectType) else {}
                for each in value.fields:
                    name = each.name.value
                    if isinstance(each.value, VariableNode):
                        if named and f"{named.name}.{name}" in LONG_LISTS:
                            self._long_variables.add(each.value.name.value)
                    else:
                        waiting.append((each.value, fields[name].type if name in fields else None))


def _literal(asked: ValueNode | None) -> int | None:
    return int(asked.value[:10]) if isinstance(asked, IntValueNode) else None
