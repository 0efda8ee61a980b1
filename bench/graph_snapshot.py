"""S6: a snapshot's CPU and memory, the quality of its layout, and its stability while the network grows.

Stress is normalised and sampled over pairs of members of one component: (distance drawn - distance in edges)^2 /
(distance in edges)^2, at the one scale that suits the whole picture best. Spread is the standard deviation of the
lengths of edges over their mean. Lower is better for both. [Comparisons](comparisons/RESULTS.md) has the same networks
laid out by other libraries; that takes longer.
"""

import asyncio
import json
import math
import os
import random
import subprocess
import sys
import time
from uuid import UUID

import igraph

from app.api.context import Viewer
from app.graph import draw, jobs
from app.graph.binary_copy import instant, packed
from app.graph.draw import frame, parts_of
from app.graph.layout import FRAME, Layout, Previous, lay_out
from app.graph.network import Edge, Network
from app.graph.network import measure as measured
from app.graph.take_snapshots import take_waiting
from app.merchants.create_merchant import create_merchant
from app.storage.database import database
from bench.networks import grown, store

Point = tuple[float, float]

SECONDS_MAX = {10_000: 2, 100_000: 15}


async def measure(_viewer: Viewer) -> list[str]:
    """Return the tables of S6."""
    lines = [
        "| network | CPU of the worker | CPU of its drawing process | together | goal | peak memory | goal | files |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for members, goal in SECONDS_MAX.items():
        edges = grown(members)
        own = await _taken(edges)
        drawing, megabytes, answer = await asyncio.to_thread(_drawn, _message(edges))
        parts = parts_of(answer)
        files = f"SVG {len(parts[3]) // 1024:,} KiB, JSON {len(parts[4]) // 1024:,} KiB"
        lines.append(
            f"| {members:,} members | {own:.2f} s | {drawing:.2f} s | {own + drawing:.2f} s | ≤ {goal} s "
            f"| {megabytes:.0f} MiB | < 1,024 MiB | {files} |"
        )
    return lines + await asyncio.to_thread(_layouts)


async def _taken(edges: list[Edge]) -> float:
    """Take a snapshot as a worker does. Returns this process's CPU seconds for reading, passing on and storing."""
    made = await create_merchant("Network", "USD")
    await store(made.id, edges)
    await database().row("ANALYZE")
    await jobs.request(made.id, "system")
    begun = time.process_time()
    taken = [await take_waiting(is_large=is_large, seconds_max=60) for is_large in (False, True)]
    if sum(taken) != 1:
        raise RuntimeError("a measured snapshot wasn't taken")
    return time.process_time() - begun


def _layouts() -> list[str]:
    lines = ["", "| layout of | CPU | stress | spread |", "|---|---|---|---|"]
    for members in SECONDS_MAX:
        network = measured(grown(members))
        begun = time.process_time()
        layout = lay_out(network)
        seconds = time.process_time() - begun
        stress, spread = quality(network, layout.positions)
        lines.append(f"| {members:,} members | {seconds:.2f} s | {stress:.2f} | {spread:.2f} |")
    return [*lines, "", *_days(measured(grown(min(SECONDS_MAX))))]


def _message(edges: list[Edge]) -> bytes:
    header = {
        "merchant_id": str(UUID(int=1)), "snapshot_id": str(UUID(int=2)), "taken_on": "2026-01-01", "side": None,
    }  # fmt: skip
    rows = packed(((edge.referrer, edge.referee, instant(edge.converted_at)) for edge in edges), *draw.EDGE)
    return frame([json.dumps(header).encode(), rows, b"", b""])


def _drawn(message: bytes) -> tuple[float, float, bytes]:
    """Run the drawing process. Returns its CPU seconds, its peak resident MiB, and its answer."""
    process = subprocess.Popen([sys.executable, "-m", "app.graph.draw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process without pipes")
    process.stdin.write(frame([message]))
    process.stdin.close()
    answer = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError("a measured drawing failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, parts_of(answer)[0]


def quality(network: Network, positions: list[Point], seed: int = 7) -> tuple[float, float]:
    """Return a layout's normalised stress, sampled from 300 members with up to 40 others each, and edge spread."""
    chance = random.Random(seed)
    graph = igraph.Graph(len(network.members), network.links)
    component_of = {node: component for component in network.components for node in component.nodes}
    pairs: list[tuple[float, int]] = []
    for source in (chance.randrange(len(positions)) for _ in range(300)):
        nodes = component_of[source].nodes
        targets = [target for target in chance.sample(nodes, min(len(nodes), 40)) if target != source]
        ties = graph.distances(source, targets)[0]
        pairs += [
            (math.dist(positions[source], positions[target]), tie) for target, tie in zip(targets, ties, strict=True)
        ]
    scale = sum(drawn / tie for drawn, tie in pairs) / sum((drawn / tie) ** 2 for drawn, tie in pairs)
    stress = sum((scale * drawn / tie - 1) ** 2 for drawn, tie in pairs) / len(pairs)
    lengths = [math.dist(positions[one], positions[other]) for one, other in network.links]
    mean = sum(lengths) / len(lengths)
    return stress, math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths)) / mean


def _days(network: Network) -> list[str]:
    """Return how far members move, and how good the layout stays, while the network grows by a hundredth a day."""
    edges = network.edges
    start = len(edges) * 9 // 10
    step = (len(edges) - start) // 10
    seen = measured(edges[:start])
    layout = lay_out(seen)
    moves: list[float] = []
    for day in range(1, 11):
        before, drawn = seen, layout
        seen = measured(edges[: start + day * step])
        layout = lay_out(seen, _previous(before, drawn))
        there = dict(zip(seen.members, layout.positions, strict=True))
        moved = [math.dist(there[m], point) / FRAME for m, point in zip(before.members, drawn.positions, strict=True)]
        moves.append(sum(moved) / len(moved))
    stress, spread = quality(seen, layout.positions)
    fresh_stress, fresh_spread = quality(seen, lay_out(seen).positions)
    return [
        f"In ten days of growth by a hundredth, members move by {100 * sum(moves) / 10:.2f} % of the frame a day on",
        f"average, and by {100 * max(moves):.2f} % on the worst day. Afterwards stress is {stress:.2f} and spread",
        f"{spread:.2f}; drawn afresh they would be {fresh_stress:.2f} and {fresh_spread:.2f}.",
    ]


def _previous(network: Network, layout: Layout) -> Previous:
    return Previous(
        positions=dict(zip(network.members, layout.positions, strict=True)),
        side=layout.side,
        pairs=frozenset((edge.referrer, edge.referee) for edge in network.edges),
        hubs=frozenset(),
    )
