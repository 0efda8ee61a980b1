"""Stacked migrations. Without these one could stop the version before, which serves while it runs."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tortoise import fields, migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.operations import Operation

from migrations._operations import InModelsOnly
from migrations._released import DIGESTS, SCHEMA, changed, release, released
from migrations._rules import LOCK_TIMEOUT, Release, Rendered, refusals, rendered

RELEASED = frozenset({"0001_initial", "0002_keys_and_promises"})
BEFORE = Release(RELEASED, {"member": {"id", "merchant_id", "nick"}, "note": {"id"}})
CHECK = "ALTER TABLE member ADD CONSTRAINT member_nick CHECK (nick <> '')"
INDEX = "CREATE INDEX CONCURRENTLY member_by_nick ON member (merchant_id, nick)"
STAYS = (
    "migrations/{}.py has been released and stays as it is: put it back, and say what is new in a migration of its own "
    "(make migration name=…)."
)
BELONGS = "Only a release changes {1}: git show v0.2.0:{0} > {1}"
#: What a transaction after its lock_timeout does, and how what is said about it goes on, or ends.
BAD: Mapping[str, tuple[str, str]] = {
    "check": (CHECK, "Use `NOT VALID` with a later `VALIDATE CONSTRAINT` call. (constraint-missing-not-valid)"),
    "check_validated_at_once": (
        f"{CHECK} NOT VALID; ALTER TABLE member VALIDATE CONSTRAINT member_nick",
        "in one transaction and `VALIDATE CONSTRAINT` in a separate transaction. (constraint-missing-not-valid)",
    ),
    "reference": (
        "ALTER TABLE member ADD CONSTRAINT member_nick FOREIGN KEY (merchant_id, nick) REFERENCES nick",
        "(adding-foreign-key-constraint)",
    ),
    "unique": ("ALTER TABLE member ADD CONSTRAINT member_nick UNIQUE (nick)", "(disallowed-unique-constraint)"),
    "index": ("CREATE INDEX member_by_nick ON member (nick)", "(require-concurrent-index-creation)"),
    "index_in_a_transaction": (INDEX, "(ban-concurrent-index-creation-in-transaction)"),
    "index_dropped": ("DROP INDEX member_by_nick", "(require-concurrent-index-deletion)"),
    "column_renamed": ("ALTER TABLE member RENAME nick TO alias", "(renaming-column)"),
    "table_renamed": ("ALTER TABLE member RENAME TO person", "(renaming-table)"),
    "type": ("ALTER TABLE member ALTER nick TYPE bigint", "(changing-column-type)"),
    "not_null": ("ALTER TABLE member ALTER nick SET NOT NULL", "(adding-not-nullable-field)"),
    "not_null_column": ("ALTER TABLE member ADD alias text NOT NULL", "(adding-required-field)"),
    "volatile_default": ("ALTER TABLE member ADD token uuid DEFAULT gen_random_uuid()", "(adding-field-with-default)"),
    "serial": ("ALTER TABLE member ADD number bigserial", "(prefer-identity)"),
    "column_with_a_check": ("ALTER TABLE member ADD alias text CHECK (alias <> '')", "VALIDATE CONSTRAINT in the next"),
    "too_early": (
        "ALTER TABLE member ADD CONSTRAINT member_alias CHECK (alias IS NOT NULL) NOT VALID",
        "the version before doesn't write it. Give it a default, or say NOT NULL in the next release.",
    ),
    "column_dropped_since_0002": (
        "ALTER TABLE member DROP COLUMN nick",
        "Take the field out of the model in this release (InModelsOnly, and DROP NOT NULL), and drop the column in the",
    ),
    "table_dropped_since_0002": ("DROP TABLE note", "the version before uses it. Take its model away in this release"),
    "unread_column_dropped": ("ALTER TABLE member DROP COLUMN alias", "let its name end with _since_0002, so that"),
    "filled": ("UPDATE member SET nick = 'a'", "fill them in batches, by a job."),
    "copied": ("INSERT INTO note SELECT id FROM member", "fill them in batches, by a job."),
    "emptied": ("TRUNCATE note", "delete in batches, by a job."),
    "locked": ("LOCK TABLE member", "leave locks to the statements"),
    "hidden": ("DO $$ BEGIN UPDATE member SET nick = 'a'; END $$", "write its statements plainly."),
    "patient": ("SET LOCAL lock_timeout = '1h'", "at its beginning is enough."),
    "unreadable": ("ALTER TABLE OF COURSE", "its SQL can't be read"),
}
#: What runs without a transaction around it.
BAD_ALONE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "index_not_mended": ((INDEX,), 'Begin with ops.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS member_by_nick").'),
    "index_taken_for_good": (
        ("DROP INDEX CONCURRENTLY IF EXISTS member_by_nick", INDEX.replace("member_by", "IF NOT EXISTS member_by")),
        "takes an invalid index for a good one.",
    ),
    "with_something_else": (("ALTER TABLE member ADD alias text",), "put the rest into a migration of its own."),
}
#: One after the other.
GOOD = (
    Rendered("0003_column", (LOCK_TIMEOUT, "ALTER TABLE member ADD alias text; COMMENT ON TABLE member IS 'a'")),
    Rendered("0004_default", (LOCK_TIMEOUT, "ALTER TABLE member ADD age integer NOT NULL DEFAULT 0")),
    Rendered("0005_check", (LOCK_TIMEOUT, f"{CHECK} NOT VALID")),
    Rendered("0006_valid", (LOCK_TIMEOUT, "ALTER TABLE member VALIDATE CONSTRAINT member_nick")),
    Rendered(
        "0007_needed",
        (
            LOCK_TIMEOUT,
            "ALTER TABLE member ADD CONSTRAINT member_nick_needed CHECK (nick IS NOT NULL) NOT VALID",
            "ALTER TABLE member ADD CONSTRAINT member_age CHECK (age IS NOT NULL) NOT VALID",
        ),
    ),
    Rendered(
        "0008_not_null",
        (
            LOCK_TIMEOUT,
            "ALTER TABLE member VALIDATE CONSTRAINT member_nick_needed; ALTER TABLE member ALTER nick SET NOT NULL",
            "ALTER TABLE member DROP CONSTRAINT member_nick_needed",
        ),
    ),
    Rendered("0009_index", ("DROP INDEX CONCURRENTLY IF EXISTS member_by_nick", INDEX), is_atomic=False),
    Rendered(
        "0010_table",
        (
            LOCK_TIMEOUT,
            'CREATE TABLE "word" ("id" UUID NOT NULL PRIMARY KEY, "merchant_id" UUID NOT NULL)',
            "ALTER TABLE word DROP CONSTRAINT word_pkey, ADD PRIMARY KEY (merchant_id, id)",
            "ALTER TABLE word ADD CONSTRAINT word_merchant FOREIGN KEY (merchant_id) REFERENCES merchant",
            "CREATE INDEX word_newest ON word (merchant_id, id); UPDATE word SET id = id",
        ),
    ),
    Rendered("0011_unread_since_0002", (LOCK_TIMEOUT, "ALTER TABLE member DROP COLUMN old; DROP TABLE older")),
    Rendered(
        "0012_wider", (LOCK_TIMEOUT, "-- squawk-ignore changing-column-type\nALTER TABLE member ALTER nick TYPE text")
    ),
)


def test_what_disturbs_the_version_before_is_refused_with_what_to_do() -> None:
    stacked = [Rendered(name, (LOCK_TIMEOUT, sql)) for name, (sql, _) in BAD.items()]
    alone = [Rendered(name, operations, is_atomic=False) for name, (operations, _) in BAD_ALONE.items()]

    said = refusals([*stacked, *alone], BEFORE)

    for name, (_, sentence) in {**BAD, **BAD_ALONE}.items():
        assert [each for each in said if each.startswith(f"{name}: ") and sentence in each], (name, said)


def test_a_lock_that_is_waited_for_without_end_is_refused() -> None:
    (first, *_) = refusals([Rendered("0003_patient", ("ALTER TABLE member ADD alias text",))], BEFORE)

    assert first == ("""0003_patient: its first operation must be ops.RunSQL("SET LOCAL lock_timeout = '2s'").""")


def test_what_is_done_in_steps_is_let_through() -> None:
    assert refusals(GOOD, BEFORE) == []


def _migration(name: str, *operations: Operation, after: str = "0002_keys_and_promises") -> migrations.Migration:
    class Migration(migrations.Migration):
        dependencies = [("flash", after)]  # noqa: RUF012

    Migration.operations = list(operations)
    return Migration(name, "flash")


async def test_operations_of_tortoise_are_judged_by_their_sql() -> None:
    begun, nick = ops.RunSQL(LOCK_TIMEOUT), fields.TextField(null=True)
    good = (
        _migration("0003_nick", begun, ops.AddField("Member", "nick", nick)),
        _migration("0004_forgotten", begun, InModelsOnly(ops.RemoveField("Member", "source")), after="0003_nick"),
    )
    bad = (
        _migration("0005_needed", begun, ops.AddField("Member", "age", fields.IntField()), after="0004_forgotten"),
        _migration("0006_gone_since_0002", begun, ops.RemoveField("Member", "joined_at"), after="0005_needed"),
        _migration("0007_filled", begun, ops.RunPython(lambda *_: None), after="0005_needed"),
    )

    assert refusals(*await rendered(RELEASED, *good)) == []
    said = refusals(*await rendered(RELEASED, *good, *bad))
    assert [each.split(":")[0] for each in said] == [
        "0006_gone_since_0002", "0007_filled", "0007_filled", "0005_needed",
    ], said  # fmt: skip
    assert "DROP COLUMN member.joined_at: the version before reads it." in said[0]
    assert said[1:3] == [
        '0007_filled: it must depend on the one before it: dependencies = [("flash", "0006_gone_since_0002")].',
        "0007_filled: RunPython can't be judged: fill rows in batches, by a job.",
    ]


def _checkout(root: Path) -> Path:
    (root / "migrations").mkdir(parents=True)
    (root / "migrations" / "0001_initial.py").write_text("tables")
    (root / DIGESTS).touch()
    (root / "schema.graphql").write_text("type Query")
    (root / SCHEMA).write_text("type Old")
    (root / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    return root


def test_what_is_released_stays_and_what_is_not_may_change(tmp_path: Path) -> None:
    root = _checkout(tmp_path / "work")
    first = root / "migrations" / "0001_initial.py"

    assert (released(root), changed(root)) == ({}, [])
    release(root)
    (root / "migrations" / "0002_more.py").write_text("more")
    (root / "schema.graphql").write_text("type New")
    assert ([*released(root)], changed(root), (root / SCHEMA).read_text()) == (["0001_initial"], [], "type Query")

    first.write_text("other tables")
    (root / "migrations" / "0000_early.py").write_text("early")
    assert changed(root) == [
        STAYS.format("0001_initial"),
        "migrations/0000_early.py comes before 0001_initial, which has been released: give it a higher number.",
    ]


def test_only_a_release_changes_what_its_tag_has(tmp_path: Path) -> None:
    root = _checkout(tmp_path / "work")
    release(root)
    git = ("git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "release: 0.2.0"], ["tag", "v0.2.0"]):
        subprocess.run([*git, *words], check=True)

    assert changed(root) == []
    (root / SCHEMA).write_text("type Other")
    (root / DIGESTS).write_text("")
    assert changed(root) == [BELONGS.format("schema.graphql", SCHEMA), BELONGS.format(DIGESTS, DIGESTS)]
    # The next release has a number of its own, and no tag yet.
    (root / "pyproject.toml").write_text('[project]\nversion = "0.3.0"\n')
    release(root)
    assert changed(root) == []
