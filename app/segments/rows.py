"""What reads the members of segments."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from app.api.context import Viewer
from app.members.rows import IS_HERE, JOIN_MEMBER, MemberRow
from app.segments.definitions import BY_ROW, SegmentName
from app.storage.database import database
from app.storage.statements import columns, statement


class MemberOfRow(MemberRow):
    """A member of a segment."""

    segment: str


# The newest members of each segment: of one that members' own rows tell by walking them, of any other by its rows.
_BY_ROW: Final = " ".join(f"WHEN '{name.value}' THEN {told}" for name, told in BY_ROW.items())
MEMBERS: Final = statement(
    MemberOfRow,
    f"""
WITH page AS (
    SELECT asked.segment, newest.id AS member_id FROM unnest(:segments::text[]) AS asked (segment)
    CROSS JOIN LATERAL (
        (SELECT m.id FROM member m
         WHERE m.merchant_id = :merchant_id AND m.id < :before AND {IS_HERE}
            AND CASE asked.segment {_BY_ROW} ELSE false END
            AND asked.segment = ANY('{{{",".join(name.value for name in BY_ROW)}}}')
         ORDER BY m.id DESC LIMIT :limit)
        UNION ALL
        (SELECT s.member_id FROM segment_member s
         WHERE s.merchant_id = :merchant_id AND s.segment = asked.segment AND s.member_id < :before
         ORDER BY s.member_id DESC LIMIT :limit)
    ) newest
)
SELECT page.segment, {columns(MemberRow)} FROM page {JOIN_MEMBER.format("page")} WHERE {IS_HERE} ORDER BY m.id DESC
""",
)


async def members_by_segment(
    viewer: Viewer, segments: list[SegmentName], before: UUID, limit: int
) -> Mapping[SegmentName, list[MemberOfRow]]:
    """Return the newest members of each segment, those after `before`, at most `limit` of each."""
    rows = await database().rows(
        MEMBERS,
        merchant_id=viewer.merchant_id,
        segments=[segment.value for segment in segments],
        before=before,
        limit=limit,
    )
    grouped: defaultdict[SegmentName, list[MemberOfRow]] = defaultdict(list)
    for row in rows:
        grouped[SegmentName(row["segment"])].append(row)
    return grouped
