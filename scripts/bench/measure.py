"""Measure ours, the floor and the peer in one run, and print the figures.

Ours is the ledger. The floor is the raw driver with the same durability (sqlite3 in WAL mode
with synchronous=FULL; asyncpg): the best that the machine can give. The peer is the library that
a user would take instead: eventsourcing with its AES cipher, flushed to disk alike. All write
values of 200 bytes. They take turns, so that a busy machine affects all of them. The result is the
median of the rounds, with the lowest and the highest. Keep the ratios: the absolute figures are
this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import boots
import chart
import fleets
import gets
import growth
import keys
import machine
import puts
import replays
import scans
import table
import walks
from apart import Job
from fleets import NODES, SOONER
from given import FULL, QUICK, Given
from places import DATABASES, places
from seeds import Seeds
from targets import judge

__all__ = ["main"]


async def _scans(given: Given) -> list[dict[str, Any]]:
    table.print_scans_head()
    found: list[Job] = []
    async for runs in scans.measure(given):
        table.print_scan(runs)
        found += runs
    return [asdict(job) for job in found]


async def _nodes(given: Given) -> list[dict[str, Any]]:
    costs = await fleets.measure(given)
    table.print_fleets(costs)
    return [asdict(cost) for cost in costs]


async def _growth(given: Given) -> list[dict[str, Any]]:
    table.print_stages_head()
    found = []
    async for stage in growth.measure(given):
        table.print_stage(stage)
        found.append(asdict(stage))
    return found


_COMPARISONS: Final = {
    "puts": puts.measure,
    "gets": gets.measure,
    "replays": replays.measure,
    "boots": boots.measure,
    "keys": keys.measure,
    "walks": walks.measure,
}
_OTHERS: Final = {"scans": _scans, "nodes": _nodes, "growth": _growth}
"""Parts that measure only ours."""
_PARTS: Final = {
    "puts": "writes, one at a time, by many callers, by several processes",
    "gets": "reads from the database and from memory, by version, and the list",
    "replays": "every event read and opened; the projection made anew",
    "boots": "a process opens a ledger, for the first time and again",
    "keys": "the heads, and the whole history, sealed anew under another key",
    "walks": "old versions of a secret, proven by the chain from its newest one",
    "scans": "long jobs, their peak memory, and how long they hold up the event loop",
    "growth": "one ledger that gets longer: what stays as it was, and what does not",
    "nodes": f"writes beside {NODES} nodes that beat {SOONER} times as often as they would",
}


def main() -> int:
    options = _options()
    wanted = [options.database] if options.database else list(DATABASES)
    size = QUICK if options.quick else FULL
    if options.large:
        size = replace(size, events=1_000_000, longest=10_000_000)
    results: dict[str, Any] = {"machine": machine.describe(), "outcomes": []}
    with places(wanted) as opened:
        for place in opened:
            results["machine"][place.database] = asyncio.run(machine.version(place))
        table.print_machine(results["machine"])
        for place in opened:
            given = Given(place, Seeds(place), size, options.rounds)
            for part in options.only:
                _measure(part, given, results)
                _write(results, options)
    table.print_variants(results["outcomes"])
    table.print_targets(results["outcomes"])
    return 0


def _measure(part: str, given: Given, results: dict[str, Any]) -> None:
    database = given.place.database
    table.print_title(database, _PARTS[part])
    if part in _OTHERS:
        found = asyncio.run(_OTHERS[part](given))
        results.setdefault(part, []).extend({"database": database, **each} for each in found)
        return
    outcomes = asyncio.run(_COMPARISONS[part](given))
    table.print_outcomes(outcomes)
    results["outcomes"] += [
        {
            "database": database,
            "part": part,
            **asdict(outcome),
            "targets": [asdict(verdict) for verdict in judge(database, outcome)],
        }
        for outcome in outcomes
    ]


def _write(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes after each part: somebody may end a long run early."""
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    if options.chart:
        options.chart.write_text(chart.draw(results), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {part:<9}{title}" for part, title in _PARTS.items()),
    )
    parser.add_argument(
        "--only",
        choices=list(_PARTS),
        action="append",
        metavar="PART",
        help="only this part (may be given several times); default: all of them",
    )
    parser.add_argument("--database", choices=DATABASES, help="only this one; default: both")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="turns of each contender (default 5)"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="a million events for the long jobs, not 200,000; growth to ten million, not one",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small and short: whether it runs, not a figure"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw the ratios to the peer there, as SVG"
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.only = options.only or list(_PARTS)
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
