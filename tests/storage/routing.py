"""Which merchants a statement names, as a router before several PostgreSQL servers finds them."""

from importlib import import_module
from typing import Any, Final

from pglast import ast, enums, parse_sql
from pglast.visitors import Skip, Visitor
from tortoise.models import Model

from app.config import MODELS

#: The tables of the engine: those of models, and those that have none.
TABLES: Final = {"address", "erasure_memory", "fence", "first_order", "rewarded_mailbox"} | {
    model.Meta.table  # type: ignore[attr-defined]
    for module in MODELS
    for model in vars(import_module(module)).values()
    if isinstance(model, type) and issubclass(model, Model) and model is not Model
}


#: What a router takes for several merchants.
SEVERAL: Final = "several"


class _Merchants(Visitor):
    """Collects what `merchant_id` is compared with, where PgDog 0.1.54 looks (its `search_stmt`).

    It looks into every query within a statement, but not behind OR and NOT, nor into what is compared otherwise than
    by `=`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_BoolExpr(self, _ancestors: Any, node: Any) -> Any:  # noqa: N802  (the node's own name)
        return None if node.boolop == enums.BoolExprType.AND_EXPR else Skip

    def visit_A_Expr(self, _ancestors: Any, node: Any) -> Any:  # noqa: N802  (the node's own name)
        kinds = enums.A_Expr_Kind
        if node.kind not in {kinds.AEXPR_OP, kinds.AEXPR_IN, kinds.AEXPR_OP_ANY, kinds.AEXPR_NOT_DISTINCT}:
            return Skip
        if node.name[-1].sval != "=":
            return Skip
        if node.kind in {kinds.AEXPR_IN, kinds.AEXPR_OP_ANY} and _is_merchant(node.lexpr):
            self.found.add(SEVERAL)
            return Skip
        for column, value in ((node.lexpr, node.rexpr), (node.rexpr, node.lexpr)):
            if _is_merchant(column) and (name := _value(value)) is not None:
                self.found.add(name)
        return None


def merchants_of(sql: str) -> set[str] | None:
    """Return the parameters that a statement names as its merchant, or None for one that touches no table.

    A router finds `merchant_id = $n` in any WHERE, and the merchant's place in the VALUES, of one row, or in the target
    list of a top-level INSERT. It doesn't find it in an INSERT within WITH.
    """
    (raw,) = parse_sql(sql)
    statement: Any = raw.stmt
    if isinstance(statement, (ast.TransactionStmt, ast.VariableSetStmt, ast.VariableShowStmt)):
        return None
    visitor = _Merchants()
    visitor(statement)
    if isinstance(statement, ast.InsertStmt):
        visitor.found |= _inserted(statement)
    if not visitor.found and isinstance(statement, ast.SelectStmt) and not statement.fromClause:
        return None
    return visitor.found


def is_one(merchants: set[str] | None) -> bool:
    """Whether a router sends a statement that names these to one server."""
    return merchants is not None and len(merchants) == 1 and SEVERAL not in merchants


class _Tables(Visitor):
    """Collects the names of the tables that a statement reads or writes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_RangeVar(self, _ancestors: Any, node: Any) -> None:  # noqa: N802  (the node's own name)
        if node.schemaname is None:
            self.found.add(node.relname)


def tables_of(sql: str) -> set[str]:
    """Return which of the engine's tables a statement reads or writes."""
    (raw,) = parse_sql(sql)
    statement: Any = raw.stmt
    visitor = _Tables()
    visitor(statement)
    return visitor.found & TABLES


def _inserted(statement: Any) -> set[str]:
    names = [column.name for column in statement.cols or ()]
    if "merchant_id" not in names:
        return set()
    place = names.index("merchant_id")
    query = statement.selectStmt
    if len(query.valuesLists or ()) > 1:
        return {SEVERAL}
    values = [row[place] for row in query.valuesLists or ()] or [query.targetList[place].val]
    return {name for value in values if (name := _value(value)) is not None}


def _is_merchant(node: Any) -> bool:
    return isinstance(node, ast.ColumnRef) and (node.fields or ())[-1:] == (ast.String("merchant_id"),)


def _value(node: Any) -> str | None:
    match node:
        case ast.TypeCast():
            return _value(node.arg)
        case ast.ParamRef():
            return f"${node.number}"
        case _:
            return None
