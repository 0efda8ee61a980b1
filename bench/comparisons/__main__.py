"""`python -m bench.comparisons`: the same work by other means, measured in one run; writes RESULTS.md beside this file.

First run `npm install --no-package-lock` in this directory and `pip install networkx scipy`. `python -m
bench.comparisons claims` or `layouts` measures one of the two and leaves the other's part of the file.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.graph.layout import lay_out
from app.graph.network import Network, measure
from bench.comparisons import claims
from bench.graph_snapshot import Point, quality
from bench.networks import grown
from bench.world import run

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
MEMBERS = (2_000, 10_000, 100_000)
#: CPU seconds that a library gets for one layout.
SECONDS_MAX = 120
OTHERS = {
    "d3-force": ["node", "layouts.mjs", "d3"],
    "graphology ForceAtlas2": ["node", "layouts.mjs", "forceAtlas2"],
    "networkx spring_layout": [sys.executable, "spring.py"],
}


def main() -> None:
    """Measure, print and write the parts that were asked for, or both."""
    for part in sys.argv[1:] or PARTS:
        title, measured = PARTS[part]
        try:
            lines = [f"# {title}", "", f"Written by `python -m bench.comparisons {part}`.", "", *measured()]
        except FileNotFoundError as missing:
            print(f"SKIPPED {part}: {missing}. What was measured before stands.", file=sys.stderr, flush=True)
            continue
        print("\n".join(lines), flush=True)
        written = re.split(r"^(?=# )", RESULTS.read_text(), flags=re.MULTILINE) if RESULTS.exists() else []
        kept = [each.strip() for each in written if each.strip() and not each.startswith(f"# {title}\n")]
        RESULTS.write_text("\n\n".join(sorted([*kept, "\n".join(lines)])) + "\n")


def _claims() -> list[str]:
    return run(claims.measure)


def _layouts() -> list[str]:
    lines = [
        "Stress and spread are as in [S6](../RESULTS.md), lower is better.",
        f"d3-force and ForceAtlas2 have 300 rounds and networkx 50; each gets {SECONDS_MAX} s of CPU for a layout.",
    ]
    for members in MEMBERS:
        network = measure(grown(members))
        begun = time.process_time()
        ours = lay_out(network)
        own = time.process_time() - begun
        lines += ["", f"## {members:,} members", ""]
        lines += ["| layout | CPU | against ours | stress | spread |", "|---|---|---|---|---|"]
        lines.append(_line("ours", own, own, network, ours.positions))
        lines += [_compared(name, command, own, network) for name, command in OTHERS.items()]
    return lines


def _compared(name: str, command: list[str], own: float, network: Network) -> str:
    """Lay the network out with another library, in a process of its own."""
    asked = json.dumps({"count": len(network.members), "links": network.links, "which": command[-1]})
    run = subprocess.run(
        ["sh", "-c", f'ulimit -t {SECONDS_MAX} && exec "$@"', "sh", *command],
        cwd=HERE, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, input=asked,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        return f"| {name} | stopped after {SECONDS_MAX} s | | | |"
    run.check_returncode()
    answer = json.loads(run.stdout)
    return _line(name, answer["seconds"], own, network, [(x, y) for x, y in answer["positions"]])


def _line(name: str, seconds: float, own: float, network: Network, positions: list[Point]) -> str:
    stress, spread = quality(network, positions)
    return f"| {name} | {seconds:.2f} s | {seconds / own:.1f} | {stress:.2f} | {spread:.2f} |"


PARTS = {"claims": ("Claims, side by side", _claims), "layouts": ("Layouts, side by side", _layouts)}

if __name__ == "__main__":
    main()
