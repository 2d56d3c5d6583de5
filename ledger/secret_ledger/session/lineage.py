"""Whether the database still holds the log that this process has met before.

If a standby that lagged takes over, the newest events are lost, and other events may take their
positions. The same happens if an older copy of the database is put in place. So a process
remembers the end of the log, and the events at the last positions that it met. It keeps each event
as the hash of its row's columns. Before a new connection is used, it must show these events. The
heartbeat and `health` ask for them again.

The newest remembered event decides. If its row is damaged or missing, a reader of that row reports
the damage, and the next older event decides. If no remembered event is recognised, the log is
refused: damage must not hide that events were lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from secret_ledger.errors import LedgerUnavailable, TamperedEvent
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.format import hash_of
from secret_ledger.model.rows import LogHead
from secret_ledger.rules.gate import check_not_behind, check_pinned, is_damaged
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import event_at, events_page
from secret_ledger.store.schema import read_meta
from secret_ledger.store.statements import whole

__all__ = ["Lineage", "Met"]

REMEMBERED: Final = 16
"""Positions whose events a process remembers."""


class Met(NamedTuple):
    """The end of a log that was recognised as the log met before."""

    head: LogHead
    control: object
    """The newest version of the control stream, as the database says."""


class _Mark(NamedTuple):
    """An event that was met."""

    position: int
    generation: int
    recorded_at: int
    content: bytes
    """The hash that the row's columns gave: 32 bytes."""
    damaged: bool
    """Whether the row was damaged when it was met: then a later difference proves nothing."""


