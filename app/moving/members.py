"""Members of another system: who isn't there by its external id is enrolled, as of when it joined there."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, cast
from uuid import UUID

from strawberry import UNSET

from app import ids
from app.coupons.adopt_codes import adopt_codes
from app.members.mailboxes import mailbox_index
from app.members.types import MemberSource
from app.merchants.tenants import decrypted
from app.moving.fields import Fields
from app.moving.kind import Batch, Kind, Record, settle, settle_each
from app.moving.rows import (
    DROP_LINES,
    FIND_MEMBERS,
    PAGE,
    Import,
    LineRow,
    compare,
    look_up,
    pass_over_erased,
    repeated,
    rows_of,
    set_verdicts,
)
from app.people.addresses import HeldRow, Proved, on_held, take_all
from app.people.edit_member import DISPLAY_NAME_LENGTH_MAX, Edit, change
from app.storage.database import Tx, database
from app.storage.events import event, keep_quiet
from app.storage.gone import MemberGoneError
from app.storage.statements import NoRow, statement

#: Members that are enrolled by one transaction. Nobody else knows them; who proves one of their addresses waits for it.
ENROLLED_AT_ONCE: Final = 1000
#: Corrections that are read at a time.
CORRECTED_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class _Person:
    external_source: str
    external_id: str | None
    address: str | None
    email_verified: bool | None
    display_name: str | None
    joined_at: datetime | None


# A key that is in the file twice, and an address that one row says is proven and that another row has, too.
FIND_REPEATED: Final = repeated("externalId is that of", "external_source, external_id")
FIND_SHARED: Final = statement(
    NoRow,
    """
UPDATE import_row SET problem = 'email is that of line ' || shared.proven || ', which says that it is verified'
FROM (
    SELECT line, min(line) FILTER (WHERE email_verified) OVER (PARTITION BY email_index) AS proven FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND email_index IS NOT NULL
) shared
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = shared.line
    AND shared.proven <> shared.line AND problem IS NULL
""",
)
FIND_PROVEN: Final = statement(
    NoRow,
    """
UPDATE import_row SET
    problem = 'email is proven by member_' || replace(a.member_id::text, '-', '') || ', who isn''t this member'
FROM address a
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL
    AND a.merchant_id = :merchant_id AND a.email_index = import_row.email_index AND a.member_id IS NOT NULL
    AND a.member_id IS DISTINCT FROM found
""",
)


class _KnownRow(TypedDict):
    """A row about a member that is there, and the member, with what the records say that were merged into it."""

    line: int
    id: UUID
    verdict: str | None
    email: bytes | None
    email_index: bytes | None
    mailbox_index: bytes | None
    email_verified: bool | None
    display_name: bytes | None
    joined_at: datetime | None
    member_id: UUID
    has_email_index: bytes | None
    has_pending_email_index: bytes | None
    is_verified: bool
    has_proved: bool
    has_dropped: bool
    has_display_name: bytes | None
    has_joined_at: datetime
    is_of_several: bool
    named_ids: list[UUID]
    names: list[bytes]


_KNOWN: Final = """
SELECT r.line, r.id, r.verdict, r.email, r.email_index, r.mailbox_index, r.email_verified,
    r.display_name, r.dated_at AS joined_at, m.id AS member_id,
    m.email_index AS has_email_index, m.pending_email_index AS has_pending_email_index,
    m.email_verified AS is_verified,
    EXISTS (
        SELECT FROM address a
        WHERE a.merchant_id = :merchant_id AND a.email_index = r.email_index AND a.member_id = m.id
    ) AS has_proved, coalesce(merged.has_dropped, false) AS has_dropped, m.display_name AS has_display_name,
    m.joined_at AS has_joined_at, merged.is_of_several, coalesce(merged.named_ids, '{{}}') AS named_ids,
    coalesce(merged.names, '{{}}') AS names
