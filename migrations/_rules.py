"""What a migration may do while the version before serves: rules of squawk's, and those that squawk can't know."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pglast import ast, enums, parse_sql
from pglast.parser import ParseError
from tortoise.context import TortoiseContext
from tortoise.migrations.executor import MigrationExecutor
from tortoise.migrations.migration import Migration
from tortoise.migrations.schema_editor import AsyncpgSchemaEditor
from tortoise.migrations.schema_generator.state import State
from tortoise.migrations.schema_generator.state_apps import StateApps

from app.config import TORTOISE
from app.operate.preflight import POSTGRES_VERSION_MIN

LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"
#: Rules of squawk's that aren't ours. The first three are replaced by those below, which know what the version before
#: reads; the others are about taste, or about statements that have all the time they need.
NOT_OURS: Final = (
    "ban-drop-column", "ban-drop-table", "require-lock-timeout", "ban-drop-constraint", "ban-drop-not-null",
    "prefer-bigint-over-int", "prefer-bigint-over-smallint", "prefer-robust-stmts", "prefer-text-field",
    "require-statement-timeout",
)  # fmt: skip
#: What locks everybody out, or can't be judged.
_REFUSED: Final = {
    ast.DoStmt: "a DO block can't be judged: write its statements plainly.",
    ast.LockStmt: f"it locks out who serves: leave locks to the statements, after {LOCK_TIMEOUT}.",
    ast.TruncateStmt: "it locks out who serves: delete in batches, by a job.",
    ast.UpdateStmt: "it locks all these rows until the end: fill them in batches, by a job.",
    ast.DeleteStmt: "it locks all these rows until the end: delete in batches, by a job.",
    ast.MergeStmt: "it locks all these rows until the end: fill them in batches, by a job.",
}


@dataclass(frozen=True)
class Rendered:
    """A migration as the SQL of each of its operations."""

    name: str
    operations: tuple[str, ...]
    is_atomic: bool = True
    #: What the SQL doesn't show.
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """The migrations of the last release, and the columns that its models read, by table."""

    migrations: frozenset[str]
    columns: dict[str, set[str]]

    @property
    def suffix(self) -> str:
        """How a migration's name ends that takes away what only older versions than this one read."""
        return f"_since_{max(self.migrations)[:4]}"


async def rendered(released: frozenset[str], *more: Migration) -> tuple[list[Rendered], Release]:
    """Return the migrations that aren't released, and what the release has. Opens no connection."""
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE, init_connections=False)
        executor = MigrationExecutor(context.connections.get("default"), TORTOISE["apps"])
        executor.loader.load_disk()
        migrations = [*sorted(executor.loader.disk_migrations.values(), key=lambda each: each.name), *more]
        state = State(models={}, apps=StateApps(default_connections={"flash": "default"}))
        for each in migrations:
            if each.name in released:
                await each.apply(state, dry_run=True)
        columns = {
            model.table: {field.source_field or name for name, field in model.fields.items()}
            for model in state.models.values()
        }
        found = [
            await _rendered(executor, each, before.name, state)
            for before, each in pairwise(migrations)
            if each.name not in released
        ]
    return found, Release(released, columns)


async def _rendered(executor: MigrationExecutor, migration: Migration, before: str, state: State) -> Rendered:
    operations, problems = [], []
    if migration.dependencies != [("flash", before)]:
        problems.append(f'it must depend on the one before it: dependencies = [("flash", "{before}")].')
    for operation in migration.operations:
        editor = AsyncpgSchemaEditor(executor.connection, atomic=False, collect_sql=True)
        old = state.clone()
        operation.state_forward(migration.app_label, state)
        if not operation.reduces_to_sql:
            problems.append(f"{type(operation).__name__} can't be judged: fill rows in batches, by a job.")
            continue
        await operation.database_forward(migration.app_label, old, state, editor)
        operations.append("\n;\n".join(sql.strip().rstrip(";") for sql in editor.collected_sql))
    return Rendered(migration.name, tuple(filter(None, operations)), migration.atomic, tuple(problems))


def refusals(migrations: Sequence[Rendered], release: Release) -> list[str]:
    """Return a sentence for each thing that would disturb the version before."""
    said = []
    # Of what the version before doesn't know: tables, and columns with a default.
    own: set[tuple[str, str | None]] = set()
    for migration in migrations:
        try:
            found = [*migration.problems, *_ours(migration, release, own)]
        except ParseError as error:
            found = [f"its SQL can't be read: {error}."]
        said += [f"{migration.name}: {each}" for each in found]
    return said + list(_of_squawk([each for each in migrations if each.is_atomic]))


def _ours(migration: Rendered, release: Release, own: set[tuple[str, str | None]]) -> Iterator[str]:
    """Yield what is wrong with a migration by the rules that squawk doesn't have."""
    if not migration.is_atomic:
        yield from _concurrent(migration.operations)
        return
    if migration.operations[:1] != (LOCK_TIMEOUT,):
        yield f'its first operation must be ops.RunSQL("{LOCK_TIMEOUT}").'
    statements = [raw.stmt for sql in migration.operations[1:] for raw in parse_sql(sql)]
    for statement in statements:
        yield from _stated(statement, release, own)
    if any(map(_takes_away, statements)) and not migration.name.endswith(release.suffix):
        yield (
            f"it takes away what older versions need: let its name end with {release.suffix}, so that those older than "
            "the version before refuse to start."
        )