class Lineage:
    """What one process remembers of the log's end."""

    def __init__(self, database: Database, ledger_id: bytes) -> None:
        self._database = database
        self._ledger_id = ledger_id
        self._last: LogHead | None = None
        self._marks: tuple[_Mark, ...] = ()
        """In order of position. The tuple is replaced whole: SQLite's threads read it too."""
        self._marking = threading.Lock()
        self._trusted = object()
        self._key = f"secret_ledger.{database.schema}"
        database.on_connection = self._meet

    @property
    def seen(self) -> int:
        """The highest position that any read or append has met."""
        last = self._last
        return last.position if last is not None else 0

    def saw(self, head: LogHead) -> None:
        """Remember how far the log has got."""
        if head.position > self.seen:
            self._last = head

    def remember(self, events: Iterable[Event | None]) -> None:
        """Remember which events lie at their positions.

        The row that was met first is kept: an event never changes, and a row that was damaged
        since is not the event. Only a damaged row, or an older generation's, is replaced.
        """
        self._keep([self._mark(event) for event in events if event is not None])

    def remember_own(self, event: Event) -> None:
        """Remember an event that this process itself has written."""
        mark = _Mark(
            event.position, event.generation, event.recorded_at, event.event_hash, damaged=False
        )
        with self._marking:
            marks = self._marks
            if marks and marks[-1].position < mark.position:  # each append passes here
                self._marks = (*marks[1 - REMEMBERED :], mark)
                return
        self._keep([mark])

    def _keep(self, found: Sequence[_Mark]) -> None:
        with self._marking:
            known = {mark.position: mark for mark in self._marks}
            for mark in found:
                before = known.get(mark.position)
                if before is None or before.damaged or before.generation < mark.generation:
                    known[mark.position] = mark
            self._marks = tuple(sorted(known.values())[-REMEMBERED:])

    def remember_more(self, connection: Connection, head: LogHead) -> None:
        """Read and remember the last events of the log, unless enough events are remembered."""
        if len(self._marks) >= min(REMEMBERED, head.position):
            return
        after = max(0, head.position - REMEMBERED)
        self.remember(
            events_page(connection, self._database, head.generation, after, head.position)
        )

    def recognise(self, connection: Connection) -> Met | None:
        """Returns the end of the log, if it is the log that was met before.

        Returns None if no generation is in use. Raises TamperedEvent if events were lost or no
        remembered event is recognised. Raises WrongLedger if this is another ledger, and
        LedgerUnavailable if this is a standby that only lags.
        """
        # Each is read once: another thread may replace them at any moment.
        last, marks = self._last, self._marks
        asked = {
            "control": CONTROL_STREAM,
            "seen": last.position if last else 0,
            "marked": marks[-1].position if marks else 0,
        }
        sql = self._database.statements
        rows = connection.execute(sql.head_and_events, asked).all()
        if not rows:
            return None
        head = LogHead.of_row(tuple(rows[0])[:5])
        found = whole(connection, sql, (row[6:] for row in rows if row[6] == head.generation))
        events = {event.position: event for event in map(Event.of_row, found)}
        if last is not None:
            try:
                self.check(connection, head, last.position)
                self._check_same(connection, head, last, marks, events)
            except TamperedEvent:
                self._trusted = object()  # each connection must be recognised again
                raise
        self.remember([events.get(head.position)])
        return Met(head, rows[0][5])

    def _check_same(
        self,
        connection: Connection,
        head: LogHead,
        last: LogHead,
        marks: tuple[_Mark, ...],
        events: Mapping[int, Event],
    ) -> None:
        """Raises TamperedEvent if another event lies at a position that was met."""
        row = events.get(last.position)
        if row is not None and row.recorded_at != last.recorded_at and not self._is_damaged(row):
            raise self._other(connection, last.position)
        for mark in reversed(marks):
            row = events.get(mark.position)
            if row is None:
                row = event_at(connection, self._database, head.generation, mark.position)
            if row is None:
                continue
            if self._is_same(mark, row):
                return
            if not self._is_damaged(row) and not mark.damaged:
                raise self._other(connection, mark.position)
        if any(not mark.damaged for mark in marks):
            raise self._untold(connection, marks)

    def _is_same(self, mark: _Mark, row: Event) -> bool:
        if row.generation == mark.generation:
            return self._mark(row).content == mark.content
        # A migration seals each event anew, at its position and its time.
        return row.recorded_at == mark.recorded_at and not self._is_damaged(row)

    def _is_damaged(self, row: Event) -> bool:
        return is_damaged(self._ledger_id, row)

    def _mark(self, event: Event) -> _Mark:
        try:
            content = hash_of(self._ledger_id, event)
        except TamperedEvent:  # this format never wrote such a row
            content = sha256(repr(tuple(event)).encode("utf-8", "replace")).digest()
        damaged = content != event.event_hash
        return _Mark(event.position, event.generation, event.recorded_at, content, damaged)

    def _other(self, connection: Connection, position: int) -> TamperedEvent:
        self._check_ledger(connection)
        return TamperedEvent(
            f"the event at position {position} is not the one that this node has seen there:"
            " events were lost and others took their places, or an older copy of the database"
            " was put in place",
            hint="a fail-over to a standby that lagged loses its last writes; find out what"
            " happened, then restart this process: it accepts the log as it is",
            position=position,
        )

    def _untold(self, connection: Connection, marks: tuple[_Mark, ...]) -> TamperedEvent:
        self._check_ledger(connection)
        return TamperedEvent(
            f"none of the last {len(marks)} events that this node has seen (positions"
            f" {marks[0].position} to {marks[-1].position}) is intact: each was changed or taken"
            " out, and nobody can tell whether events were lost",
            hint="`secret-ledger verify --level full` lists every damaged row; find out what"
            " happened, then restart this process: it accepts the log as it is",
            position=marks[-1].position,
        )

    def _check_ledger(self, connection: Connection) -> None:
        meta = read_meta(connection, self._database)
        if meta is not None:
            check_pinned(meta.ledger_id, self._ledger_id)

    def check(self, connection: Connection, head: LogHead, seen: int) -> None:
        """Raises TamperedEvent if the log ends before position `seen`: it never gets shorter.

        On a standby, raises LedgerUnavailable instead: it may only lag behind another server.
        """
        replica = self._database.replica(connection) if head.position < seen else None
        if replica is not None:
            raise LedgerUnavailable(
                f"{self._database.place}: this standby is at position {head.position}, behind"
                f" position {seen} that this node has seen",
                hint="try again in a moment, or read from the primary",
                transient=True,
                position=head.position,
                seen=seen,
                replica_lag_seconds=replica.lag_seconds,
            )
        check_not_behind(head, seen)

    def _meet(self, connection: Connection) -> None:
        """A new connection may lead to another server: recognise the log once on each."""
        trusted = self._trusted
        if connection.info.get(self._key) is not trusted:
            self.recognise(connection)
            connection.info[self._key] = trusted
