"""What `flash doctor` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found about one thing. `advice` is empty when nothing is wrong."""

    what: str
    state: str
    advice: str = ""
