"""Reasons that people give for a change: checked, and encrypted for the event that records it."""

from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems

REASON_LENGTH_MAX: Final = 500


def sealed(viewer: Viewer, reason: str) -> tuple[UUID, bytes]:
    """Return the id of the event to record, and the reason encrypted for it. Raises Refused(InvalidInput)."""
    problems = Problems()
    checked = problems.text("reason", reason, length_max=REASON_LENGTH_MAX)
    problems.refuse_if_any()
    return seal(viewer, checked)


def seal(viewer: Viewer, checked: str) -> tuple[UUID, bytes]:
    """Return the id of the event to record, and a checked reason encrypted for it."""
    event_id = ids.new()
    return event_id, viewer.tenant.keys.encrypt(event_id, "reason", checked)
