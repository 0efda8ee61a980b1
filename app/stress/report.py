"""What the races print: each outcome, with the expected one where that differs, and the verdict."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a race. `expected` and `found` are equal if its promise held."""

    race: str
    requests: int
    expected: str
    found: str
    seconds: float

    @property
    def held(self) -> bool:
        return self.expected == self.found

    def __str__(self) -> str:
        verdict, wanted = ("held  ", "") if self.held else ("BROKEN", f"; expected: {self.expected}")
        return f"{verdict}  {self.race} ({self.requests:,} requests, {self.seconds:.1f} s): {self.found}{wanted}"


def tell(outcomes: list[Outcome], left_out: list[str]) -> None:
    print(*outcomes, *left_out, sep="\n")
    broken = sum(not outcome.held for outcome in outcomes)
    print(f"{broken} of {len(outcomes)} broke." if broken else "Every promise held.")
