"""Private names of libraries. Without these an upgrade could break what nobody knew that it depends on."""

import ast
import importlib
import pkgutil
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Annotated

from packaging.requirements import Requirement

import app
import workers

ROOT = Path(__file__).parents[2]
OURS = frozenset({"app", "workers", "migrations"})

#: Where a library's private name is used, or something of it is set that it doesn't offer to be set, and whose it is.
#: Python's own names have no ceiling; its documentation tells of this one.
USES = {
    ("app/storage/compat.py", "_connection"): "tortoise-orm",
    ("app/storage/compat.py", "_con"): "asyncpg",
    ("app/storage/compat.py", "_holder"): "asyncpg",
    ("app/storage/compat.py", "_closing"): "asyncpg",
    ("app/storage/compat.py", "_generation"): "asyncpg",
    ("app/storage/compat.py", "_in_use"): "asyncpg",
    ("app/storage/compat.py", "_listeners"): "asyncpg",
    ("app/storage/compat.py", "_log_listeners"): "asyncpg",
    ("app/storage/compat.py", "_loop"): "asyncpg",
    ("app/storage/compat.py", "_max_inactive_time"): "asyncpg",
    ("app/storage/compat.py", "_max_queries"): "asyncpg",
    ("app/storage/compat.py", "_pool"): "asyncpg",
    ("app/storage/compat.py", "_pool_release_ctr"): "asyncpg",
    ("app/storage/compat.py", "_proxy"): "asyncpg",
    ("app/storage/compat.py", "_queue"): "asyncpg",
    ("app/storage/compat.py", "_release"): "asyncpg",
    ("app/storage/compat.py", "_timeout"): "asyncpg",
    ("app/storage/compat.py", "_top_xact"): "asyncpg",
    ("app/storage/compat.py", "_is_cancelling"): "asyncpg",
    ("app/storage/compat.py", "_protocol"): "asyncpg",
    ("app/storage/compat.py", "_stmt_cache"): "asyncpg",
    ("app/storage/compat.py", "_query_loggers"): "asyncpg",
    ("app/storage/compat.py", "_drop_global_statement_cache"): "asyncpg",
    ("app/storage/compat.py", "_enable_global_fallback"): "tortoise-orm",
    ("app/storage/compat.py", "_finalized"): "tortoise-orm",
    ("app/storage/compat.py", "_pool_init_lock"): "tortoise-orm",
    ("app/telemetry/logs.py", "_srcfile"): "",
    ("app/web/graphql_documents.py", "MAX_COMPLEXITY_BUDGET"): "graphql-core",
    ("app/web/graphql_documents.py", "_schema"): "strawberry-graphql",
    ("app/web/http_protocol.py", "RequestResponseCycle"): "uvicorn",
    ("app/web/http_protocol.py", "_should_upgrade"): "uvicorn",
}
#: A router cancels other clients' statements, and nothing else keeps asyncpg from asking it to; a test notices.
OVERRIDES = ["app.storage.compat.Uncancelled._cancel_current_command"]
#: Public all the same: an argument that arq documents, of named tuples, and what Python says of classes, functions,
#: modules, exceptions, iterators, types and contexts.
PUBLIC = {"_queue_name", "_make", "_replace", "_asdict", "_fields", "__slots__", "__orig_bases__", "__members__"} | {
    name
    for kind in (
        type,
        FunctionType,
        BuiltinFunctionType,
        ModuleType,
        BaseException,
        AsyncIterator,
        Annotated[int, ""],
        AbstractAsyncContextManager,
    )
    for name in dir(kind)
    if name.startswith("__")
}


def _is_private(name: str) -> bool:
    return name.startswith("_") and name not in PUBLIC


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in OURS


def _is_pythons(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


class _Uses(ast.NodeVisitor):
    """The private names in a file that its own classes and functions don't have."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: set[str] = set()
        self._own: set[str] = set()
        self._imported: set[str] = set()
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef(body=body):
                    self._own.update(name for statement in body for name in _defined(statement))
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    self._own.add(name)
                case ast.arg(arg=name):
                    self._own.add(name)
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self._import(each.name, each.asname or each.name.partition(".")[0], each.name.split("."))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for each in node.names:
            self._import(module, each.asname or each.name, [*module.split("."), each.name])

    def _import(self, module: str, known_as: str, parts: list[str]) -> None:
        if not _is_ours(module):
            self.found.update(part for part in parts if _is_private(part))
        if not (_is_ours(module) or _is_pythons(module)):
            self._imported.add(known_as)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        match node:
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()) if name in self._imported:
                self.found.add(node.attr)
            case _ if _is_private(node.attr) and node.attr not in self._own:
                self.found.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        named = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                named.append(name)
        self.found.update(name for name in named if _is_private(name) and name not in self._own)
        self.generic_visit(node)


def _defined(statement: ast.stmt) -> Iterator[str]:
    """Yield what a statement of a class gives it."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets, value=value):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
            # __slots__
            yield from (
                each.value for each in ast.walk(value) if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


def _found(source: str) -> set[str]:
    return _Uses(ast.parse(source)).found


def test_private_names_of_libraries_stand_where_they_are_listed() -> None:
    files = [path for package in sorted(OURS) for path in sorted((ROOT / package).rglob("*.py"))]

    found = {(str(path.relative_to(ROOT)), name) for path in files for name in _found(path.read_text())}

    assert found == USES.keys()


def test_each_library_has_a_ceiling_and_names_the_file() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    required = {each.name: each for each in map(Requirement, tomllib.loads(project)["project"]["dependencies"])}

    for (file, _), library in USES.items():
        if library:
            assert [each.version for each in required[library].specifier if each.operator == "<"], library
            comment = project.partition(f'    "{library}>')[0].splitlines()[-1]
            assert comment.startswith("    # "), library
            assert file in comment, library


def test_no_other_class_overrides_a_private_method_of_a_library() -> None:
    modules = [
        importlib.import_module(info.name)
        for package in (app, workers)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.name.endswith("__main__")
    ]
    kinds = [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]

    assert [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in kinds
        for base in kind.__mro__
        if not (_is_ours(base.__module__) or _is_pythons(base.__module__))
        for name in vars(kind).keys() & vars(base).keys()
        if _is_private(name) and getattr(vars(kind)[name], "__module__", "") == kind.__module__
    ] == OVERRIDES


def test_what_is_private_is_noticed_however_it_is_used() -> None:
    uses = {
        "pool._holders": {"_holders"},
        "self._parent": {"_parent"},
        "class A:\n def f(self):\n  self._own = 1\n  return self._own": set(),
        "class A:\n __slots__ = ('_own',)\na._own": set(),
        "call(_fallback=True)": {"_fallback"},
        "def f(_loop): ...\nf(_loop=1)": set(),
        "getattr(client, '_lock')": {"_lock"},
        "from library._inner import name": {"_inner"},
        "from library import _name": {"_name"},
        "import library._inner": {"_inner"},
        "from app.storage import _inner": set(),
        "from library import rule\nrule.LIMIT = 1": {"LIMIT"},
        "import library\nlibrary.LIMIT = 1": {"LIMIT"},
        "thing.limit = 1": set(),
        "row.__library_definition__": {"__library_definition__"},
        "point._replace(x=1), error.__traceback__, kind.__name__": set(),
    }

    assert {source: _found(source) for source in uses} == uses
