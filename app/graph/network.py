"""The network as it is measured: who is in it, how much each one brings, and which ones hang together."""

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import igraph

#: No member with fewer referrals, made and taken, is a hub.
HUB_DEGREE_MIN: Final = 3
#: A community is a whole component up to this size; larger ones are divided.
COMMUNITY_WHOLE_MAX: Final = 30
LABEL_DIGITS_MIN: Final = 4


class Edge(NamedTuple):
    """A converted referral."""

    referrer: UUID
    referee: UUID
    converted_at: datetime


@dataclass(frozen=True, slots=True)
class Component:
    """Members that hang together, as positions in `Network.members`, ascending; `links` are positions in `nodes`."""

    nodes: list[int]
    links: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Network:
    """A measured network; lists run along `members`, which are ordered by id."""

    members: list[UUID]
    edges: list[Edge]
    links: list[tuple[int, int]]
    degrees: list[int]
    recruited: list[int]
    hub_degree: int
    components: list[Component]
    communities: list[int]
    labels: list[str]

    @property
    def hubs(self) -> set[int]:
        """The positions of the hubs."""
        return {position for position, degree in enumerate(self.degrees) if degree >= self.hub_degree}


def measure(edges: Iterable[Edge]) -> Network:
    """Measure the network of these edges, which may come in any order; equal edges count once.

    Edges are ordered by when they converted. Components are ordered by size, the largest first.
    """
    ordered = sorted(set(edges), key=lambda edge: (edge.converted_at, edge.referee, edge.referrer))
    members = sorted({edge.referrer for edge in ordered} | {edge.referee for edge in ordered})
    position = {member: number for number, member in enumerate(members)}
    links = [(position[edge.referrer], position[edge.referee]) for edge in ordered]
    degrees, recruited = [0] * len(members), [0] * len(members)
    for referrer, referee in links:
        degrees[referrer] += 1
        degrees[referee] += 1
        recruited[referrer] += 1
    components = _components(len(members), links)
    return Network(
        members=members,
        edges=ordered,
        links=links,
        degrees=degrees,
        recruited=recruited,
        hub_degree=hub_degree(degrees),
        components=components,
        communities=_communities(members, components),
        labels=labels(members),
    )


def hub_degree(degrees: list[int]) -> int:
    """Return the degree from which a member is a hub.

    A hub has a degree of at least 3, and fewer than one percent of the members (rounded up to whole ones) have a
    higher degree: the percent is counted in members, and whoever ties with the last of them is a hub too.
    """
    if not degrees:
        return HUB_DEGREE_MIN
    top = sorted(degrees, reverse=True)
    return max(HUB_DEGREE_MIN, top[math.ceil(len(top) / 100) - 1])


def labels(members: list[UUID]) -> list[str]:
    """Return a label for each member: the end of its id, as long as it takes to be the only one. It tells no name."""
    ends = [member.hex[::-1] for member in members]
    shared = dict.fromkeys(ends, 0)
    for one, next_one in itertools.pairwise(sorted(ends)):
        common = next(number for number in range(len(one) + 1) if one[: number + 1] != next_one[: number + 1])
        shared[one] = max(shared[one], common)
        shared[next_one] = max(shared[next_one], common)
    return [f"Member {end[: max(LABEL_DIGITS_MIN, shared[end] + 1)][::-1]}" for end in ends]


def _components(count: int, links: list[tuple[int, int]]) -> list[Component]:
    membership = igraph.Graph(count, links).connected_components().membership
    nodes: dict[int, list[int]] = {}
    local = [0] * count
    for position, number in enumerate(membership):
        inside = nodes.setdefault(number, [])
        local[position] = len(inside)
        inside.append(position)
    inner: dict[int, list[tuple[int, int]]] = {number: [] for number in nodes}
    for referrer, referee in links:
        inner[membership[referrer]].append((local[referrer], local[referee]))
    found = [Component(nodes[number], inner[number]) for number in nodes]
    return sorted(found, key=lambda component: (-len(component.nodes), component.nodes[0]))


def _communities(members: list[UUID], components: list[Component]) -> list[int]:
    """Return each member's community, numbered from 0, the largest first (Blondel et al. 2008 within components)."""
    groups: list[list[int]] = []
    for component in components:
        if len(component.nodes) <= COMMUNITY_WHOLE_MAX:
            groups.append(component.nodes)
            continue
        igraph.set_random_number_generator(random.Random(members[component.nodes[0]].int))  # noqa: S311  (repeatable)
        graph = igraph.Graph(len(component.nodes), component.links)
        groups += [[component.nodes[inside] for inside in group] for group in graph.community_multilevel()]
    communities = [0] * len(members)
    for number, group in enumerate(sorted(groups, key=lambda group: (-len(group), min(group)))):
        for position in group:
            communities[position] = number
    return communities
