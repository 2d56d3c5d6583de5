"""How events enter the log: one transaction, the head row locked first.

::

    lock the head row (generation, state and epoch stated)
      └─ decide what to write                         `batch`, `rotation`
           └─ seal, insert, advance the head, fold the projections: `append_events`
                └─ commit: positions are gapless and in commit order

After the lock, the transaction sees all that the lock's last holder committed. On either
database it is one unit of work (`store.database`). `committing` runs it, and runs it again if its
outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.model.events import Event
from secret_ledger.model.format import seal_event
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.rows import LogHead
from secret_ledger.model.versions import SecretInfo
from secret_ledger.rules.decide import Draft
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, LockedHead
from secret_ledger.store.driver_errors import fail_in_projection
from secret_ledger.store.projection import InlineProjection, first_blind

__all__ = [
    "Attempt",
    "Outcome",
    "Overtaken",
    "append_events",
    "keep",
    "seal_draft",
    "was_committed",
]


class Overtaken(Exception):  # no error: another try follows
    """The control stream has grown since it was verified: follow it, then try again."""


Outcome = Sequence[SecretInfo] | LedgerError
"""The outcome of one request: a fact for each intent, or the error that refused it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A transaction's try to write. If its outcome is unknown, the next try looks for `first`."""

    generation: int
    first: Event
    head: LogHead
    """The head row as it is after the commit."""
    outcomes: Sequence[Outcome] = ()
    streams: Collection[str] = ()
    """Streams that this attempt changes."""


def seal_draft(
    ledger_id: bytes,
    generation: int,
    draft: Draft,
    position: int,
    recorded_at: int,
    key: LedgerKey,
    key_id: str | None = None,
) -> Event:
    """Give a draft its place in the log, and seal it under `key`.

    `recorded_at`: microseconds since 1970. `key_id`: the ledger's label of the key, if that is not
    the key's own.
    """
    stream, version, event_type, data, metadata, prev_hash = draft
    bare = Event(
        generation, position, stream, version, event_type, key_id or key.id, key.fingerprint,
        recorded_at, metadata, prev_hash, b"", b"",
    )  # fmt: skip
    return seal_event(key.event_cipher, ledger_id, bare, data)


def append_events(
    connection: Connection,
    database: Database,
    locked: LockedHead,
    events: Sequence[Event],
    projections: Sequence[InlineProjection],
    *,
    epoch: int | None = None,
    outcomes: Sequence[Outcome] = (),
) -> Attempt:
    """Write sealed events after the locked head row, which moves on (to `epoch`, if given).

    Raises TamperedEvent if the head row has moved since it was locked, and ProjectionFailed if a
    projection's own code fails.
    """
    before = locked.head
    after = before._replace(
        position=events[-1].position,
        recorded_at=locked.now,
        key_epoch=before.key_epoch if epoch is None else epoch,
    )
    first, folded = first_blind(projections), None
    if first is not None:
        try:
            folded = first.folded(database, events)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            fail_in_projection(error, first.name, f", at position {events[0].position} or after it")
    moved, done = database.extend(connection, before, after, events, folded)
    if not moved:
        raise TamperedEvent(
            f"the head row of generation {before.generation} changed while it was locked"
        )
    for projection in projections[1:] if done else projections:
        keep(projection, connection, database, before, events)
    streams = {event.stream for event in events}
    return Attempt(before.generation, events[0], after, outcomes, streams)


def keep(
    projection: InlineProjection,
    connection: Connection,
    database: Database,
    head: LogHead,
    events: Sequence[Event],
) -> None:
    """Have a projection fold `events`. Raises ProjectionFailed if its own code fails."""
    try:
        projection.apply(connection, database, head, events)
    except Exception as error:  # noqa: BLE001  # whatever its code raises
        first, last = events[0].position, events[-1].position
        where = f", at position {first}" if first == last else f", at positions {first} to {last}"
        fail_in_projection(error, projection.name, where)


def was_committed(connection: Connection, database: Database, attempt: Attempt) -> bool | None:
    """Whether an attempt of unknown outcome is in the log.

    Returns None if its generation is gone or being purged: then nobody can tell. The head row is
    locked first, because the lost transaction may still be in flight.
    """
    head = database.lock_generation(connection, attempt.generation)
    if head is None or head.state in ("purging", "purged"):
        return None
    found = connection.execute(
        database.statements.event_of_version,
        {
            "generation": attempt.generation,
            "stream": attempt.first.stream,
            "version": attempt.first.version,
        },
    ).first()
    return found is not None and Event.of_row(found).event_hash == attempt.first.event_hash
