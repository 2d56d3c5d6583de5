"""How a batch of callers is decided: in one transaction, each for itself.

Under the head row's lock the heads that the batch builds on are read and must open; then
each caller is decided in order of arrival, against the heads as the accepted ones before it
leave them. A refused caller takes no place in the log, and harms nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ledger.append import (
    Attempt,
    InlineProjection,
    Outcome,
    check_not_behind,
    enter,
    place,
    rider,
)
from ledger.authority import HeldKeys, read_event, short
from ledger.control import Control
from ledger.decide import Draft, HeadView, Intent, Put, decide, destroyed
from ledger.errors import KeyExhausted, LedgerError, SecretNotFound, TamperedEvent
from ledger.events import NO_HASH, Event, EventType
from ledger.format import check_hash, hash_of
from ledger.gate import Standing, check_last
from ledger.secret import Secret
from ledger.state import Head
from ledger.store.connection import Connection
from ledger.store.database import Database
from ledger.store.reads import last_event
from ledger.versions import info_of, state_of, version_of

__all__ = ["MAX_EVENTS_PER_KEY", "Request", "append", "check_not_exhausted"]

MAX_EVENTS_PER_KEY: Final = 2**32
"""NIST SP 800-38D, 8.3: the bound of GCM with random 96-bit nonces."""


@dataclass(frozen=True, slots=True)
class Request:
    """One caller's write: all of its intents happen, or none."""

    intents: Sequence[Intent]


@dataclass(slots=True)
class _Batch:
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
    standing: Standing,
    requests: Sequence[Request],
    projections: Sequence[InlineProjection],
    seen: int,
    own: Head | None = None,
) -> Attempt | Sequence[Outcome] | None:
    """Decide and write a batch in the current transaction.

    None where the head row is no longer active at this epoch: read on, then try again.
    Outcomes alone where every request was refused and nothing was written.
    Raises TamperedEvent where the log ends before the position `seen` of an earlier call, or
    where the head row is not at its last event; `own` is the head row as this process left it.
    """
    control, held = standing.control, standing.held
    intents = [intent for request in requests for intent in request.intents]
    streams = sorted({intent.stream for intent in intents})
    riding = rider(projections)
    beside = riding.beside(database) if riding else None
    locked = database.lock_head(connection, control.generation, control.epoch, streams, beside)
    if locked is None or held is None:
        return None
    head = locked.head
    check_not_behind(head, seen)
    if head != own:  # its place and its time are about to be sealed
        check_last(control, head, last_event(connection, database, head))
    views = {event.stream: _view(control, held, event) for event in locked.newest}
    batch = _Batch(connection, database, control, held, views)
    outcomes: list[Outcome] = [_accept(batch, request, head, locked.now) for request in requests]
    if not batch.events:
        return outcomes
    return enter(connection, database, locked, batch.events, projections, outcomes=outcomes)


def _view(control: Control, held: HeldKeys, event: Event) -> HeadView:
    owner = control.key(event.key_fingerprint)
    problem: LedgerError | None = None
    hash_: bytes = event.event_hash
    try:
        context = check_hash(control.ledger_id, event)
        # An end needs no value: a lost key takes nothing more from it.
        if event.event_type != EventType.DESTROYED or not (owner and owner.lost):
            read_event(control, held.by_fingerprint, event, context=context)
    except LedgerError as error:
        problem = error
        with suppress(TamperedEvent):  # then no such row was ever written
            hash_ = hash_of(control.ledger_id, event)
    lost = bool(owner and owner.lost and control.may_be_under(event))
    return HeadView(event.with_seal(b"", hash_), problem, lost)


def _accept(batch: _Batch, request: Request, head: Head, now: int) -> Outcome:
    position = head.position + len(batch.events)
    staged: dict[str, HeadView] = {}
    events: list[Event] = []
    drafts: list[Draft] = []
    control, held = batch.control, batch.held
    try:
        check_not_exhausted(control, position + len(request.intents))
        for intent in request.intents:
            view = batch.heads.get(intent.stream)
            drafts.append(decide(intent, view, NO_HASH, lambda *a: _fetch(batch, *a)))
        for number, draft in enumerate(drafts, position + 1):
            event = place(
                control.ledger_id, head.generation, draft, number, now, held.active, held.active_id
            )
            events.append(event)
            row = event.with_seal(b"", event.event_hash)
            staged[draft.stream] = HeadView(row, problem=None, lost=False)
    except LedgerError as error:
        return error
    batch.events.extend(events)
    batch.heads.update(staged)
    for draft in drafts:
        if draft.event_type in (EventType.WRITTEN, EventType.RESTORED):
            batch.written[draft.stream, draft.version] = draft.data
        elif draft.event_type == EventType.DESTROYED:
            batch.ended[draft.stream] = draft.version
    return [
        version_of(info_of(event), intent.value) if isinstance(intent, Put) else info_of(event)
        for intent, event in zip(request.intents, events, strict=True)
    ]


def check_not_exhausted(control: Control, position: int) -> None:
    """Raises KeyExhausted where the log may not grow to `position` under the active key."""
    if control.events_under_active(position) > MAX_EVENTS_PER_KEY:
        raise KeyExhausted(
            f"2^32 events lie under key {control.active.id}"
            f" ({short(control.active.fingerprint)}…), the bound of AES-GCM",
            hint="rotate to a new key: secret-ledger keys rotate",
        )


def _fetch(batch: _Batch, stream: str, version: int | None, before: int) -> Secret:
    """The value of one version, for a restore, also one of this very batch."""
    sql = batch.database.statements
    place_of = {"generation": batch.control.generation, "stream": stream}
    own = [v for s, v in batch.written if s == stream and v < before]
    wanted = version if version is not None else max(own, default=None)
    stored = batch.connection.execute(sql.destroyed_after, place_of).scalar_one()
    ended = max(stored or 0, batch.ended.get(stream, 0))
    if wanted is not None and wanted < ended:
        raise destroyed(stream, ended)
    if wanted is not None and (stream, wanted) in batch.written:
        return batch.written[stream, wanted]
    if wanted is None:
        row = batch.connection.execute(sql.last_with_value, {**place_of, "before": before}).first()
    else:
        row = batch.connection.execute(
            sql.event_of_version, {**place_of, "version": wanted}
        ).first()
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
