"""Rebuilds a projection by its differences: reads the log, and writes only the rows that are wrong.

The transactions are short: readers and appends hardly notice them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from secret_ledger.rules.findings import Progress
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import fail_in_projection
from secret_ledger.store.retry import through_outages
from secret_ledger_projections import checkpoint, pages
from secret_ledger_projections.comparison import Compared, Moved, compare
from secret_ledger_projections.protocol import Projection
from secret_ledger_projections.runner import catch_up
from secret_ledger_projections.table import ProjectionTable, Written

__all__ = ["RebuildReport", "rebuild"]


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """The result of a rebuild."""

    rows: int
    """Rows that the log folds to. All of them were compared."""
    changed: int
    added: int
    removed: int
    caught_up: int
    """Positions that were folded before the comparison, because the checkpoint was behind."""
    seconds: float


async def rebuild(
    database: Database,
    projection: Projection,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> RebuildReport:
    """Make the table of the generation in use equal to the fold of the log.

    First the checkpoint is caught up. Then each row is compared with its fold, and mended if it
    differs. Rows of other generations are left alone. Any number of writers may go on meanwhile. If
    the rebuild is interrupted, run it again. Raises LedgerUnavailable, NotALedger,
    ProjectionFailed.
    """
    began = time.monotonic()
    table = ProjectionTable(projection, database)
    caught_up = rows = scanned = 0
    total = Written(0, 0, 0)
    while True:
        caught_up += await catch_up(database, projection)
        rows = scanned = 0
        try:
            async for page in compare(database, table):
                rows += page.rows
                scanned += page.scanned
                if page.expected:
                    written = await through_outages(
                        database,
                        lambda c, page=page: _mend(c, database, table, page),  # type: ignore[misc]
                        "write",
                    )
                    total = Written(*map(sum, zip(total, written, strict=True)))
                if on_progress is not None:
                    on_progress(Progress(min(scanned, page.standing.end), page.standing.end))
        except Moved:
            continue
        return RebuildReport(rows, *total, caught_up, time.monotonic() - began)


def _mend(
    connection: Connection, database: Database, table: ProjectionTable, page: Compared
) -> Written:
    """Writes the rows that differ, as they are at the checkpoint, which is locked first.

    The head row is locked before the checkpoint. An append reads its rows under the head row's
    lock. If it then finds the checkpoint unmoved, it takes its rows for unchanged.
    """
    generation = page.standing.generation
    database.lock_generation(connection, generation)
    at = checkpoint.lock(connection, database, table.projection.name, generation)
    if at is None or at < page.bound:
        raise Moved
    # Events never change: the fold goes on from the page's snapshot.
    expected = dict(page.expected)
    after = page.bound
    while events := pages.by_position(connection, database, generation, after, at):
        known = {name: row for name, row in expected.items() if row is not None}
        expected |= table.fold_all(known, [e for e in events if e.stream in expected])
        after = events[-1].position
    try:
        actual = table.load(connection, generation, expected)
        return table.write(connection, generation, actual, expected)
    except Exception as error:  # noqa: BLE001  # whatever its code raises
        fail_in_projection(error, table.projection.name)
