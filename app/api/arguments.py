"""The arguments of a field, known from its document but for the values of variables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from graphql import FieldNode, GraphQLField, VariableNode, Visitor, visit
from graphql.execution.values import VariableValues, get_argument_values


class Arguments:
    """The arguments of a field. Its document and the schema say all of them but for the values of variables."""

    __slots__ = ("_shape", "_variables")

    def __init__(self, shape: dict[str, Any], variables: tuple[str, ...]) -> None:
        """Take the arguments with the places of variables in them, and the names of these."""
        self._shape = shape
        self._variables = variables

    @classmethod
    def of(cls, definition: GraphQLField, node: FieldNode, declared: Iterable[str]) -> "Arguments | None":
        """Return the arguments of a field, None where graphql-core must be asked each time."""
        if not definition.args and not node.arguments:
            return cls({}, ())
        places = {name: _Variable(name) for name in declared}
        try:
            # What graphql-core makes of variables that hold their own places says where their values go.
            shape = get_argument_values(definition, node, VariableValues({}, places))
        except Exception:  # noqa: BLE001  (it comes again, with values)
            return None
        used = _Used()
        for argument in node.arguments or ():
            visit(argument.value, used)
        found = set(_variables_in(shape))
        return cls(shape, tuple(found)) if found == used.names else None

    def read(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments with these values, None if one is missing or null: that may leave out its argument."""
        for name in self._variables:
            if given.get(name) is None:
                return None
        return {name: _filled(each, given) for name, each in self._shape.items()}


class _Variable(NamedTuple):
    """The place of a variable's value in an argument."""

    name: str


class _Used(Visitor):
    """Notes the variables of a value."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_variable(self, node: VariableNode, *_where: Any) -> None:
        self.names.add(node.name.value)


def _filled(shape: Any, given: Mapping[str, Any]) -> Any:
    kind = shape.__class__
    if kind is _Variable:
        return given[shape.name]
    if kind is dict:
        return {name: _filled(each, given) for name, each in shape.items()}
    if kind is list:
        return [_filled(each, given) for each in shape]
    return shape


def _variables_in(shape: Any) -> Iterator[str]:
    if isinstance(shape, _Variable):
        yield shape.name
    elif isinstance(shape, dict | list):
        for each in shape.values() if isinstance(shape, dict) else shape:
            yield from _variables_in(each)
