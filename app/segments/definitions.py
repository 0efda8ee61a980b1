"""The five segments: what makes a member one of them, in words and as SQL."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import strawberry

from app.api.scalars import described
from app.graph.advocates import REFERRALS_MIN


@strawberry.enum(
    description="An audience; a member can be in several. NEW, ACTIVE and LAPSED are exact at any moment, HIGH_SPEND "
    "and ADVOCATES are as of last night."
)
class SegmentName(Enum):
    """In the order in which they are shown."""

    NEW = described("NEW", "Joined within the last 30 days.")
    ACTIVE = described("ACTIVE", "Bought within the last 90 days; what was refunded whole doesn't count.")
    LAPSED = described("LAPSED", "Bought before, but not within the last 90 days.")
    HIGH_SPEND = described(
        "HIGH_SPEND",
        "The tenth of the buyers of the last 365 days that spent the most, less what was refunded or paid with points.",
    )
    ADVOCATES = described(
        "ADVOCATES", "Brought at least 3 members by converted referrals, by the latest network snapshot."
    )

    @property
    def title(self) -> str:
        """The name in words: `high spend`."""
        return self.value.lower().replace("_", " ")


#: By their titles.
BY_TITLE: Final[Mapping[str, SegmentName]] = {name.title: name for name in SegmentName}
#: What is said of the members of each, after "members that".
DEFINITIONS: Final[Mapping[SegmentName, str]] = {
    SegmentName.NEW: "joined within the last 30 days",
    SegmentName.ACTIVE: "bought within the last 90 days",
    SegmentName.LAPSED: "bought before, but not within the last 90 days",
    SegmentName.HIGH_SPEND: "are the tenth of the buyers of the last 365 days that spent the most",
    SegmentName.ADVOCATES: (
        f"brought at least {REFERRALS_MIN} members by converted referrals, by the latest network snapshot"
    ),
}
#: Whether the member `m` is in a segment, where its own row tells. Never null.
BY_ROW: Final[Mapping[SegmentName, str]] = {
    SegmentName.NEW: "(m.joined_at > now() - interval '30 days')",
    SegmentName.ACTIVE: "coalesce(m.last_bought_at > now() - interval '90 days', false)",
    SegmentName.LAPSED: "coalesce(m.last_bought_at <= now() - interval '90 days', false)",
}
#: Those whose members are rows of segment_member: `refresh` works them out.
KEPT: Final = tuple(name for name in SegmentName if name not in BY_ROW)

_IN_ROW: Final = " OR ".join(f"('{name.value}' = ANY({{0}}) AND {told})" for name, told in BY_ROW.items())
#: Whether `m` is in one of the segments that the array {0} names; who is no member (its `id` is null) isn't.
IN_ONE_OF: Final = f"""
    ({_IN_ROW} OR EXISTS (
        SELECT FROM segment_member
        WHERE merchant_id = :merchant_id AND member_id = m.id AND segment = ANY({{0}})
    ))
"""