def _stated(node: Any, release: Release, own: set[tuple[str, str | None]]) -> Iterator[str]:
    """Yield what is wrong with a statement; note tables that it creates in `own`."""
    if isinstance(node, ast.VariableSetStmt) and node.name == "lock_timeout":
        yield f"{LOCK_TIMEOUT} at its beginning is enough."
    if isinstance(node, ast.CreateStmt):
        own.add((_table(node), None))
    if type(node) in _REFUSED and (_table(node), None) not in own:
        yield f"{_kind(node)}: {_REFUSED[type(node)]}"
    if isinstance(node, ast.InsertStmt) and not getattr(node.selectStmt, "valuesLists", None):
        yield f"{_kind(node)}: {_REFUSED[ast.UpdateStmt]}"
    if isinstance(node, ast.AlterTableStmt):
        for command in node.cmds or ():
            yield from _altered(_table(node), command, release, own)
    if isinstance(node, ast.DropStmt) and node.removeType == enums.ObjectType.OBJECT_TABLE:
        for table in {name[-1].sval for name in node.objects or ()} & release.columns.keys():
            yield (
                f"DROP TABLE {table}: the version before uses it. Take its model away in this release (InModelsOnly), "
                "and drop the table in the next one."
            )


def _takes_away(node: Any) -> bool:
    if isinstance(node, ast.DropStmt):
        return bool(node.removeType == enums.ObjectType.OBJECT_TABLE)
    commands = node.cmds or () if isinstance(node, ast.AlterTableStmt) else ()
    return any(each.subtype == enums.AlterTableType.AT_DropColumn for each in commands)


def _altered(table: str, command: Any, release: Release, own: set[tuple[str, str | None]]) -> Iterator[str]:
    """Yield what is wrong with one part of an ALTER TABLE; note columns that have a default in `own`."""
    kinds, constraints = enums.AlterTableType, enums.ConstrType
    if (table, None) in own:
        return
    known = release.columns.get(table, set())
    if command.subtype == kinds.AT_DropColumn and command.name in known:
        yield (
            f"DROP COLUMN {table}.{command.name}: the version before reads it. Take the field out of the model in this "
            "release (InModelsOnly, and DROP NOT NULL), and drop the column in the next one."
        )
    if command.subtype == kinds.AT_AddColumn:
        of_column = {each.contype for each in command.def_.constraints or ()}
        if constraints.CONSTR_DEFAULT in of_column:
            own.add((table, command.def_.colname))
        if constraints.CONSTR_CHECK in of_column:
            yield (
                f"ADD COLUMN {table}.{command.def_.colname} with a CHECK reads the whole table: ADD CONSTRAINT … NOT "
                "VALID, and VALIDATE CONSTRAINT in the next migration."
            )
    needed = _needed(command)
    if needed is not None and needed not in known and (table, needed) not in own:
        yield (
            f"NOT NULL of {table}.{needed}: the version before doesn't write it. Give it a default, or say NOT NULL in "
            "the next release."
        )


def _needed(command: Any) -> str | None:
    """Return the column that a part of an ALTER TABLE makes NOT NULL, at once or by a CHECK."""
    if command.subtype == enums.AlterTableType.AT_SetNotNull:
        return str(command.name)
    test: Any = command.def_.raw_expr if isinstance(command.def_, ast.Constraint) else None
    if isinstance(test, ast.NullTest) and test.nulltesttype == enums.NullTestType.IS_NOT_NULL:
        fields: Any = getattr(test.arg, "fields", None)
        return str(fields[-1].sval) if fields else None
    return None


def _concurrent(operations: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with operations that run without a transaction around them."""
    cleared: set[str] = set()
    for sql in operations:
        nodes: list[Any] = [raw.stmt for raw in parse_sql(sql)]
        node = nodes[0] if len(nodes) == 1 else None
        if isinstance(node, ast.IndexStmt) and node.concurrent:
            if node.idxname not in cleared:
                yield (
                    f"CREATE INDEX CONCURRENTLY {node.idxname}: one that was cut short leaves an invalid index. Begin "
                    f'with ops.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS {node.idxname}").'
                )
            if node.if_not_exists:
                yield f"CREATE INDEX CONCURRENTLY {node.idxname}: IF NOT EXISTS takes an invalid index for a good one."
        elif isinstance(node, ast.DropStmt) and node.concurrent and node.missing_ok:
            cleared |= {name[-1].sval for name in node.objects or ()}
        else:
            yield (
                f"{' '.join(sql.split())[:60]}: without a transaction (atomic = False), each operation is one CREATE INDEX "
                "CONCURRENTLY or DROP INDEX CONCURRENTLY IF EXISTS; put the rest into a migration of its own."
            )


def _table(node: Any) -> str:
    return getattr(getattr(node, "relation", None), "relname", "")


def _kind(node: Any) -> str:
    return f"{type(node).__name__.removesuffix('Stmt').upper()} {_table(node)}".rstrip()


def _of_squawk(migrations: Sequence[Rendered]) -> Iterator[str]:
    """Yield what squawk says of migrations, each of which is one transaction."""
    if not migrations:
        return
    with TemporaryDirectory() as folder:
        paths = []
        for each in migrations:
            paths.append(Path(folder, f"{each.name}.sql"))
            paths[-1].write_text("\n;\n".join(each.operations) + ";\n")
        squawk = Path(sys.executable).with_name("squawk")
        options = ("--assume-in-transaction", f"--pg-version={POSTGRES_VERSION_MIN}", f"--exclude={','.join(NOT_OURS)}")
        ended = subprocess.run(
            [squawk, *options, "--reporter=json", *paths], cwd=folder, capture_output=True, text=True, check=False
        )
        if ended.returncode not in {0, 1}:
            raise RuntimeError(f"squawk failed: {ended.stderr}")
        for found in json.loads(ended.stdout):
            path = Path(found["file"])
            line = path.read_text().splitlines()[found["line"]].strip()
            yield (
                f"{path.stem}: {line[:80]}: {found['message']} {found['help'] or ''}".rstrip()
                + f" ({found['rule_name']})"
            )
