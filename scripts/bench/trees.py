"""This tree beside another revision of it: the cost of a change for a boot, a get and a put.

Each tree works in a process of its own, on a database of its own with the same secrets. The two
take turns, each before the other as often as after it. The result is the median of the ratios of
the turns (time of this tree to time of the other), with its 95 % interval. The interval comes from
the medians of many random draws of the same ratios (Efron, Bootstrap Methods, 1979).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import machine
import table
from lines import Child, child
from places import DATABASES, Place, places
from progress import clear, say
from secret_ledger import Key

__all__ = ["main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_WORKER: Final = Path(__file__).with_name("tree.py")
_SECONDS: Final = {"boot": 0.0, "get": 0.3, "put": 0.5}
"""Seconds that a turn takes. A turn of `boot` is one boot."""
_SECRETS: Final = 20_000
_DRAWS: Final = 5_000


def main() -> int:
    options = _options()
    wanted = [options.database] if options.database else list(DATABASES)
    with _checked_out(options.revision) as other, places(wanted) as opened:
        table.print_machine(machine.describe())
        for place in opened:
            print(
                f"\n{place.database}: this tree to {options.revision}, {options.turns} turns each"
            )
            asyncio.run(_measure(place, other, options.turns))
    return 0


@contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ledger-tree-") as folder:
        git = ["git", "-C", str(_ROOT)]
        archive = subprocess.run([*git, "archive", revision], capture_output=True, check=False)
        if archive.returncode:
            raise SystemExit(f"git has no tree {revision!r}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


async def _measure(place: Place, other: Path, turns: int) -> None:
    async with _working(place, _ROOT) as ours, _working(place, other) as theirs:
        for what in _SECONDS:
            ratios = [await _ratio(what, ours, theirs, number) for number in range(-1, turns)][1:]
            clear()
            low, high = _interval(ratios)
            print(
                f"  {what:<6}{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f});"
                f" turns from {min(ratios):.2f} to {max(ratios):.2f}",
                flush=True,
            )


async def _ratio(what: str, ours: Child, theirs: Child, number: int) -> float:
    say(f"{what}: turn {number + 1}")
    took = {}
    for each in (ours, theirs) if number % 2 else (theirs, ours):
        took[each] = await each.tell({"what": what, "seconds": _SECONDS[what]})
    return float(took[ours] / took[theirs])


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    chance = random.Random(0)  # noqa: S311  # guards nothing
    medians = sorted(
        statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_DRAWS)
    )
    return medians[_DRAWS * 25 // 1000], medians[_DRAWS * 975 // 1000]


@asynccontextmanager
async def _working(place: Place, tree: Path) -> AsyncIterator[Child]:
    """Yields a process that has imported the ledger from `tree` and written its secrets."""
    package, roots = _package_of(tree)
    given: dict[str, Any] = {
        "url": place.empty("tree"),
        "key": Key.generate().text().reveal_text(),
        "tree": str(tree),
        "package": package,
        "secrets": _SECRETS,
    }
    path = os.pathsep.join([*map(str, roots), os.environ.get("PYTHONPATH", "")])
    async with child(_WORKER, {**os.environ, "PYTHONPATH": path}) as process:
        say("writing secrets")
        await process.tell(given)
        yield process


def _package_of(tree: Path) -> tuple[str, list[Path]]:
    """Returns the ledger's package name in `tree`, and the folders to import it from."""
    if (tree / "ledger" / "__init__.py").exists():
        return "ledger", [tree]  # before the package had a name of its own
    return "secret_ledger", [tree / "ledger", tree / "projections"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/against",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("revision", help="what git calls the other tree, for example HEAD~3")
    parser.add_argument("--database", choices=DATABASES, help="only this one; default: both")
    parser.add_argument(
        "--turns", type=int, default=40, metavar="N", help="of each tree (default 40)"
    )
    options = parser.parse_args()
    if options.turns < 20:
        parser.error("--turns must be at least 20")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
