"""How an append happens: one transaction, the head row locked first.

::

    lock the head row (generation, state and epoch stated)
      └─ read the heads that the batch builds on       must open
           └─ decide each caller, in order of arrival  refused ones take no place
                └─ seal, insert, advance the head, fold the projections
                     └─ commit: positions are gapless and in commit order

Everything after the lock sees what the lock's last holder committed. Runs as one unit of
work (`ledger.store.database`) on either database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlalchemy.engine import Connection

from ledger.authority import HeldKeys, read_event, short
from ledger.control import Control
from ledger.decide import Draft, HeadView, Intent, Put, decide, destroyed
from ledger.errors import KeyExhausted, LedgerError, SecretNotFound, TamperedEvent
from ledger.events import NO_HASH, Event, EventType
from ledger.format import hash_of, seal_event, tampered
from ledger.keys import LedgerKey
from ledger.secret import Secret
from ledger.state import Head
from ledger.store.database import Database
from ledger.versions import SecretInfo, base_version, info_of, state_of, version_of

__all__ = [
    "MAX_EVENTS_PER_KEY",
    "Attempt",
    "InlineProjection",
    "Outcome",
    "Request",
    "append",
    "was_committed",
]

MAX_EVENTS_PER_KEY: Final = 2**32
"""NIST SP 800-38D, 8.3: the bound of GCM with random 96-bit nonces."""


class InlineProjection(Protocol):
    """A read-side table that is kept in the append's own transaction."""

    name: str

    def apply(
        self, connection: Connection, database: Database, head: Head, events: Sequence[Event]
    ) -> None:
        """Fold `events`, which follow `head`'s position without a gap, into the table."""
        ...

    async def catch_up(self, database: Database) -> int:
        """Fold what was written while nobody kept the table; how many events that was."""
        ...


@dataclass(slots=True)
class Request:
    """One caller's write: all of its intents happen, or none."""

    intents: Sequence[Intent]


Outcome = Sequence[SecretInfo] | LedgerError
"""What became of one request: a fact per intent, or why it was refused."""


@dataclass(slots=True)
class Attempt:
    """What a transaction tried to write: looked for if its commit's outcome is unknown."""

    generation: int
    first: Event
    outcomes: Sequence[Outcome]
    head: Head
    """The head row as it is once this is committed."""


@dataclass(slots=True)
class Batch:
    """The state of one append while it decides."""

    connection: Connection
    database: Database
    control: Control
    held: HeldKeys
    heads: dict[str, HeadView]
    events: list[Event] = field(default_factory=list)
    written: dict[tuple[str, int], Secret] = field(default_factory=dict)
    """Values of this very batch, for a restore that comes right behind."""
    ended: dict[str, int] = field(default_factory=dict)
    """Streams that this very batch destroyed, and at which version."""


def append(
    connection: Connection,
    database: Database,
    control: Control,
    held: HeldKeys,
    requests: Sequence[Request],
    projections: Sequence[InlineProjection],
    seen: int,
) -> Attempt | Sequence[Outcome] | None:
    """Decide and write a batch in the current transaction.

    None where the head row is no longer active at this epoch: read on, then try again.
    Outcomes alone where every request was refused and nothing was written.
    Raises TamperedEvent where the log ends before the position `seen` of an earlier call.
    """
    locked = database.lock_head(connection, control.generation, control.epoch)
    if locked is None:
        return None
    head = locked.head
    check_not_behind(head, seen)
    streams = sorted({intent.stream for request in requests for intent in request.intents})
    views = {
        event.stream: _view(control, held.by_fingerprint, event)
        for event in database.heads_of(connection, control.generation, streams)
    }
    batch = Batch(connection, database, control, held, views)
    outcomes: list[Outcome] = [_accept(batch, request, head, locked.now) for request in requests]
    if not batch.events:
        return outcomes
    after = head._replace(position=batch.events[-1].position, recorded_at=locked.now)
    database.insert_events(connection, batch.events)
    advance(connection, database, head, after)
    for projection in projections:
        projection.apply(connection, database, head, batch.events)
    return Attempt(control.generation, batch.events[0], outcomes, after)


def advance(connection: Connection, database: Database, before: Head, after: Head) -> None:
    """Move the locked head row on. Raises TamperedEvent if it is not where it was."""
    moved = connection.execute(
        database.statements.advance_head,
        {
            "generation": before.generation,
            "before": before.position,
            "position": after.position,
            "recorded_at": after.recorded_at,
            "key_epoch": after.key_epoch,
        },
    )
    if moved.rowcount != 1:
        raise TamperedEvent(
            f"the head row of generation {before.generation} changed while it was locked"
        )


def check_not_behind(head: Head, seen: int) -> None:
    """The log never gets shorter. Raises TamperedEvent if it has."""
    if head.position < seen:
        raise TamperedEvent(
            f"the log ends at position {head.position}, behind position {seen} that this node"
            " has seen: events were lost, or an older copy of the database was put in place",
            hint="find out which; a fail-over to a standby that lagged loses its last writes",
            position=head.position,
            seen=seen,
        )


