"""Discs put beside each other without overlaps: large ones inside, the smallest in a tidy rim, each where it was."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

Point = tuple[float, float]

_DIAMETER_MIN: Final = 3
_DIAMETER_STEP: Final = 1.2
#: A disc whose place is taken looks around it this far (in cells, or twelfths of its diameter if that is more) before
#: it looks from the middle.
_NEARBY: Final = 12


@dataclass(frozen=True, slots=True)
class Disc:
    """What takes part: its radius in units, where it would like to be, and whether it belongs into the rim."""

    radius: float
    wanted: Point | None
    in_rim: bool


@dataclass(slots=True)
class _Cells:
    """A plane of cells, one unit wide; a row is the set of its taken cells, as bits."""

    half: int
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [0] * (2 * self.half)

    def take(self, mask: list[tuple[int, int]], left: int, top: int) -> bool:
        """Take the cells of a mask at a place, if all are free."""
        column, row = left + self.half, top + self.half
        if not (0 <= column <= 2 * self.half - len(mask) and 0 <= row <= 2 * self.half - len(mask)):
            return False
        rows = self.rows
        for offset, bits in mask:
            if rows[row + offset] & (bits << column):
                return False
        for offset, bits in mask:
            rows[row + offset] |= bits << column
        return True


def pack(discs: list[Disc]) -> list[Point]:
    """Return the centre of each disc, around (0, 0). Discs come largest first.

    A new disc gets a place of the next size in steps of a fifth, so that it can grow a little without moving.
    """
    diameters = [_diameter(disc) for disc in discs]
    reach = math.sqrt(sum(diameter * diameter for diameter in diameters) / math.pi)
    wanted = [max(abs(x) for x in disc.wanted) for disc in discs if disc.wanted is not None]
    half = math.ceil(max(2 * reach, *wanted, 0.0) + 2 * max(diameters, default=0)) + _NEARBY
    cells = _Cells(half)
    masks = {diameter: _mask(diameter) for diameter in set(diameters)}
    searches: dict[tuple[int, bool], Iterator[tuple[int, int]]] = {}
    centres: list[Point] = []
    outermost = 0.0
    for disc, diameter in zip(discs, diameters, strict=True):
        mask = masks[diameter]
        found = None if disc.wanted is None else _near(cells, mask, disc.wanted)
        if found is None:
            key = (diameter, disc.in_rim)
            if key not in searches:
                searches[key] = _outwards(half, diameter, outermost if disc.in_rim else 0.0)
            found = next(place for place in searches[key] if cells.take(mask, *place))
        centre = (found[0] + diameter / 2, found[1] + diameter / 2)
        centres.append(centre)
        if not disc.in_rim:
            outermost = max(outermost, math.hypot(*centre) + diameter / 2)
    return centres


def _diameter(disc: Disc) -> int:
    """Return a whole number of cells: with room to grow for what is new, and no more than needed for what was there."""
    diameter = _DIAMETER_MIN
    while diameter < 2 * disc.radius:
        diameter = max(diameter + 1, round(diameter * _DIAMETER_STEP))
    return diameter if disc.wanted is None else max(_DIAMETER_MIN, math.ceil(2 * disc.radius))


def _mask(diameter: int) -> list[tuple[int, int]]:
    """Return the rows of a disc, each with the bits of its cells; small ones are squares."""
    if diameter <= 4:
        return [(row, (1 << diameter) - 1) for row in range(diameter)]
    radius, mask = diameter / 2, []
    for row in range(diameter):
        # The widest part of the row is on its side towards the middle.
        towards = max(0.0, abs(row + 0.5 - radius) - 0.5)
        width = min(diameter, 2 * math.ceil(math.sqrt(radius * radius - towards * towards)) + diameter % 2)
        mask.append((row, ((1 << width) - 1) << ((diameter - width) // 2)))
    return mask


def _near(cells: _Cells, mask: list[tuple[int, int]], wanted: Point) -> tuple[int, int] | None:
    """Take the nearest free place around a wanted centre, if there is one nearby; larger discs look farther."""
    left, top = round(wanted[0] - len(mask) / 2), round(wanted[1] - len(mask) / 2)
    step = max(1, len(mask) // _NEARBY)
    for x, y in _AROUND:
        if cells.take(mask, left + x * step, top + y * step):
            return left + x * step, top + y * step
    return None


def _outwards(half: int, diameter: int, least: float) -> Iterator[tuple[int, int]]:
    """Yield places for discs of a diameter from the middle outwards, or from a distance on; larger ones coarsely."""
    step = diameter if diameter == _DIAMETER_MIN else max(1, diameter // 2)
    inner = math.floor(least / step)
    for ring in range(inner, math.ceil(half * math.sqrt(2) / step) + 1):
        places: list[tuple[int, int]] = []
        for x in range(-ring - 1, ring + 2):
            outer = (ring + 1) * (ring + 1) - x * x
            if outer <= 0:
                continue
            low, high = ring * ring - x * x, math.isqrt(outer - 1)
            lowest = 0 if low <= 0 else math.isqrt(low - 1) + 1
            for y in range(lowest, high + 1):
                places += [(x, y), (x, -y)] if y else [(x, y)]
        places.sort(key=lambda place: (place[0] ** 2 + place[1] ** 2, math.atan2(place[1], place[0])))
        for x, y in places:
            if math.hypot(x, y) * step >= least:
                yield x * step - diameter // 2, y * step - diameter // 2


_AROUND: Final = sorted(
    ((x, y) for x in range(-_NEARBY, _NEARBY + 1) for y in range(-_NEARBY, _NEARBY + 1) if math.hypot(x, y) <= _NEARBY),
    key=lambda place: (place[0] ** 2 + place[1] ** 2, place),
)
