"""Documents before they are executed: parsed, measured and validated once, and kept."""

import asyncio
import functools
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSyntaxError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import ASTValidationRule, ValuesOfCorrectTypeRule
from graphql.validation.rules import overlapping_fields_can_be_merged

from app.api.turns import TurnTaking
from app.config import Settings
from app.schema import schema
from app.web.document_access import Guarded
from app.web.document_costs import Cost, TooCostlyError, measure_document, refuse_long_text
from app.web.graphql_errors import coded, fault
from app.web.trusted_documents import sha256_of
from app.web.variables import Variables

#: graphql-core's schema, which is private in Strawberry. Strawberry's `execute` would parse and validate each time.
SCHEMA: Final = schema._schema

DOCUMENTS_KEPT_MAX: Final = 1000
#: Longer documents are judged each time.
DOCUMENT_KEPT_LENGTH_MAX: Final = 20_000
#: Of all documents together. A parsed one takes a hundred times its text, so a thousand could take a gigabyte.
DOCUMENTS_KEPT_LENGTH_MAX: Final = 1_000_000
#: A longer document may take a tenth of a second to judge: that is done beside the event loop.
JUDGED_AT_ONCE_LENGTH_MAX: Final = 1_000
#: Of a document, and of variables. An error of a document counts the lines before it, and one of a variable quotes the
#: whole value: fifty errors of a large one take a second.
ERRORS_MAX: Final = 10

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCHEMA_FIELDS: Final = frozenset({"__schema", "__type"})
_INTROSPECTION: Final = _SCHEMA_FIELDS | {"__typename"}

#: Comparing fields that might be merged takes time that grows with the square of their number. With graphql-core's
#: default, a document of a kilobyte takes longer there than in all other rules together. Our clients stay far below.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 12_000

#: What rules append to their errors: one quotes Python's errors, and one makes suggestions even if told not to.
_PYTHON_ERRORS: Final = re.compile(r", but encountered error .*", re.DOTALL)
_ASIDES: Final = re.compile(r"( Did you mean |, but encountered error ).*", re.DOTALL)

#: One thread, because each further one would take as large a share of the interpreter as the event loop has.
_judging: Final = ThreadPoolExecutor(1, "judging")

#: Wrong values have a code of their own: they come from a user's input, and other errors from the client's document.
_VALUE_RULES: Final = (ValuesOfCorrectTypeRule,)
_DOCUMENT_RULES: Final = tuple(rule for rule in specified_rules if rule not in _VALUE_RULES)


class MalformedError(Exception):
    """A request doesn't have the form of a GraphQL request; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A GraphQL request: a document or its hash, the operation, and the variables."""

    query: str
    operation_name: str | None
    variables: dict[str, Any]
    #: Of `extensions.persistedQuery`: the SHA-256 of the document, which may replace it.
    sha256: str | None = None

    @classmethod
    def of(cls, given: Any) -> "Asked":
        """Read a parsed JSON value. Raises MalformedError."""
        if not isinstance(given, dict):
            raise MalformedError("The request must be a JSON object.")
        for name, kind in (("variables", dict), ("operationName", str), ("extensions", dict)):
            if given.get(name) is not None and not isinstance(given[name], kind):
                raise MalformedError(f"`{name}` must be {'a string' if kind is str else 'an object'}.")
        sha256 = _hash_in(given.get("extensions") or {})
        query = given.get("query")
        if query is None and sha256 is not None:
            query = ""
        elif not isinstance(query, str) or not query:
            raise MalformedError("`query` must be a GraphQL document.")
        return cls(query, given.get("operationName"), given.get("variables") or {}, sha256)


def _hash_in(extensions: dict[str, Any]) -> str | None:
    """Return the hash by which a request names its document. Raises MalformedError when it isn't one."""
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return None
    sha256 = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise MalformedError("`extensions.persistedQuery` must be {version: 1, sha256Hash: 64 hexadecimal digits}.")
    return sha256


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of a judged document."""

    node: OperationDefinitionNode
    cost: Cost
    root_fields: frozenset[str]
    #: Of a mutation. Anything else may be answered in part, and nothing is lost with it.
    guarded: Guarded | None
    variables: Variables
    #: What its executions begin with.
    executor: TurnTaking

    @functools.cached_property
    def name(self) -> str | None:
        """Its name, or None."""
        return self.node.name.value if self.node.name else None

    @functools.cached_property
    def kind(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.node.operation

    @functools.cached_property
    def word(self) -> str:
        """`query`, `mutation` or `subscription`."""
        return str(self.kind.value)

    @functools.cached_property
    def field(self) -> str:
        """Its root field, as counters name it: a name of the schema, whatever a client sends."""
        asked = self.root_fields - _INTROSPECTION
        if not asked:
            return "introspection"
        return next(iter(asked)) if len(asked) == 1 else "several"

    @functools.cached_property
    def is_introspection_only(self) -> bool:
        """Whether it reads only the schema."""
        return self.root_fields <= _INTROSPECTION

    @functools.cached_property
    def reads_schema(self) -> bool:
        """Whether it reads the schema."""
        return not self.root_fields.isdisjoint(_SCHEMA_FIELDS)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was parsed, measured and validated: its operations, or its errors."""

    parsed: DocumentNode | None
    operations: dict[str | None, Operation]
    errors: list[GraphQLError]
    text: str

    def operation(self, name: str | None) -> Operation | None:
        """Return the operation of this name, or the only one."""
        if name is not None:
            return self.operations.get(name)
        return next(iter(self.operations.values())) if len(self.operations) == 1 else None


