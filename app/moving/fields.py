"""The texts of a row, checked and read: every problem of a row is collected."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from app.api.inputs import Problems
from app.members.member_keys import EXTERNAL_ID_LENGTH_MAX
from app.members.types import MemberSource

_WHOLE: Final = re.compile(r"[+-]?\d{1,18}")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_YES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_YEARS: Final = (1970, 9000)


class Fields:
    """A row's texts by column. An empty one says nothing: it reads as None."""

    def __init__(self, texts: Mapping[str, str], zone: ZoneInfo) -> None:
        """Take the texts, and the zone of times that don't say theirs."""
        self._texts = texts
        self._zone = zone
        self.problems = Problems()

    def wrong(self) -> str | None:
        """Return what is wrong with the row, or None."""
        return "; ".join(f"{'.'.join(each.path)} {each.message}" for each in self.problems.found) or None

    def given(self, column: str, *, required: bool = False) -> str | None:
        """Return a text as it is."""
        text = self._texts.get(column) or None
        if required and text is None:
            self.problems.add(column, "is missing")
        return text

    def line(self, column: str, *, length_max: int, required: bool = False) -> str | None:
        """Return a line of text."""
        text = self.given(column, required=required)
        return None if text is None else self.problems.text(column, text, length_max=length_max)

    def external_id(self, *, required: bool = True) -> str | None:
        """Return what a source calls the member."""
        return self.line("externalId", length_max=EXTERNAL_ID_LENGTH_MAX, required=required)

    def source(self, column: str, *, required: bool = False) -> str | None:
        """Return the name of a source."""
        text = self.given(column, required=required)
        if text is not None and text.upper() not in MemberSource.__members__:
            self.problems.add(column, f"must be one of {', '.join(MemberSource.__members__)}")
        return None if text is None else text.upper()

    def external_source(self) -> str:
        """Return whose id `externalId` is: STORE's unless told, as everywhere."""
        return self.source("externalSource") or MemberSource.STORE.value

    def email(self, column: str = "email") -> str | None:
        """Return an address, normalised."""
        text = self.given(column)
        return None if text is None else self.problems.email(column, text)

    def boolean(self, column: str) -> bool | None:
        """Return whether something is so."""
        text = self.given(column)
        if text is not None and text.lower() not in _YES:
            self.problems.add(column, "must be true or false")
        return None if text is None else _YES.get(text.lower())

    def whole(self, column: str, *, most: int) -> int:
        """Return a whole number of 0 or more, which must be there."""
        text = self.given(column, required=True)
        if text is None:
            return 0
        if not (text.isascii() and _WHOLE.fullmatch(text)):
            self.problems.add(column, "must be a whole number")
            return 0
        return self.problems.number(column, int(text), least=0, most=most) or 0

    def moment(self, column: str, *, required: bool = False, ends: bool = False) -> datetime | None:
        """Return a time of ISO 8601. A day alone is its beginning, or its end where something `ends` with it."""
        text = self.given(column, required=required)
        if text is None:
            return None
        try:
            if _DAY.fullmatch(text):
                day = date.fromisoformat(text) + timedelta(days=ends)
                read = datetime.combine(day, time(), self._zone)
            else:
                read = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.problems.add(column, "must be a date or a time like 2026-11-30 or 2026-11-30T14:05:00Z")
            return None
        if not _YEARS[0] < read.year < _YEARS[1]:
            self.problems.add(column, f"must be between {_YEARS[0]} and {_YEARS[1]}")
            return None
        return (read if read.tzinfo else read.replace(tzinfo=self._zone)).astimezone(UTC)

    def past(self, column: str, now: datetime, *, required: bool = False) -> datetime | None:
        """Return when something happened."""
        at = self.moment(column, required=required)
        if at is not None and at > now:
            self.problems.add(column, "must not be in the future")
        return at

    def end(self, column: str, now: datetime) -> datetime | None:
        """Return when something ends."""
        at = self.moment(column, ends=True)
        if at is not None and at <= now:
            self.problems.add(column, "must be in the future")
        return at
