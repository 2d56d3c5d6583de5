"""The end of the log, as an append must find it: the last event opens where the head row says.

The next position of an append, and a time that never runs back, follow from the head row. But a
head row proves nothing. So unless this process itself left it so, the last event is opened: it
must be the event that the head row describes, with no row above it. All this runs under the head
row's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.events import Event
from secret_ledger.model.format import check_hash
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead
from secret_ledger.rules.authority import read_newest
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import events_from, newest_events

__all__ = ["DamagedEnd", "check_end", "damaged_end"]

MOST: Final = 1000
"""Damaged events at the end of the log, at most, that a destruction may follow."""


@dataclass(frozen=True, slots=True)
class DamagedEnd:
    """A log whose last events don't open: a write may only destroy the secrets of these events."""

    streams: Collection[str]
    time: int
    """When the newest event that opens was recorded: microseconds since 1970."""


def check_end(
    connection: Connection,
    database: Database,
    control: Control,
    keys: Mapping[bytes, LedgerKey],
    head: LogHead,
) -> None:
    """Raises TamperedEvent unless the last event opens at the head row's position and time."""
    rows = events_from(connection, database, head.generation, head.position)
    if not rows or rows[0].position != head.position or head.position < control.last.position:
        raise _not_there(head)
    last = rows[0]
    if len(rows) > 1:
        raise TamperedEvent(
            f"the head row says that the log ends at position {head.position}; there is an event at"
            f" position {rows[1].position}",
            hint=_HINT,
            position=head.position,
        )
    problem = _problem(control, keys, last)
    if problem is not None:
        raise TamperedEvent(
            f"the last event of the log does not open: {problem.message}",
            hint=f"`destroy` {printable(last.stream)}, or restore the row from a backup;"
            " `secret-ledger verify --level full` lists every damaged row",
            position=head.position,
        )
    if last.recorded_at != head.recorded_at:
        raise TamperedEvent(
            f"the head row's time is not that of the last event, at position {head.position}",
            hint=f"the event's time is {last.recorded_at}: put that number into"
            f" ledger_head.recorded_at of generation {head.generation}, once you know who changed"
            " it",
            position=head.position,
        )


def damaged_end(
    connection: Connection,
    database: Database,
    control: Control,
    keys: Mapping[bytes, LedgerKey],
    head: LogHead,
) -> DamagedEnd | None:
    """Find the damaged events at the end of the log, which a destruction may follow.

    They lie at the positions up to the head row's, each once, and are no more than 1,000. Returns
    None if the head row is at fault or too much is damaged.
    """
    streams: set[str] = set()
    position = head.position
    for event in newest_events(connection, database, head.generation, MOST + 1):
        if event.position != position:
            return None
        if _problem(control, keys, event) is None:
            return DamagedEnd(streams, event.recorded_at) if streams else None
        streams.add(event.stream)
        position -= 1
    return None


def _problem(control: Control, keys: Mapping[bytes, LedgerKey], event: Event) -> LedgerError | None:
    try:
        context = check_hash(control.ledger_id, event)
        read_newest(control, keys, event, context=context)
    except LedgerError as error:
        return error
    return None


_HINT: Final = "`secret-ledger verify --level full` lists every damaged row"


def _not_there(head: LogHead) -> TamperedEvent:
    return TamperedEvent(
        f"the head row says that the log ends at position {head.position}; there is no such event,"
        " or the control stream goes on behind it",
        hint=_HINT,
        position=head.position,
    )