def was_committed(connection: Connection, database: Database, attempt: Attempt) -> bool | None:
    """Whether an attempt of unknown outcome is in the log. None: nobody can tell any more.

    Takes the head row first: the lost transaction may still be in flight.
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


def _view(control: Control, keys: Mapping[bytes, LedgerKey], event: Event) -> HeadView:
    owner = control.key(event.key_fingerprint)
    problem: LedgerError | None = None
    hash_: bytes = event.event_hash
    try:
        hash_ = hash_of(control.ledger_id, event)
        if hash_ != event.event_hash:
            raise tampered(event, "its hash does not match its row")
        if event.event_type == EventType.DESTROYED and owner and owner.lost:
            pass  # an end needs no value: a lost key takes nothing more from it
        else:
            read_event(control, keys, event)
    except LedgerError as error:
        problem = error
    return HeadView(
        version=event.version,
        base=base_version(event),
        state=state_of(event),
        hash=hash_,
        problem=problem,
        lost=bool(owner and owner.lost and control.may_be_under(event)),
    )


def _accept(batch: Batch, request: Request, head: Head, now: int) -> Outcome:
    position = head.position + len(batch.events)
    staged: dict[str, HeadView] = {}
    events: list[Event] = []
    drafts: list[Draft] = []
    try:
        _check_not_exhausted(batch.control, position + len(request.intents))
        for intent in request.intents:
            head_view = batch.heads.get(intent.stream)
            drafts.append(decide(intent, head_view, NO_HASH, lambda *a: _fetch(batch, *a)))
        for number, draft in enumerate(drafts, position + 1):
            event = seal_draft(batch.control, batch.held, draft, number, now)
            events.append(event)
            staged[draft.stream] = HeadView(
                event.version, event.version, state_of(event), event.event_hash, None, False
            )
    except LedgerError as error:
        return error
    batch.events.extend(events)
    batch.heads.update(staged)
    for draft in drafts:
        if draft.event_type in (EventType.WRITTEN, EventType.RESTORED):
            batch.written[draft.stream, draft.version] = draft.data
        elif draft.event_type == EventType.DESTROYED:
            batch.ended[draft.stream] = draft.version
    return [_fact(i, e) for i, e in zip(request.intents, events, strict=True)]


def _fact(intent: Intent, event: Event) -> SecretInfo:
    return version_of(event, intent.value) if isinstance(intent, Put) else info_of(event)


def seal_draft(
    control: Control, held: HeldKeys, draft: Draft, position: int, recorded_at: int
) -> Event:
    """Give a draft its place in the log and seal it under the active key."""
    bare = Event(
        generation=control.generation,
        position=position,
        stream=draft.stream,
        version=draft.version,
        event_type=draft.event_type,
        key_id=held.active_id,
        key_fingerprint=held.active.fingerprint,
        recorded_at=recorded_at,
        metadata=draft.metadata,
        prev_hash=draft.prev_hash,
        sealed=b"",
        event_hash=b"",
    )
    return seal_event(held.active.event_cipher, control.ledger_id, bare, draft.data.reveal())


def _check_not_exhausted(control: Control, position: int) -> None:
    if control.events_under_active(position) > MAX_EVENTS_PER_KEY:
        raise KeyExhausted(
            f"2^32 events lie under key {control.active.id}"
            f" ({short(control.active.fingerprint)}…), the bound of AES-GCM",
            hint="rotate to a new key: secret-ledger keys rotate",
        )


def _fetch(batch: Batch, stream: str, version: int | None, before: int) -> Secret:
    """The value of one version, for a restore, also one of this very batch."""
    sql = batch.database.statements
    place = {"generation": batch.control.generation, "stream": stream}
    own = [v for s, v in batch.written if s == stream and v < before]
    wanted = version if version is not None else max(own, default=None)
    stored = batch.connection.execute(sql.destroyed_after, place).scalar_one()
    ended = max(stored or 0, batch.ended.get(stream, 0))
    if wanted is not None and wanted < ended:
        raise destroyed(stream, ended)
    if wanted is not None and (stream, wanted) in batch.written:
        return batch.written[stream, wanted]
    if wanted is None:
        row = batch.connection.execute(sql.last_with_value, {**place, "before": before}).first()
    else:
        row = batch.connection.execute(sql.event_of_version, {**place, "version": wanted}).first()
    event = None if row is None else Event.of_row(row)
    if event is None or state_of(event) != "live":
        at = f" at version {version}" if version is not None else ""
        raise SecretNotFound(f"{stream} has no value to restore{at}", stream=stream)
    return Secret(
        read_event(
            batch.control,
            batch.held.by_fingerprint,
            event,
            destroyed_later=ended > event.version,
        )
    )