class Documents:
    """Judged documents, of which the least recently used are dropped first, and trusted ones."""

    def __init__(self, limits: Settings, trusted: Mapping[str, str] | None = None) -> None:
        self.limits = limits
        self._trusted = trusted or {}
        self._kept: LRUCache[str, Document] = LRUCache(
            DOCUMENTS_KEPT_LENGTH_MAX, getsizeof=lambda document: len(document.text)
        )
        #: The texts of documents that were sent with their hash, for clients that then send the hash alone.
        self._hashed: LRUCache[str, str] = LRUCache(DOCUMENTS_KEPT_MAX)

    def known(self, asked: Asked) -> Document | None:
        """Return the requested document if it is sent as it is and was judged before."""
        if asked.sha256 is not None or self.limits.trusted_documents_required:
            return None
        return self._kept.get(asked.query)

    async def judged(self, asked: Asked) -> Document:
        """Return the requested document, judged now or before."""
        text = asked.query
        if asked.sha256 is not None or self.limits.trusted_documents_required:
            named = self._named(asked)
            if isinstance(named, GraphQLError):
                return _useless([named], text)
            text = named
        kept = self._kept.get(text)
        return kept if kept is not None else await self._judge(text)

    def _named(self, asked: Asked) -> str | GraphQLError:
        """Return the text of a document that is named by its hash or must be trusted, or an error."""
        sha256 = asked.sha256
        if asked.query:
            sha256 = sha256_of(asked.query)
            if asked.sha256 not in {None, sha256}:
                return fault("BAD_USER_INPUT", "provided sha does not match query")
        known = self._trusted.get(sha256 or "")
        if known is not None:
            return known
        if not asked.query:
            text = self._hashed.get(sha256 or "")
            return text if text is not None else fault("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        if self.limits.trusted_documents_required:
            return fault("UNTRUSTED_DOCUMENT", "Only documents that the engine was told of are executed here.")
        if len(asked.query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._hashed[sha256 or ""] = asked.query
        return asked.query

    async def _judge(self, query: str) -> Document:
        if len(query) <= JUDGED_AT_ONCE_LENGTH_MAX:
            document = judge_document(query, self.limits)
        else:
            loop = asyncio.get_running_loop()
            document = await loop.run_in_executor(_judging, judge_document, query, self.limits)
        if len(query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._kept[query] = document
            if len(self._kept) > DOCUMENTS_KEPT_MAX:
                self._kept.popitem()
        return document


def judge_document(query: str, limits: Settings) -> Document:
    """Parse, measure and validate a document, once. Safe to call in another thread."""
    try:
        refuse_long_text(query, limits)
        parsed = parse(query, max_tokens=limits.tokens_max)
        costs = measure_document(parsed, SCHEMA, limits)
        errors = _invalid(parsed, _DOCUMENT_RULES, "GRAPHQL_VALIDATION_FAILED", limits)
        errors = errors or _invalid(parsed, _VALUE_RULES, "BAD_USER_INPUT", limits)
    except GraphQLSyntaxError as error:
        errors = coded([error], "GRAPHQL_PARSE_FAILED")
    except RecursionError:
        errors = [fault("GRAPHQL_PARSE_FAILED", "The document is nested too deeply.")]
    except TooCostlyError as error:
        errors = [fault("COST_LIMIT_EXCEEDED", str(error))]
    if errors:
        return _useless(errors, query)
    fragments = {d.name.value: d for d in parsed.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = {}
    for node in parsed.definitions:
        if isinstance(node, OperationDefinitionNode):
            name = node.name.value if node.name else None
            guarded = Guarded(node, fragments, SCHEMA) if node.operation is OperationType.MUTATION else None
            operations[name] = Operation(
                node,
                costs[name],
                _root_fields(node.selection_set, fragments),
                guarded,
                Variables(SCHEMA, node),
                TurnTaking.of(
                    SCHEMA, parsed, node, is_same_each_time="@" not in query, hide_suggestions=limits.production
                ),
            )
    return Document(parsed, operations, [], query)


def _useless(errors: list[GraphQLError], text: str) -> Document:
    """Return a document of errors. They hold on to no part of what was parsed, which would take 0.7 MB each."""
    for error in errors:
        error.nodes = error.__traceback__ = error.__context__ = None
    return Document(None, {}, errors, text)


def _invalid(
    parsed: DocumentNode, rules: Sequence[type[ASTValidationRule]], code: str, limits: Settings
) -> list[GraphQLError]:
    """Return the errors by these rules. In production without suggestions, which would spell out the schema."""
    errors = validate(SCHEMA, parsed, rules, ERRORS_MAX, hide_suggestions=limits.production)
    for error in errors:
        error.message = (_ASIDES if limits.production else _PYTHON_ERRORS).sub("", error.message)
    return coded(errors, code)


def _root_fields(selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> frozenset[str]:
    """Return the names of an operation's root fields. A fragment is walked once, however often it is spread."""
    fields: set[str] = set()
    walked: set[str] = set()
    waiting = [selections]
    while waiting:
        for selection in waiting.pop().selections:
            if isinstance(selection, FieldNode):
                fields.add(selection.name.value)
            elif isinstance(selection, InlineFragmentNode):
                waiting.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in walked:
                walked.add(selection.name.value)
                waiting.append(fragments[selection.name.value].selection_set)
    return frozenset(fields)
