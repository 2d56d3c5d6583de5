"""Compares a projection's table with the fold of the log, page by page.

A page is one short snapshot: the checkpoint, some events and the rows that they fold to are of one
moment. So a write meanwhile is not taken for a difference. First the log is read stream by stream.
If a stream goes on after a page, its fold is carried over to the next page. If a page of the log
had fewer names than the table had rows between them, the table is read too. That finds rows of
names that the log does not have. A comparison needs the memory of one page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from secret_ledger.model.events import CONTROL_STREAM
from secret_ledger.model.rows import LogHead
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import fail_in_projection
from secret_ledger.store.retry import through_outages
from secret_ledger_projections import checkpoint, pages
from secret_ledger_projections.protocol import Projection
from secret_ledger_projections.table import ProjectionTable, RowValues, same

__all__ = ["Compared", "Difference", "Moved", "check", "compare", "differences_at", "has_secrets"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not as the log folds to. It is metadata only: no secret is in it."""

    secret: str | None
    """Name of the secret. None if the difference is in the checkpoint."""
    column: str | None
    """Name of the column. None if the row is missing, or should not exist."""
    expected: Any
    """The value that the log folds to; None for no row. For the checkpoint: the log's end."""
    actual: Any
    """The value that the table holds; None for no row. For the checkpoint: its position."""

    @property
    def is_lag(self) -> bool:
        """Whether the table is only behind the log. Up to its checkpoint it may be right."""
        return self.secret is None and 0 <= (self.actual or 0) < self.expected

    def __str__(self) -> str:
        if self.secret is None:
            at = self.actual if self.actual is not None else "missing"
            if self.actual is not None and self.actual > self.expected:
                return f"the checkpoint {at} is ahead of the log, which ends at {self.expected}"
            behind = self.expected - (self.actual or 0)
            return f"the checkpoint ({at}) is {behind} positions behind the log"
        if self.column is not None:
            return f"{self.secret}: {self.column} is {self.actual!r}, not {self.expected!r}"
        if self.expected is None:
            return f"{self.secret}: the table has a row, but by the log it has none"
        return f"{self.secret}: its row is missing"


@dataclass(frozen=True, slots=True)
class Compared:
    """One page of a comparison, with the rows that differ."""

    standing: checkpoint.CheckpointState
    bound: int
    """The position up to which `expected` is folded."""
    rows: int
    """Number of rows that the log folds to on this page."""
    expected: Mapping[str, RowValues | None]
    actual: Mapping[str, RowValues]
    scanned: int
    """Number of events that this page folded."""

    def differences(self) -> list[Difference]:
        """The differences, value by value."""
        found: list[Difference] = []
        for name, row in self.expected.items():
            actual = self.actual.get(name)
            shown = _shown(name)
            if row is None or actual is None:
                found.append(Difference(shown, None, row, actual))
                continue
            found += [
                Difference(shown, column, value, actual.get(column, "unreadable"))
                for column, value in row.items()
                if not same({column: value}, actual)
            ]
        return found


def _shown(name: object) -> str:
    text = name if isinstance(name, str) else repr(name)
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:600])


class Moved(Exception):
    """The generation is no longer in use, or the checkpoint was set back: begin again."""


@dataclass(slots=True)
class _Cursor:
    """The place of the comparison in the log, and the fold of the stream at that place."""

    bound: int = 0
    stream: str = ""
    version: int = 0
    row: RowValues | None = None
    compared: str | None = None
    """The last stream whose row was compared."""
    surplus: bool = False
    """Whether the table has rows for which the log has no name."""
    ended: bool = False


async def compare(database: Database, table: ProjectionTable) -> AsyncIterator[Compared]:
    """Compare the whole table, page by page. Raises Moved, LedgerUnavailable, ProjectionFailed."""
    name = table.projection.name
    first = await through_outages(
        database, lambda c: checkpoint.standing(c, database, name), "snapshot"
    )

    def here(connection: Connection, since: int) -> tuple[checkpoint.CheckpointState, int]:
        now = checkpoint.standing(connection, database, name)
        bound = max(0, min(now.checkpoint or 0, now.end))
        if now.generation != first.generation or bound < since:
            raise Moved
        return now, bound

    def log_page(connection: Connection) -> tuple[Compared, _Cursor]:
        now, bound = here(connection, cursor.bound)
        try:
            return _log_page(connection, database, table, now, bound, cursor)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            fail_in_projection(error, name)

    def table_page(connection: Connection) -> tuple[Compared, list[str]]:
        now, bound = here(connection, cursor.bound)
        try:
            return _table_page(connection, database, table, now, bound, after)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            fail_in_projection(error, name)

    cursor = _Cursor()
    while not cursor.ended:
        page, cursor = await through_outages(database, log_page, "snapshot")
        yield page
    after: str | None = None
    names = [""] if cursor.surplus else []
    while names:
        page, names = await through_outages(database, table_page, "snapshot")
        yield page
        after = names[-1] if names else after


