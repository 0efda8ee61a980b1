"""Measures, layout and files. Without these the picture could depend on the order of rows, or jump from day to day."""

import gzip
import json
import math
import random
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.graph.binary_copy import instant, packed, unpacked
from app.graph.draw import draw, frame, parts_of
from app.graph.layout import FRAME, Layout, Previous, equal_angle, lay_out
from app.graph.network import Edge, Network, hub_degree, labels, measure
from app.graph.packing import Disc, pack
from app.graph.picture import Sheet, columns, svg
from bench.networks import grown

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def _member(number: int) -> UUID:
    return UUID(int=random.Random(number).getrandbits(128))


@st.composite
def forests(draws: st.DrawFn, members_max: int = 60) -> list[Edge]:
    """Draw edges in which everybody was brought by at most one, and nobody by somebody that came later."""
    count = draws(st.integers(2, members_max))
    edges = []
    for number in range(1, count):
        brought_by = draws(st.none() | st.integers(0, number - 1))
        if brought_by is not None:
            edges.append(Edge(_member(brought_by), _member(number), BEGUN + timedelta(hours=draws(st.integers(0, 99)))))
    return edges


def _previous(network: Network, layout: Layout) -> Previous:
    return Previous(
        positions=dict(zip(network.members, layout.positions, strict=True)),
        side=layout.side,
        pairs=frozenset((edge.referrer, edge.referee) for edge in network.edges),
        hubs=frozenset(network.members[hub] for hub in network.hubs),
    )


def _sheet(network: Network, layout: Layout) -> Sheet:
    new = [False] * len(network.edges)
    return Sheet(date(2026, 1, 2), network, layout, list(range(len(network.members))), new, frozenset())


@settings(deadline=None, max_examples=60)
@given(edges=forests(), seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_equal_edges_and_an_equal_previous_snapshot_give_equal_bytes_in_any_order(
    edges: list[Edge], seed: int, cut: float
) -> None:
    earlier = measure(edges[: int(len(edges) * cut)])
    previous = _previous(earlier, lay_out(earlier))
    shuffled = edges.copy()
    random.Random(seed).shuffle(shuffled)
    files = []
    for each in (edges, shuffled):
        network = measure(each)
        sheet = _sheet(network, lay_out(network, previous))
        files.append((svg(sheet), columns(sheet), network.communities, network.labels))

    assert files[0] == files[1]


@settings(deadline=None, max_examples=60)
@given(edges=forests(), more=forests(20))
def test_everybody_is_in_the_frame_and_nobody_on_anothers_spot(edges: list[Edge], more: list[Edge]) -> None:
    network = measure(edges)
    first = lay_out(network)
    grown_on = measure([*edges, *(edge for edge in more if edge.referee not in set(network.members))])
    for measured, layout in ((network, first), (grown_on, lay_out(grown_on, _previous(network, first)))):
        assert len(layout.positions) == len(measured.members)
        assert all(math.isfinite(value) and 0 <= value <= FRAME for point in layout.positions for value in point)
        assert len(set(layout.positions)) == len(layout.positions)


@settings(deadline=None, max_examples=60)
@given(edges=forests())
def test_measures_are_those_of_the_edges(edges: list[Edge]) -> None:
    network = measure(edges)
    ends = [end for edge in edges for end in edge[:2]]

    assert {network.members[node]: degree for node, degree in enumerate(network.degrees)} == {
        member: ends.count(member) for member in set(ends)
    }
    assert sum(network.recruited) == len(edges)
    assert sorted(node for component in network.components for node in component.nodes) == list(
        range(len(network.members))
    )
    assert sum(len(component.links) for component in network.components) == len(edges)
    assert len(network.components) == len(network.members) - len(edges)
    assert {network.degrees[hub] for hub in network.hubs} <= set(range(3, len(edges) + 1))


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ([], 3),
        ([1, 1], 3),
        ([2, 1, 1], 3),
        ([4, 3, 1, 1, 1, 1, 1], 4),
        ([9, 8, *[1] * 98], 9),
        ([9, 8, *[1] * 99], 8),
        ([9, 9, 9, *[1] * 97], 9),
        ([3] * 200, 3),
    ],
)
def test_a_hub_is_in_the_top_percent_and_has_a_degree_of_three(degrees: list[int], expected: int) -> None:
    assert hub_degree(degrees) == expected


