"""What the races say: what came of each one, beside what had to where that differs, and the verdict."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one race. `expected` and `found` are the same words when its promise held."""

    race: str
    requests: int
    expected: str
    found: str
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        return self.expected == self.found

    def __str__(self) -> str:
        """Tell it in a line."""
        verdict, wanted = ("held  ", "") if self.held else ("BROKEN", f"; it had to be {self.expected}")
        return f"{verdict}  {self.race} ({self.requests:,} requests, {self.seconds:.1f} s): {self.found}{wanted}"


def tell(outcomes: list[Outcome], left_out: list[str]) -> None:
    """Print the outcomes and the verdict."""
    print(*outcomes, *left_out, sep="\n")
    broken = sum(not outcome.held for outcome in outcomes)
    print(f"{broken} of {len(outcomes)} broke." if broken else "Every promise held.")
