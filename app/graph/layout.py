"""Coordinates for a network: every component drawn by itself, the way that suits its size, then all put into a frame.

What suits which size was measured (bench/graph_snapshot.py): small trees take Kamada and Kawai's springs, larger ones
Fruchterman and Reingold's at a low temperature, both begun from an equal-angle drawing of the tree, which has no
crossings. The rounds only part who would lie on each other, and each looks at all pairs that are near: a drawing of
thousands begins with room for them, and takes few. Yesterday's positions are today's beginning: a component that is as
it was stays as it was.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import igraph

from app.graph.network import Component, Network
from app.graph.packing import Disc, pack

Point = tuple[float, float]

#: The frame is a square: x and y run from 0 to this.
FRAME: Final = 1000.0
#: Up to this many members a component is drawn by springs between all pairs.
_SPRINGS_MAX: Final = 12
_ROUNDS: Final = 60
#: From this many members on the rounds are few, and the start has room: so much for each, in squared units.
_LARGE_MIN: Final = 5000
_LARGE_ROUNDS: Final = 10
_LARGE_AREA: Final = 0.3
#: How far (in edges' lengths) a member may move in the first round; later ones move less and less.
_TEMPERATURE: Final = 1.2
#: The equal-angle drawing's edges: long enough for the rounds to begin without crowds.
_START_LENGTH: Final = 3.0
#: The area that each member has at least, in squared units.
_AREA_MIN: Final = 1.0
#: A component is drawn afresh when it has grown past the next step of this ladder of sizes, and continued otherwise.
_AFRESH_STEP: Final = 1.5
_MARGIN: Final = 0.75
_SIDE_MIN: Final = 24.0
_SIDE_STEP: Final = 1.15
#: Yesterday's frame is kept while it is not this much larger than needed.
_SIDE_SLACK: Final = 1.5
_GOLDEN_ANGLE: Final = math.pi * (3 - math.sqrt(5))
_DIRECTIONS: Final = 12
_CLEARANCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Previous:
    """The snapshot before: where members were in its frame, the frame's side in units, and the pairs that were tied."""

    positions: Mapping[UUID, Point]
    side: float
    pairs: frozenset[tuple[UUID, UUID]]
    hubs: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each member is, along `Network.members`, and the side of the frame in units (about an edge's length)."""

    positions: list[Point]
    side: float


def lay_out(network: Network, previous: Previous | None = None) -> Layout:
    """Return coordinates within the frame, rounded to hundredths. The same arguments give the same coordinates."""
    before = _units(previous)
    tied = _Tied(frozenset() if previous is None else previous.pairs)
    drawn: list[list[Point]] = []
    discs: list[Disc] = []
    for component in network.components:
        points = _draw(network, component, before, tied)
        centre, radius = _enclosing(points)
        wanted = _wanted(network, component, points, before)
        drawn.append([(x - centre[0], y - centre[1]) for x, y in points])
        discs.append(
            Disc(radius + _MARGIN, None if wanted is None else _sum(centre, wanted), len(component.nodes) <= 2)
        )
    centres = pack(discs)
    side = _side(discs, centres, None if previous is None else previous.side)
    positions: list[Point] = [(0.0, 0.0)] * len(network.members)
    for component, points, (centre_x, centre_y) in zip(network.components, drawn, centres, strict=True):
        for node, (x, y) in zip(component.nodes, points, strict=True):
            positions[node] = (_framed(centre_x + x, side), _framed(centre_y + y, side))
    return Layout(positions, side)


def equal_angle(neighbours: list[list[int]], length: float) -> list[Point]:
    """Draw a connected graph's breadth-first tree from its busiest node, each subtree within a wedge as wide as it is
    large (Felsenstein's equal-angle drawing): edges have one length and don't cross.
    """  # fmt: skip
    root = max(range(len(neighbours)), key=lambda node: (len(neighbours[node]), -node))
    order, parents = [root], {root: root}
    for node in order:
        for other in neighbours[node]:
            if other not in parents:
                parents[other] = node
                order.append(other)
    sizes = [1] * len(neighbours)
    for node in reversed(order[1:]):
        sizes[parents[node]] += sizes[node]
    points: list[Point] = [(0.0, 0.0)] * len(neighbours)
    wedges = {root: (0.0, math.tau / max(1, sizes[root] - 1))}
    for node in order:
        start, width = wedges.pop(node)
        x, y = points[node]
        for other in neighbours[node]:
            if parents[other] == node and other != root:
                share = width * sizes[other]
                middle = start + share / 2
                points[other] = (x + length * math.cos(middle), y + length * math.sin(middle))
                wedges[other] = (start, share / max(1, sizes[other] - 1))
                start += share
    return points


def _units(previous: Previous | None) -> Mapping[UUID, Point]:
    if previous is None:
        return {}
    scale, half = previous.side / FRAME, previous.side / 2
    return {member: (x * scale - half, y * scale - half) for member, (x, y) in previous.positions.items()}


def _draw(network: Network, component: Component, before: Mapping[UUID, Point], tied: "_Tied") -> list[Point]:
    members = [network.members[node] for node in component.nodes]
    known = [before.get(member) for member in members]
    kept = [point for point in known if point is not None]
    if len(kept) == len(members) and tied.are_all_of(network, component):
        return kept
    if len(members) == 2:
        return _aligned([(0.0, 0.0), (1.0, 0.0)], known)
    neighbours: list[list[int]] = [[] for _ in members]
    for one, other in component.links:
        neighbours[one].append(other)
        neighbours[other].append(one)
    if len(members) > _SPRINGS_MAX and kept and _step(len(kept)) == _step(len(members)):
        return _continued(known, neighbours)
    start = equal_angle(neighbours, 1.0 if len(members) <= _SPRINGS_MAX else _START_LENGTH)
    return _aligned(_spread(_relaxed(members[0].int, component, start), component), known)


class _Tied:
    """Who was tied to whom yesterday, to tell the components that haven't changed."""

    def __init__(self, pairs: frozenset[tuple[UUID, UUID]]) -> None:
        self._pairs = pairs
        self._degrees = Counter(member for pair in pairs for member in pair)

    def are_all_of(self, network: Network, component: Component) -> bool:
        """Whether a component's links are those that its members had."""
        members = [network.members[node] for node in component.nodes]
        return all(
            self._degrees[member] == network.degrees[node]
            for member, node in zip(members, component.nodes, strict=True)
        ) and all((members[one], members[other]) in self._pairs for one, other in component.links)


def _step(size: int) -> int:
    return math.floor(math.log(size, _AFRESH_STEP))


def _continued(known: list[Point | None], neighbours: list[list[int]]) -> list[Point]:
    """Return where members were; new ones come beside somebody whom they know, where there is most room."""
    points = list(known)
    order = [node for node, point in enumerate(points) if point is not None]
    crowd: dict[tuple[int, int], list[Point]] = {}
    for node in order:
        x, y = points[node] or (0.0, 0.0)
        crowd.setdefault((math.floor(x), math.floor(y)), []).append((x, y))
    for node in order:
        anchor = points[node] or (0.0, 0.0)
        for turn, other in enumerate(neighbours[node]):
            if points[other] is None:
                x, y = points[other] = _roomiest(anchor, turn, crowd)
                crowd.setdefault((math.floor(x), math.floor(y)), []).append((x, y))
                order.append(other)
    return [point or (0.0, 0.0) for point in points]


def _roomiest(anchor: Point, turn: int, crowd: Mapping[tuple[int, int], list[Point]]) -> Point:
    """Return the first place around an anchor that is half a unit from all others, or the one that is the farthest."""
    best, room = anchor, -1.0
    for length in (1.0, 0.7, 1.4, 2.0):
        for number in range(_DIRECTIONS):
            angle = turn * _GOLDEN_ANGLE + math.tau * number / _DIRECTIONS
            place = (anchor[0] + length * math.cos(angle), anchor[1] + length * math.sin(angle))
            column, row = math.floor(place[0]), math.floor(place[1])
            clearance = min(
                (
                    math.dist(place, other)
                    for x in (column - 1, column, column + 1)
                    for y in (row - 1, row, row + 1)
                    for other in crowd.get((x, y), ())
                ),
                default=1.0,
            )
            if clearance >= _CLEARANCE:
                return place
            if clearance > room:
                best, room = place, clearance
    return best


def _relaxed(seed: int, component: Component, start: list[Point]) -> list[Point]:
    igraph.set_random_number_generator(random.Random(seed))  # noqa: S311  (repeatable, not secret)
    graph = igraph.Graph(len(start), component.links)
    if len(start) <= _SPRINGS_MAX:
        layout = graph.layout_kamada_kawai(seed=start, maxiter=50 * len(start))
    elif len(start) < _LARGE_MIN:
        layout = graph.layout_fruchterman_reingold(niter=_ROUNDS, seed=start, start_temp=_TEMPERATURE, grid="grid")
    else:
        layout = graph.layout_fruchterman_reingold(
            niter=_LARGE_ROUNDS, seed=_roomy(start), start_temp=_TEMPERATURE, grid="grid"
        )
    return [(x, y) for x, y in layout.coords]


def _roomy(points: list[Point]) -> list[Point]:
    """Scale a large drawing around its middle so that its members have room on average."""
    (middle_x, middle_y), radius = _enclosing(points)
    scale = math.sqrt(_LARGE_AREA * len(points) / math.pi) / radius
    return [((x - middle_x) * scale, (y - middle_y) * scale) for x, y in points]


def _spread(points: list[Point], component: Component) -> list[Point]:
    """Scale a drawing so that an edge is a unit long on average, or longer where members would be crowded."""
    length = math.fsum(math.dist(points[one], points[other]) for one, other in component.links) / len(component.links)
    _, radius = _enclosing(points)
    scale = max(1 / length, math.sqrt(_AREA_MIN * len(points) / math.pi) / radius)
    return [(x * scale, y * scale) for x, y in points]


def _aligned(points: list[Point], known: list[Point | None]) -> list[Point]:
    """Turn a drawing, or its mirror image, as close as can be to where its members were (Procrustes, in the plane)."""
    pairs = [(complex(*new), complex(*old)) for new, old in zip(points, known, strict=True) if old is not None]
    if len(pairs) < 2:
        return points
    middle_new = sum(new for new, _ in pairs) / len(pairs)
    middle_old = sum(old for _, old in pairs) / len(pairs)
    turned = sum((new - middle_new).conjugate() * (old - middle_old) for new, old in pairs)
    mirrored = sum((new - middle_new) * (old - middle_old) for new, old in pairs)
    turn = max(turned, mirrored, key=abs)
    if not abs(turn):
        return points
    turn /= abs(turn)
    moved = [complex(*point) - middle_new for point in points]
    if abs(mirrored) > abs(turned):
        moved = [point.conjugate() for point in moved]
    return [((point * turn).real, (point * turn).imag) for point in moved]


def _enclosing(points: list[Point]) -> tuple[Point, float]:
    """Return a circle around all points: the middle of their box, and as far as the farthest."""
    centre = (
        (min(x for x, _ in points) + max(x for x, _ in points)) / 2,
        (min(y for _, y in points) + max(y for _, y in points)) / 2,
    )
    return centre, max(math.dist(centre, point) for point in points)


def _wanted(network: Network, component: Component, points: list[Point], before: Mapping[UUID, Point]) -> Point | None:
    """Return by how much a drawing must be moved for its members to be, on average, where they were."""
    moves = [
        (before[network.members[node]][0] - x, before[network.members[node]][1] - y)
        for node, (x, y) in zip(component.nodes, points, strict=True)
        if network.members[node] in before
    ]
    if not moves:
        return None
    return math.fsum(x for x, _ in moves) / len(moves), math.fsum(y for _, y in moves) / len(moves)


def _sum(one: Point, other: Point) -> Point:
    return one[0] + other[0], one[1] + other[1]


def _side(discs: list[Disc], centres: list[Point], before: float | None) -> float:
    """Return the side of the frame: in steps, and yesterday's while it fits, so that it doesn't change every day."""
    reach = [max(abs(x), abs(y)) + disc.radius for disc, (x, y) in zip(discs, centres, strict=True)]
    needed = 2 * max(reach, default=0.0)
    if before is not None and needed <= before <= needed * _SIDE_SLACK:
        return before
    side = _SIDE_MIN
    while side < needed:
        side *= _SIDE_STEP
    return side


def _framed(value: float, side: float) -> float:
    return round(min(FRAME, max(0.0, (value / side + 0.5) * FRAME)), 2)