def test_labels_are_as_short_as_they_can_be() -> None:
    members = [UUID(int=0x1A2B), UUID(int=0xF1A2B), UUID(int=0x31A2B), UUID(int=0xFFFF)]

    assert labels(members) == ["Member 01a2b", "Member f1a2b", "Member 31a2b", "Member ffff"]


def test_a_star_is_a_ring_around_its_hub() -> None:
    points = equal_angle([[1, 2, 3, 4], [0], [0], [0], [0]], 2.0)

    assert [round(math.dist(points[0], point), 9) for point in points[1:]] == [2.0] * 4
    assert [tuple(round(value, 9) for value in point) for point in points[1:3]] == [
        (round(math.sqrt(2), 9), round(math.sqrt(2), 9)), (-round(math.sqrt(2), 9), round(math.sqrt(2), 9)),
    ]  # fmt: skip


def test_what_has_not_changed_stays_where_it_was_to_a_hundredth() -> None:
    network = measure(grown(500))
    first = lay_out(network)

    again = lay_out(network, _previous(network, first))

    moved = max(math.dist(*pair) for pair in zip(first.positions, again.positions, strict=True))
    # Discs stand on whole cells; a drawing is at most half of one away from where it was.
    assert moved <= FRAME / first.side
    assert again.side == first.side


def test_a_tree_of_thousands_has_room_for_everybody_and_is_drawn_the_same_each_time() -> None:
    chance = random.Random(1)
    network = measure(Edge(_member(chance.randrange(each)), _member(each), BEGUN) for each in range(1, 5500))

    layout = lay_out(network)

    assert len(network.components) == 1
    assert len(set(layout.positions)) == len(layout.positions)
    assert lay_out(network) == layout


def test_a_network_that_grows_by_a_hundredth_moves_by_less_than_a_hundredth_of_the_frame() -> None:
    edges = grown(3000)
    before = measure(edges[: len(edges) * 99 // 100])
    first = lay_out(before)
    after = measure(edges)

    second = lay_out(after, _previous(before, first))

    there = dict(zip(after.members, second.positions, strict=True))
    moves = [
        math.dist(there[member], point) / FRAME for member, point in zip(before.members, first.positions, strict=True)
    ]
    assert math.fsum(moves) / len(moves) < 0.01


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.5, 30), max_size=40), st.randoms(use_true_random=False))
def test_discs_never_overlap_wherever_they_would_like_to_be(radii: list[float], chance: random.Random) -> None:
    discs = [
        Disc(radius, (chance.uniform(-50, 50), chance.uniform(-50, 50)) if chance.random() < 0.5 else None, radius < 1)
        for radius in sorted(radii, reverse=True)
    ]
    centres = pack(discs)

    for number, (disc, centre) in enumerate(zip(discs, centres, strict=True)):
        for other, place in zip(discs[:number], centres[:number], strict=True):
            assert math.dist(centre, place) >= disc.radius + other.radius - 1e-9


def test_rows_come_out_as_they_went_in() -> None:
    when = datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=UTC)
    kinds = ("uuid", "int4", "float8", "bool", "timestamptz")
    row = (_member(1), -7, 2.5, True)

    assert list(unpacked(packed([(*row, instant(when))] * 2, *kinds), *kinds)) == [(*row, when)] * 2
    assert list(unpacked(packed([], "uuid"), "uuid")) == []


def test_a_message_that_was_cut_off_is_none() -> None:
    message = frame([b"one", b"", b"three"])

    assert parts_of(message) == [b"one", b"", b"three"]
    with pytest.raises(ValueError, match="cut off"):
        parts_of(message[:-1])


def test_a_drawing_is_the_same_message_for_the_same_message() -> None:
    edges = grown(120)
    rows = packed(
        ((edge.referrer, edge.referee, instant(edge.converted_at)) for edge in edges), "uuid", "uuid", "timestamptz"
    )
    ids = {"merchant_id": str(_member(1)), "snapshot_id": str(_member(2)), "taken_on": "2026-01-02", "side": None}
    message = frame([json.dumps(ids).encode(), rows, b"", b""])

    answer = draw(message)

    assert answer == draw(message)
    counts = json.loads(parts_of(answer)[0])
    assert (counts["member_count"], counts["referral_count"]) == (120, len(edges))
    assert gzip.decompress(parts_of(answer)[3]).startswith(b"<svg")