FROM (
    SELECT * FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND {0} ORDER BY line LIMIT {1}
) r JOIN member m ON m.merchant_id = :merchant_id AND m.id = r.found
CROSS JOIN LATERAL (
    SELECT count(*) > 0 AS is_of_several, array_agg(o.id) FILTER (WHERE o.display_name IS NOT NULL) AS named_ids,
        array_agg(o.display_name) FILTER (WHERE o.display_name IS NOT NULL) AS names,
        bool_or(r.email_index = ANY(o.dropped_email_indexes)) AS has_dropped
    FROM member o WHERE o.merchant_id = :merchant_id AND o.merged_into_id = m.id
) merged
ORDER BY r.line
"""
KNOWN: Final = statement(_KnownRow, _KNOWN.format("found IS NOT NULL AND problem IS NULL", PAGE))
TO_CORRECT: Final = statement(_KnownRow, _KNOWN.format("verdict = 'CORRECT'", CORRECTED_AT_ONCE))
KNOWN_OF: Final = statement(_KnownRow, _KNOWN.format("found = ANY(:member_ids::uuid[]) AND problem IS NULL", "ALL"))


class _FoundRow(TypedDict):
    found: UUID


# Members that several rows are about, by external ids that are one person's, of which one is to be corrected.
FIND_CORRECTED: Final = statement(
    _FoundRow,
    f"""
SELECT found FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND found > :after AND problem IS NULL
GROUP BY found HAVING count(*) > 1 AND bool_or(verdict = 'CORRECT') ORDER BY found LIMIT {PAGE}
""",
)


class _EnrolledRow(TypedDict):
    """A member that was just made."""

    line: int
    id: UUID
    email_index: bytes | None
    email_verified: bool


NEXT: Final = statement(
    LineRow,
    f"""
SELECT line FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND verdict IS NULL
ORDER BY line LIMIT {ENROLLED_AT_ONCE}
""",
)
# As one member is enrolled; whose external id or proven address somebody else got first is left out.
ENROL_ALL: Final = statement(
    _EnrolledRow,
    f"""
WITH batch AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY line) AS place FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND line = ANY(:lines::int[])
), addressed AS (
    -- Waits for who is proving an address, and returns who has proved it by now.
    INSERT INTO address (merchant_id, email_index)
    SELECT DISTINCT :merchant_id::uuid, email_index FROM batch WHERE email_index IS NOT NULL ORDER BY email_index
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING email_index, member_id
), named AS (
    INSERT INTO external_id (merchant_id, member_id, source, external_id)
    SELECT :merchant_id, id, external_source, external_id
    FROM batch LEFT JOIN addressed a ON a.email_index = batch.email_index
    WHERE a.member_id IS NULL ORDER BY external_source, external_id
    ON CONFLICT (merchant_id, source, external_id) DO NOTHING RETURNING member_id
), m AS (
    INSERT INTO member (merchant_id, id, external_id, email, email_index, mailbox_index, email_verified, display_name,
                        source, joined_at)
    SELECT :merchant_id, id, CASE WHEN external_source = 'IMPORT' THEN external_id END, email, email_index,
        mailbox_index, coalesce(email_verified, false), display_name, 'IMPORT', coalesce(dated_at, now())
    FROM batch JOIN named ON named.member_id = batch.id ORDER BY id
    RETURNING id, email_index, email_verified
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT :merchant_id, id, 0 FROM m
), recorded AS (
    {
        event(
            "member.enrolled",
            id="(:event_ids::uuid[])[batch.place]",
            subject="m.id",
            source="m JOIN batch ON batch.id = m.id",
        )
    }
)
SELECT batch.line, m.id, m.email_index, m.email_verified FROM m JOIN batch ON batch.id = m.id
""",
)


class _IndexRow(TypedDict):
    email_index: bytes


FIND_WAITED_FOR: Final = statement(
    _IndexRow,
    """
SELECT DISTINCT email_index FROM code
WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[])
""",
)
JOINED: Final = statement(
    NoRow,
    f"""
