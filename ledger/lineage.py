"""Whether the database still holds the log that this process has met before.

A fail-over to a standby that lagged loses the newest events, and others may take their
places; an older copy of a database that is put in place does the same. A process that was
up meanwhile remembers how far the log had got, and when that event was recorded: the head
row, which every read and append meets anyway. Each new connection is asked for the event at
that place before anything else is done on it, and so is any by the heartbeat and `health`.
"""

from __future__ import annotations

from ledger.append import check_not_behind
from ledger.errors import LedgerUnavailable, TamperedEvent
from ledger.events import Event
from ledger.gate import check_pinned, is_damaged
from ledger.state import Head
from ledger.store.connection import Connection
from ledger.store.database import Database
from ledger.store.schema import read_meta

__all__ = ["Lineage"]


class Lineage:
    """What one process remembers of the log's end."""

    def __init__(self, database: Database, ledger_id: bytes) -> None:
        self._database = database
        self._ledger_id = ledger_id
        self._last: Head | None = None
        self._mark = object()
        self._key = f"secret_ledger.{database.schema}"
        database.on_connection = self._meet

    @property
    def seen(self) -> int:
        """The highest position that any read or append has met."""
        return self._last.position if self._last is not None else 0

    def saw(self, head: Head) -> None:
        """Remember how far the log has got."""
        if head.position > self.seen:
            self._last = head

    def recognise(self, connection: Connection) -> Head | None:
        """The head row in use, once the log is known to be the one that was met before.

        Raises TamperedEvent where events were lost, WrongLedger where it is another ledger,
        LedgerUnavailable where this is a standby that only lags.
        """
        known = self._last
        row = connection.execute(
            self._database.statements.head_and_time_at, {"position": self.seen}
        ).first()
        if row is None:
            return None
        head = Head.of_row(tuple(row)[:5])
        if known is None:
            return head
        try:
            self.check(connection, head, known.position)
            if row[5] != known.recorded_at:
                self._check_place_taken(connection, head, known.position)
        except TamperedEvent:
            self._mark = object()  # no connection is trusted any more until it has shown itself
            raise
        return head

    def _check_place_taken(self, connection: Connection, head: Head, position: int) -> None:
        meta = read_meta(connection, self._database)
        if meta is not None:
            check_pinned(meta.ledger_id, self._ledger_id)
        row = connection.execute(
            self._database.statements.event_at_position,
            {"generation": head.generation, "position": position},
        ).first()
        if row is not None and is_damaged(self._ledger_id, Event.of_row(row)):
            return  # a damaged row is for its reader to name, and hides no other
        raise TamperedEvent(
            f"the event at position {position} is not the one that this node has seen there:"
            " events were lost and others took their places, or an older copy of the database"
            " was put in place",
            hint="a fail-over to a standby that lagged loses its last writes; find out which,"
            " then start this process anew: it takes the log as it is",
            position=position,
        )

    def check(self, connection: Connection, head: Head, seen: int) -> None:
        """The log never gets shorter, but a standby may be one that lags behind another."""
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
        """Recognise the log once on each connection, where it leads by then."""
        if connection.info.get(self._key) is not self._mark:
            mark = self._mark
            self.recognise(connection)
            connection.info[self._key] = mark
