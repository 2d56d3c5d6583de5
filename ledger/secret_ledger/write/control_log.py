"""Writes to the control stream: under the head row's lock, after the end that was verified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from secret_ledger.model.control import Control
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.secret import Secret
from secret_ledger.rules.authority import SealingKeys
from secret_ledger.rules.decide import Draft
from secret_ledger.rules.gate import Standing
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, LockedHead
from secret_ledger.write.append import Overtaken, seal_draft
from secret_ledger.write.log_end import check_end

__all__ = ["Entry", "control_events", "lock_control"]


class Entry(NamedTuple):
    """A control event to write."""

    event_type: str
    metadata: str
    key: LedgerKey | None = None
    """The key that this entry activates, which then seals it. None: the active key seals it."""


def lock_control(connection: Connection, database: Database, standing: Standing) -> LockedHead:
    """Lock the active head row, if the control stream still ends as it was verified.

    Raises Overtaken if the control stream has grown. The epoch alone does not say so: a retirement
    leaves it as it is. Raises TamperedEvent if the head row is not at the last event, which opens.
    """
    control = standing.control
    locked = database.lock_head(connection, control.generation, control.epoch, [CONTROL_STREAM])
    if locked is None:
        raise Overtaken
    check_end(connection, database, control, standing.keys, locked.head)
    ends = [end.event_hash for end in locked.newest]
    if ends != [control.last.event_hash]:
        raise Overtaken
    return locked


def control_events(
    control: Control, sealing: SealingKeys, locked: LockedHead, entries: Iterable[Entry]
) -> Sequence[Event]:
    """Seal `entries` as the events that follow the locked head row."""
    events: list[Event] = []
    for number, entry in enumerate(entries, 1):
        last = events[-1] if events else control.last
        draft = Draft(
            CONTROL_STREAM,
            last.version + 1,
            entry.event_type,
            Secret(b""),
            entry.metadata,
            last.event_hash,
        )
        events.append(
            seal_draft(
                control.ledger_id,
                control.generation,
                draft,
                locked.head.position + number,
                locked.now,
                entry.key or sealing.active,
                None if entry.key else sealing.active_id,
            )
        )
    return events