WITH m AS (
    UPDATE member SET joined_at = :joined_at WHERE merchant_id = :merchant_id AND id = :member_id
        AND joined_at <> :joined_at
    RETURNING id
)
{event("member.edited", subject="id", source="m")}
""",
)


class Members(Kind):
    """Files of members."""

    name = "MEMBERS"
    makes = "members"
    columns = ("externalId", "externalSource", "email", "emailVerified", "displayName", "joinedAt")
    required = ("externalId",)
    stored = (
        "external_source", "external_id", "email", "email_index", "mailbox_index", "email_verified", "display_name",
        "dated_at",
    )  # fmt: skip
    compared = ("member", "external_id", "address")

    def check(self, fields: Fields) -> _Person:
        """Read a person."""
        external_id, external_source = fields.external_id(), fields.external_source()
        address, is_verified = fields.email(), fields.boolean("emailVerified")
        name = fields.line("displayName", length_max=DISPLAY_NAME_LENGTH_MAX)
        joined_at = fields.past("joinedAt", self.now)
        if is_verified and address is None:
            fields.problems.add("emailVerified", "needs an email")
        return _Person(external_source, external_id, address, is_verified, name, joined_at)

    def record(self, row_id: UUID, checked: object) -> Record:
        """Return a person with address and name sealed as those of the member that it may become."""
        person = cast("_Person", checked)
        keys = self.viewer.tenant.keys
        address, name = person.address, person.display_name
        return (
            person.external_source,
            person.external_id,
            None if address is None else keys.encrypt(row_id, "email", address),
            None if address is None else keys.email_index(address),
            None if address is None else mailbox_index(keys, address),
            person.email_verified,
            None if name is None else keys.encrypt(row_id, "display_name", name),
            person.joined_at,
        )

    async def judge(self, of: Import) -> None:
        """Compare the rows with each other and with the members that are there, page by page where texts are sealed."""
        await compare(of, FIND_REPEATED, FIND_SHARED)
        await look_up(of, FIND_MEMBERS)
        await pass_over_erased(of)
        await look_up(of, FIND_PROVEN)
        after = 0
        while page := await rows_of(of, KNOWN, after=after):
            verdicts: list[tuple[int, str | None, str | None]] = []
            for row in page:
                other = await self._other(row)
                if not other:
                    verdicts.append((row["line"], "SAME", None))
                elif of.corrects:
                    verdicts.append((row["line"], "CORRECT", None))
                else:
                    verdicts.append((row["line"], None, f"{', '.join(other)} differs from the member's; see --correct"))
            await set_verdicts(of, verdicts)
            after = page[-1]["line"]
        if of.corrects:
            await self._refuse_rivals(of)

    async def _refuse_rivals(self, of: Import) -> None:
        """Refuse corrections that another row about the same member would undo, now or the next time."""
        after = UUID(int=0)
        while page := await rows_of(of, FIND_CORRECTED, after=after):
            members = [row["found"] for row in page]
            rows: defaultdict[UUID, list[_KnownRow]] = defaultdict(list)
            for row in await database().many(KNOWN_OF, **of.key, after=0, member_ids=members):
                rows[row["member_id"]].append(row)
            verdicts: list[tuple[int, str | None, str | None]] = []
            for row in (each for about in rows.values() for each in about if each["verdict"] == "CORRECT"):
                rivals = [other["line"] for other in rows[row["member_id"]] if await self._undoes(other, row)]
                if rivals:
                    problem = f"externalId names the member of line {rivals[0]}, too, which says something else"
                    verdicts.append((row["line"], None, problem))
            await set_verdicts(of, verdicts)
            after = members[-1]

    async def _undoes(self, row: _KnownRow, correction: _KnownRow) -> bool:
        """Whether a row would differ from the member once another one has corrected it."""
        name, corrected = await self._name(row), await self._name(correction)
        if None not in {name, corrected} and name != corrected and name not in await self._merged_names(row):
            return True
        if not row["is_of_several"] and len({row["joined_at"], correction["joined_at"]} - {None}) > 1:
            return True
        if len({row["email_index"], correction["email_index"]} - {None}) < 2 or row["has_proved"] or row["has_dropped"]:
            return False
        # A new address waits beside a proven one, unless it is proven, too.
        stays = row["is_verified"] and row["email_index"] == row["has_email_index"]
        return not stays or bool(correction["email_verified"])

    async def _other(self, row: _KnownRow) -> list[str]:
        """Return the columns that say something else than the member does, and the records that were merged into it.

        What is verified by now stays so.
        """
        other = []
        if row["has_proved"]:
            # Perhaps as a record that was merged into this one.
            pass
        elif row["email_index"] not in {None, row["has_email_index"], row["has_pending_email_index"]}:
            if row["email_verified"] or not row["has_dropped"]:
                other.append("email")
        elif row["email_verified"]:
            other.append("emailVerified")
        name = await self._name(row)
        if name is not None and name != await self._has_name(row) and name not in await self._merged_names(row):
            other.append("displayName")
        joined_at, has_joined_at = row["joined_at"] or row["has_joined_at"], row["has_joined_at"]
        # A person was a member since the first of its records was.
        if joined_at < has_joined_at or (joined_at > has_joined_at and not row["is_of_several"]):
            other.append("joinedAt")
        return other

    async def _merged_names(self, row: _KnownRow) -> list[str]:
        sealed = zip(row["named_ids"], row["names"], strict=True)
        return [await decrypted(self.viewer.tenant, each, "display_name", name) for each, name in sealed]

    async def _name(self, row: _KnownRow) -> str | None:
        sealed = row["display_name"]
        return None if sealed is None else await decrypted(self.viewer.tenant, row["id"], "display_name", sealed)

    async def _has_name(self, row: _KnownRow) -> str | None:
        sealed = row["has_display_name"]
        member_id = row["member_id"]
        return None if sealed is None else await decrypted(self.viewer.tenant, member_id, "display_name", sealed)

    async def apply(self, tx: Tx, of: Import, after: int) -> Batch | None:
        """Enrol the next persons. The order of locks is that of one enrolment."""
        lines = [row["line"] for row in await tx.many(NEXT, **of.key, after=after)]
        if not lines:
            return None
        enrolled = await tx.many(
            ENROL_ALL, **of.key, lines=lines, event_ids=[ids.new() for _ in lines], actor=of.viewer.actor
        )
        proving = {
            row["id"]: row["email_index"]
            for row in enrolled
            if row["email_verified"] and row["email_index"] is not None
        }
        if proving:
            await take_all(tx, of.viewer, proving)
            members = {email_index: member_id for member_id, email_index in proving.items()}
            waited = await tx.many(FIND_WAITED_FOR, merchant_id=of.viewer.merchant_id, email_indexes=list(members))
            for index in sorted(row["email_index"] for row in waited):
                await adopt_codes(tx, of.viewer, members[index], index)
        await tx.row(DROP_LINES, **of.key, lines=lines)
        return Batch(lines[-1], len(enrolled), sorted({*lines} - {row["line"] for row in enrolled}))

    async def correct(self, of: Import, after: int) -> Batch | None:
        """Edit members as their rows say, as editMember does."""
        page = await database().many(TO_CORRECT, **of.key, after=after)
        return await settle_each(of, page, lambda row: self._edit(of, row))

    async def _edit(self, of: Import, row: _KnownRow) -> bool:
        """Raises Refused when another member has proved the address since it was judged, and MemberGoneError."""
        # What the member says already isn't written again: the same address would end one that is pending.
        other = await self._other(row)
        address = None
        if "email" in other and row["email"] is not None:
            address = await decrypted(of.viewer.tenant, row["id"], "email", row["email"])
        edit = Edit(
            external_source=MemberSource.STORE,
            external_id=UNSET,
            address=address or UNSET,
            email_index=row["email_index"],
            mailbox_index=row["mailbox_index"],
            # What is proven by now, perhaps by a record that was merged into this one, isn't proved again.
            email_verified=UNSET if row["has_proved"] else row["email_verified"] or UNSET,
            display_name=await self._name(row) if "displayName" in other else UNSET,
        )

        async def work(tx: Tx, held: HeldRow) -> Proved:
            if not of.tells:
                await keep_quiet(tx, of.viewer.merchant_id)
            edited = await change(tx, of.viewer, held, edit)
            if "joinedAt" in other:
                await tx.row(
                    JOINED,
                    merchant_id=of.viewer.merchant_id,
                    member_id=row["member_id"],
                    joined_at=row["joined_at"],
                    event_id=ids.new(),
                    actor=of.viewer.actor,
                )
            await settle(tx, of, [row["line"]], missed=False)
            return edited

        if await on_held(of.viewer, row["member_id"], row["email_index"], work) is None:
            raise MemberGoneError.of(row["member_id"])
        return True
