"""Measure the ledger and say what was measured: a table, and JSON for those who compare runs.

Rates stand beside a floor: the raw driver doing the same rows with the same durability, in
the same run, in turns. The ratio is the figure to keep; the absolute ones are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import fleets
import machine
import rates
import scans
from places import DATABASES, Place, places

MEMORY_LIMIT = 150
"""Megabytes that verify, list and rebuild may take at their peak."""
COST_LIMIT = 0.02
"""The part of the writes that a fleet's heartbeats and looks at the registry may take."""
GAP_LIMIT = 20
"""Milliseconds that the event loop may be held up while verify runs."""


def main() -> int:
    options = _options()
    names = [options.database] if options.database else list(DATABASES)
    results: dict[str, Any] = {"machine": machine.describe(), "rates": [], "scans": [], "nodes": []}
    with places(names) as opened:
        for place in opened:
            results["machine"][place.database] = asyncio.run(machine.version(place))
        _print_machine(results["machine"])
        for part, run in {"rates": _rates, "scans": _scans, "nodes": _nodes}.items():
            if options.only in (None, part):
                for place in opened:
                    results[part] += run(place, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, help="only this one")
    parser.add_argument("--only", choices=["rates", "scans", "nodes"], help="only this part")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each rate (default 5)")
    parser.add_argument("--quick", action="store_true", help="small and short")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _print_machine(described: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in described.items()), flush=True)


def _rates(place: Place, options: argparse.Namespace) -> list[dict[str, Any]]:
    size = rates.QUICK if options.quick else rates.FULL
    print(f"\n{place.database}: rates, {options.rounds} rounds in turns", flush=True)
    print(f"  {'':<24}{'ours/s':>10}{'floor/s':>10}{'ratio':>8}   min to max of ours, of the ratio")
    found = []
    for rate in asyncio.run(rates.measure(place, size, options.rounds)):
        ours, floor, ratio = rate.ours, rate.floor, rate.ratio
        print(
            f"  {rate.name:<24}{ours.median:>10,.0f}{floor.median:>10,.0f}{ratio.median:>8.3f}"
            f"   {ours.low:,.0f} to {ours.high:,.0f}, {ratio.low:.3f} to {ratio.high:.3f}",
            flush=True,
        )
        found.append({"database": place.database, **rate.as_json()})
    return found


def _scans(place: Place, options: argparse.Namespace) -> list[dict[str, Any]]:
    events = 20_000 if options.quick else 200_000
    print(f"\n{place.database}: over {events:,} events, in processes of their own", flush=True)
    print(f"  {'':<24}{'events/s':>10}{'peak MB':>10}   event loop's gaps in ms")
    found = []
    for scan, *others in scans.measure(place, events, min(3, options.rounds)):
        peak = max(run.peak_mb for run in (scan, *others))
        speed = f"{events / scan.seconds:,.0f}" if scan.job != "idle" else ""
        over = [f"over {MEMORY_LIMIT} MB"] if peak >= MEMORY_LIMIT else []
        if scan.job == "verify full" and scan.gap_max_ms > GAP_LIMIT:
            # Where the machine is busy, the part that is ours tells.
            ours = scan.own_max_ms > GAP_LIMIT
            over.append(f"over {GAP_LIMIT} ms" + ("" if ours else ", the machine's doing"))
        print(
            f"  {scan.job:<24}{speed:>10}{peak:>10.0f}   p99 {scan.gap_p99_ms:.1f},"
            f" longest {scan.gap_max_ms:.1f}, our own work {scan.own_max_ms:.1f}"
            + "".join(f"; {text}" for text in over),
            flush=True,
        )
        found += [
            {"database": place.database, "events": events, **run.as_json()}
            for run in (scan, *others)
        ]
    return found


def _nodes(place: Place, options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = options.rounds
    seconds = 0.5 if options.quick else 2.0
    print(
        f"\n{place.database}: writes beside {fleets.NODES} nodes that beat {fleets.SOONER} times as"
        f" often as by default, {rounds} rounds in turns",
        flush=True,
    )
    print(f"  {'':<24}{'alone/s':>10}{'beside/s':>10}{'cost':>8}   min to max of the cost")
    found = []
    for fleet in asyncio.run(fleets.measure(place, seconds, rounds)):
        cost = fleet.cost
        over = f"; over {COST_LIMIT:.0%}" if cost.median > COST_LIMIT else ""
        print(
            f"  {fleet.name:<24}{fleet.alone.median:>10,.0f}{fleet.beside.median:>10,.0f}"
            f"{cost.median:>8.2%}   {cost.low:.2%} to {cost.high:.2%} (all at the default"
            f" interval); a beat took {fleet.late * 1e3:.0f} ms at its p95"
            f" ({fleet.own * 1e3:.1f} of the node's own processor), {fleet.failed} failed"
            f"{over}",
            flush=True,
        )
        found.append({"database": place.database, **fleet.as_json()})
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
