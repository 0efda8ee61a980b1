"""The process that draws snapshots: rows from stdin, rows and files to stdout, and nothing else to touch.

It is a process of its own so that a large network stops no event loop, and can be bounded and killed. It draws one
snapshot after the other, until nobody asks for more: starting it costs more than a small network.
"""

import itertools
import math
import os
import resource
import struct
import sys
import time
from collections.abc import Iterable
from datetime import date
from typing import BinaryIO, Final, cast
from uuid import UUID

import orjson

from app.graph.binary_copy import FIRST_NODES, instant, packed, unpacked
from app.graph.layout import Layout, Previous, lay_out
from app.graph.network import Edge, Network, measure
from app.graph.picture import Sheet, columns, svg

#: For each 100,000 referrals begun, up to four times.
MEMORY_BYTES_MAX: Final = 1 << 30
_REFERRALS_PER_MEMORY: Final = 100_000
_MEMORIES_MAX: Final = 4
#: For each drawing.
CPU_SECONDS_MAX: Final = 120
#: A picture that is a second late harms nobody; a claim that waits for a processor does.
NICENESS: Final = 5

EDGE: Final = ("uuid", "uuid", "timestamptz")
#: A row of them, with the sizes that COPY writes.
_EDGE_BYTES: Final = 2 + 3 * 4 + 16 + 16 + 8
PREVIOUS_NODE: Final = ("uuid", "float8", "float8", "bool")
PREVIOUS_EDGE: Final = ("uuid", "uuid")
NODE: Final = (
    "uuid", "uuid", "int4", "uuid", "text", "int4", "int4", "bool", "bool", "int4", "float8", "float8",
)  # fmt: skip
STORED_EDGE: Final = ("uuid", "uuid", "int4", "uuid", "uuid", "timestamptz", "bool")


def frame(parts: Iterable[bytes]) -> bytes:
    """Return parts as one message: each after its length."""
    return b"".join(struct.pack(">q", len(part)) + part for part in parts)


def parts_of(message: bytes) -> list[bytes]:
    """Return the parts of a message. Raises ValueError for one that was cut off."""
    parts, at = [], 0
    while at < len(message):
        size = int.from_bytes(message[at : at + 8])
        at += 8 + size
        if at > len(message):
            raise ValueError("a message of a drawing process was cut off")
        parts.append(message[at - size : at])
    return parts


def draw(message: bytes) -> bytes:
    """Return the snapshot of a message: its counts, nodes, edges, SVG, JSON and first nodes (lists, by their rank).

    Pure: equal in, equal out.
    """
    header, edges, previous_nodes, previous_edges = parts_of(message)
    asked = orjson.loads(header)
    merchant_id, snapshot_id = UUID(asked["merchant_id"]), UUID(asked["snapshot_id"])
    network = measure(cast("Iterable[Edge]", (Edge(*row) for row in unpacked(edges, *EDGE))))  # type: ignore[arg-type]
    previous = _previous(asked["side"], previous_nodes, previous_edges)
    layout = lay_out(network, previous)
    hubs = network.hubs
    order = sorted(
        range(len(network.members)),
        key=lambda node: (-network.degrees[node], -network.recruited[node], network.members[node]),
    )
    new_hubs = frozenset() if previous is None else frozenset(
        node for node in hubs if network.members[node] not in previous.hubs
    )  # fmt: skip
    new_edges = [previous is not None and (edge.referrer, edge.referee) not in previous.pairs for edge in network.edges]
    pairs = {(edge.referrer, edge.referee) for edge in network.edges}
    counts = {
        "member_count": len(network.members),
        "referral_count": len(network.edges),
        "component_count": len(network.components),
        "community_count": max(network.communities, default=-1) + 1,
        "hub_count": len(hubs),
        "hub_degree": network.hub_degree,
        "new_referral_count": sum(new_edges),
        "lost_referral_count": 0 if previous is None else len(previous.pairs - pairs),
        "new_hub_count": len(new_hubs),
        "side": layout.side,
    }
    sheet = Sheet(date.fromisoformat(asked["taken_on"]), network, layout, order, new_edges, new_hubs)
    return frame(
        [
            orjson.dumps(counts),
            packed(_nodes(merchant_id, snapshot_id, sheet), *NODE),
            packed(_edges(merchant_id, snapshot_id, sheet), *STORED_EDGE),
            svg(sheet),
            columns(sheet),
            orjson.dumps([row[2:] for row in itertools.islice(_nodes(merchant_id, snapshot_id, sheet), FIRST_NODES)]),
        ]
    )


def _previous(side: float | None, nodes: bytes, edges: bytes) -> Previous | None:
    if side is None:
        return None
    rows = cast("list[tuple[UUID, float, float, bool]]", list(unpacked(nodes, *PREVIOUS_NODE)))
    return Previous(
        positions={member: (x, y) for member, x, y, _ in rows},
        side=side,
        pairs=frozenset(cast("Iterable[tuple[UUID, UUID]]", unpacked(edges, *PREVIOUS_EDGE))),
        hubs=frozenset(member for member, _, _, is_hub in rows if is_hub),
    )


def _nodes(merchant_id: UUID, snapshot_id: UUID, sheet: Sheet) -> Iterable[tuple[object, ...]]:
    network: Network = sheet.network
    layout: Layout = sheet.layout
    hubs = network.hubs
    for rank, node in enumerate(sheet.order):
        yield (
            merchant_id, snapshot_id, rank, network.members[node], network.labels[node], network.degrees[node],
            network.recruited[node], node in hubs, node in sheet.new_hubs, network.communities[node],
            *layout.positions[node],
        )  # fmt: skip


def _edges(merchant_id: UUID, snapshot_id: UUID, sheet: Sheet) -> Iterable[tuple[object, ...]]:
    newest_first = zip(reversed(sheet.network.edges), reversed(sheet.new_edges), strict=True)
    for rank, (edge, is_new) in enumerate(newest_first):
        yield merchant_id, snapshot_id, rank, edge.referrer, edge.referee, instant(edge.converted_at), is_new


def referrals_in(message: bytes) -> int:
    """Return how many referrals a message has, by the length of its second part."""
    at = 8 + int.from_bytes(message[:8])
    return int.from_bytes(message[at : at + 8]) // _EDGE_BYTES


def memory_bytes_max(referrals: int) -> int:
    """Return how much memory a drawing of so many referrals may take."""
    return MEMORY_BYTES_MAX * min(_MEMORIES_MAX, max(1, math.ceil(referrals / _REFERRALS_PER_MEMORY)))


def main(source: BinaryIO, target: BinaryIO) -> None:
    """Draw what comes in, within bounds of memory and time that the kernel holds, when nobody else wants to run.

    A message and its answer each come after their length.
    """
    os.nice(NICENESS)
    # Whoever is over its time would leave a dump of its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while length := source.read(8):
        message = source.read(int.from_bytes(length))
        _limit(resource.RLIMIT_AS, memory_bytes_max(referrals_in(message)))
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + CPU_SECONDS_MAX)
        target.write(frame([draw(message)]))
        target.flush()


def _limit(kind: int, amount: int) -> None:
    """Set a limit of this process. The hard one stays, as it could never be raised again for a later drawing."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