def _log_page(
    connection: Connection,
    database: Database,
    table: ProjectionTable,
    now: checkpoint.CheckpointState,
    bound: int,
    cursor: _Cursor,
) -> tuple[Compared, _Cursor]:
    generation = now.generation
    events = pages.by_stream(connection, database, generation, cursor.stream, cursor.version, bound)
    folded: dict[str, RowValues | None] = {}
    stream, version, row = cursor.stream, cursor.version, cursor.row
    compared = cursor.compared
    for event in events:
        if event.stream != stream:
            folded[stream] = row
            row, compared = None, stream
        stream, version = event.stream, event.version
        if table.has_row(stream):
            row = table.fold(row, event)
    ended = len(events) < pages.PAGE
    if ended:
        folded[stream] = row
    folded = {name: row for name, row in folded.items() if table.has_row(name)}
    actual = table.load(connection, generation, folded)
    rows = table.count(connection, generation, cursor.compared, None if ended else compared)
    differing = {
        name: row
        for name, row in folded.items()
        if (name in actual if row is None else name not in actual or not same(row, actual[name]))
    }
    page = Compared(
        standing=now,
        bound=bound,
        rows=sum(row is not None for row in folded.values()),
        expected=differing,
        actual={name: actual[name] for name in differing if name in actual},
        scanned=len(events),
    )
    surplus = cursor.surplus or rows != len(actual)
    return page, _Cursor(bound, stream, version, row, compared, surplus, ended)


def _table_page(
    connection: Connection,
    database: Database,
    table: ProjectionTable,
    now: checkpoint.CheckpointState,
    bound: int,
    after: str | None,
) -> tuple[Compared, list[str]]:
    names = table.names(connection, now.generation, after)
    secrets = [name for name in names if table.has_row(name)]
    known = pages.begun(connection, database, now.generation, secrets, bound)
    surplus = [name for name in names if name not in known]
    actual = table.load(connection, now.generation, surplus)
    page = Compared(now, bound, 0, dict.fromkeys(actual), actual, 0)
    return page, names


async def check(database: Database, projection: Projection) -> AsyncIterator[Difference]:
    """Each difference between the table and the fold of the log. Nothing is written.

    The checkpoint comes first, if it is ahead of the log, or if secrets were written after it. The
    rows are compared with the log up to the checkpoint. Raises LedgerUnavailable, NotALedger,
    ProjectionFailed.
    """
    async for difference in differences_at(database, projection, None):
        yield difference


async def has_secrets(database: Database, generation: int, after: int, bound: int) -> bool:
    """Whether a secret was written after position `after`, up to `bound`.

    Events of the control stream change no row.
    """
    while events := await through_outages(
        database,
        partial(
            pages.by_position,
            database=database,
            generation=generation,
            after=after,
            bound=bound,
        ),
        "statement",
    ):
        if any(event.stream != CONTROL_STREAM for event in events):
            return True
        after = events[-1].position
    return False


async def differences_at(
    database: Database, projection: Projection, head: LogHead | None
) -> AsyncIterator[Difference]:
    """Like `check`. If `head` is given, a table that is folded up to `head` is not behind."""
    table = ProjectionTable(projection, database)
    while True:
        told = False
        try:
            async for page in compare(database, table):
                if not told:
                    told = True
                    now = page.standing
                    enough = now.end
                    if head is not None and head.generation == now.generation:
                        enough = min(head.position, now.end)
                    at = now.checkpoint
                    difference = Difference(None, "checkpoint", now.end, at)
                    is_told = at is None or not enough <= at <= now.end
                    if is_told and difference.is_lag:
                        is_told = await has_secrets(database, now.generation, at or 0, now.end)
                    if is_told:
                        yield difference
                for difference in page.differences():
                    yield difference
            return
        except Moved:
            continue
