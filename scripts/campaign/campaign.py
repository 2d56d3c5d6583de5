"""Run every case on both databases, and write down which check finds it. See `run`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from damage import Case, cases
from finding import Outcome, find
from grounds import SITUATIONS, Ground, prepare
from page import Result, judge, write
from postgresql_server import PostgresServer

DATABASES = ("SQLite", "PostgreSQL")


@contextmanager
def places(database: str, folder: Path) -> Iterator[Callable[[], str]]:
    """Yield a function that returns the URL of a new, empty database."""
    if database == "SQLite":
        yield lambda: f"sqlite+aiosqlite:///{folder}/{uuid.uuid4().hex}.db"
        return
    with PostgresServer() as server:
        yield lambda: server.create_database(f"campaign_{uuid.uuid4().hex}")


async def columns_of(ground: Ground) -> dict[str, list[str]]:
    """Return the columns of each table of a ledger's database; none for a table without rows."""
    found: dict[str, list[str]] = {}
    for table in await ground.here.tables():
        rows = await ground.here.rows(table)
        found[table] = list(rows[0]) if rows else []
    return found


async def run(
    urls: Callable[[], str],
    folder: Path,
    database: str,
    *,
    situations: tuple[str, ...] = SITUATIONS,
    wanted: Callable[[int, Case], bool] = lambda number, case: True,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Return the outcome of each wanted case.

    `wanted` is called with the number of the case, from 1, and the case; `tell` with a line for
    each outcome.
    """
    results: list[Result] = []
    number = 0
    for situation in situations:
        ground = await prepare(situation, urls, folder)
        try:
            for case in cases(await columns_of(ground)):
                number += 1
                if wanted(number, case):
                    outcome = await find(ground, case)
                    results.append(Result(database, situation, case, outcome))
                    tell(_line(results[-1]))
        finally:
            await ground.close()
    return results


def _line(result: Result) -> str:
    outcome: Outcome = result.outcome
    case = result.case
    told = [result.database, result.situation, case.table, case.which, case.column, case.kind]
    more = f" ({outcome.why})" if outcome.why else ""
    untrue = f"; untrue before: {', '.join(outcome.untrue)}" if outcome.untrue else ""
    return " | ".join(told) + f": {outcome.by or 'NOTHING'}{more}{untrue}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/campaign/run", description=__doc__)
    parser.add_argument("--only", help="one table of the database; the page is not written")
    parser.add_argument("--database", choices=DATABASES, help="one database; likewise")
    parser.add_argument("--situation", choices=SITUATIONS, help="one situation; likewise")
    given = parser.parse_args(arguments)
    results: list[Result] = []
    for database in [given.database] if given.database else DATABASES:
        with tempfile.TemporaryDirectory() as folder, places(database, Path(folder)) as urls:
            results += asyncio.run(
                run(
                    urls,
                    Path(folder),
                    database,
                    situations=(given.situation,) if given.situation else SITUATIONS,
                    wanted=lambda number, case: given.only in (None, case.table),
                    tell=lambda line: print(line, file=sys.stderr, flush=True),
                )
            )
    problems = [problem for result in results if (problem := judge(result))]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not (given.only or given.database or given.situation):
        write(results)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
