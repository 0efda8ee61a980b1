"""A snapshot as files: an SVG for people, and compact columns for programs; both are the same for the same network."""

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

import orjson

from app.graph.layout import FRAME, Layout
from app.graph.network import Network

_STYLE: Final = (
    "svg{background:#fbfcfe}.e{fill:none;stroke:#b4bfd3}.n{fill:none;stroke:#1d2f5f;stroke-linecap:round}"
    ".h{fill:#16a34a;stroke:#fbfcfe}text{font:11px system-ui,sans-serif;fill:#53607a}"
    "@media(prefers-color-scheme:dark){svg{background:#0d1424}.e{stroke:#35435f}.n{stroke:#9db4ec}"
    ".h{fill:#34d17a;stroke:#0d1424}text{fill:#93a1bd}}"
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is drawn: a measured network with its layout, the order of its nodes, and what is new."""

    taken_on: date
    network: Network
    layout: Layout
    order: list[int]
    new_edges: list[bool]
    new_hubs: frozenset[int]


def svg(sheet: Sheet) -> bytes:
    """Return the picture, compressed: members navy, hubs green and as large as their degree says."""
    network, positions = sheet.network, sheet.layout.positions
    unit = FRAME / sheet.layout.side
    dot = min(4.0, max(0.5, 0.3 * unit))
    hubs = network.hubs
    edges = "".join(
        f"M{_short(positions[a][0])} {_short(positions[a][1])}L{_short(positions[b][0])} {_short(positions[b][1])}"
        for a, b in network.links
    )
    dots = "".join(f"M{_short(x)} {_short(y)}h0" for position, (x, y) in enumerate(positions) if position not in hubs)
    circles = "".join(_circles(sheet, dot, hubs))
    caption = (
        f"{len(network.members):,} members · {len(network.edges):,} converted referrals · "
        f"{len(hubs):,} hubs · {sheet.taken_on.isoformat()}"
    )
    return _compressed(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-20 -20 1040 1064" role="img" aria-label="{caption}">'
        f'<style>{_STYLE}</style><path class="e" stroke-width="{_short(dot / 3)}" d="{edges}"/>'
        f'<path class="n" stroke-width="{_short(2 * dot)}" d="{dots}"/>{circles}'
        f'<text x="0" y="1034">{caption}</text></svg>'.encode()
    )


def columns(sheet: Sheet) -> bytes:
    """Return the network, compressed: nodes by degree, edges by position in them, coordinates in hundredths."""
    network = sheet.network
    at = {position: rank for rank, position in enumerate(sheet.order)}
    hubs = network.hubs
    points = [sheet.layout.positions[position] for position in sheet.order]
    return _compressed(
        orjson.dumps(
            {
                "takenOn": sheet.taken_on.isoformat(),
                "frame": FRAME,
                "unit": FRAME / sheet.layout.side,
                "labelPrefix": "Member ",
                "nodes": {
                    "label": [network.labels[position].removeprefix("Member ") for position in sheet.order],
                    "degree": [network.degrees[position] for position in sheet.order],
                    "recruited": [network.recruited[position] for position in sheet.order],
                    "community": [network.communities[position] for position in sheet.order],
                    "x": [round(x * 100) for x, _ in points],
                    "y": [round(y * 100) for _, y in points],
                },
                "hubs": sum(position in hubs for position in sheet.order),
                "newHubs": sorted(at[position] for position in sheet.new_hubs),
                "edges": {
                    "referrer": [at[referrer] for referrer, _ in network.links],
                    "referee": [at[referee] for _, referee in network.links],
                },
                "newEdges": [number for number, is_new in enumerate(sheet.new_edges) if is_new],
            }
        )
    )


def _circles(sheet: Sheet, dot: float, hubs: set[int]) -> Iterator[str]:
    # The largest last, on top.
    for position in reversed(sheet.order):
        if position in hubs:
            x, y = sheet.layout.positions[position]
            radius = dot * min(4.0, 1.2 + math.sqrt(sheet.network.degrees[position]) / 4)
            title = f"{sheet.network.labels[position]}: {sheet.network.degrees[position]}"
            yield (
                f'<circle class="h" cx="{_short(x)}" cy="{_short(y)}" r="{_short(radius)}" '
                f'stroke-width="{_short(dot / 4)}"><title>{title}</title></circle>'
            )


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _compressed(text: bytes) -> bytes:
    return gzip.compress(text, compresslevel=6, mtime=0)
