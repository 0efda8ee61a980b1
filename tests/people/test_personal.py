"""The list of what is personal. Without these a new column could keep a person who asked to be forgotten."""

from app.config import Settings
from app.merchants.reencrypt import SEALED
from app.people.personal import NOBODYS, PERSONAL, Fate
from app.storage.database import database

#: Columns that can hold words, addresses or what finds them.
TELLING = """
SELECT c.relname AS table, a.attname AS column FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    AND format_type(a.atttypid, NULL) IN (
        'bytea', 'text', 'character varying', 'json', 'jsonb', 'bytea[]', 'text[]', 'character varying[]'
    )
"""
#: Tables that name a member.
NAMING = """
SELECT DISTINCT conrelid::regclass::text AS table FROM pg_constraint
WHERE contype = 'f' AND confrelid IN ('member'::regclass, 'wallet'::regclass)
"""


async def test_every_column_that_can_tell_of_a_person_is_on_the_list(database_pool: Settings) -> None:
    listed = {(each.table, column) for each in PERSONAL for column in (*each.fates, *each.kept)}
    rows = await database().rows(TELLING)

    telling = {(row["table"], row["column"]) for row in rows if row["table"] not in NOBODYS}
    assert listed == telling
    assert {row["table"] for row in rows} & NOBODYS.keys() == {row["table"] for row in rows} - {
        each.table for each in PERSONAL
    }


async def test_every_table_that_names_a_member_is_on_the_list(database_pool: Settings) -> None:
    rows = await database().rows(NAMING)

    assert {row["table"] for row in rows} <= {each.table for each in PERSONAL} | NOBODYS.keys()


def test_each_table_is_on_the_list_once_and_what_is_sealed_of_a_person_goes() -> None:
    tables = [each.table for each in PERSONAL]

    assert len(tables) == len({*tables, *NOBODYS}) - len(NOBODYS)
    kept = {
        f"{sealed.table}.{sealed.column}"
        for sealed in SEALED
        for each in PERSONAL
        if each.table == sealed.table and sealed.column not in each.fates
    }
    assert kept == {"code.ciphertext"}


def test_a_row_is_deleted_whole() -> None:
    for each in PERSONAL:
        assert Fate.DELETED not in each.fates.values() or {*each.fates.values()} == {Fate.DELETED}
