"""The arguments of a field, known from its document but for the values of variables."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from graphql import FieldNode, GraphQLField, VariableNode, Visitor, visit
from graphql.execution.values import VariableValues, get_argument_values

#: Makes an argument, or a part of one, of the values of variables.
_Filling = Callable[[Mapping[str, Any]], Any]


class Arguments:
    """The arguments of a field. Its document and the schema say all of them but for the values of variables."""

    __slots__ = ("_fillings", "_variables")

    def __init__(self, shape: dict[str, Any], variables: tuple[str, ...]) -> None:
        """Take the arguments with the places of variables in them, and the names of these."""
        self._fillings = [(name, _filling(each)) for name, each in shape.items()]
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
        return {name: fill(given) for name, fill in self._fillings}


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


def _filling(shape: Any) -> _Filling:
    if isinstance(shape, _Variable):
        return itemgetter(shape.name)
    if isinstance(shape, dict):
        fixed = {name: each for name, each in shape.items() if not any(_variables_in(each))}
        varying = [(name, _filling(each)) for name, each in shape.items() if name not in fixed]
        return partial(_filled, fixed, varying)
    if isinstance(shape, list):
        fillings = [_filling(each) for each in shape]
        return lambda given: [fill(given) for fill in fillings]
    return lambda _given: shape


def _filled(fixed: dict[str, Any], varying: list[tuple[str, _Filling]], given: Mapping[str, Any]) -> dict[str, Any]:
    filled = fixed.copy()
    for name, fill in varying:
        filled[name] = fill(given)
    return filled


def _variables_in(shape: Any) -> Iterator[str]:
    if isinstance(shape, _Variable):
        yield shape.name
    elif isinstance(shape, dict | list):
        for each in shape.values() if isinstance(shape, dict) else shape:
            yield from _variables_in(each)
