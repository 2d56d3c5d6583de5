"""How a batch of callers is decided: in one transaction, each caller by itself.

Under the head row's lock, the newest events that the batch builds on are read, and must open. Then
each caller is decided in order of arrival, on top of the writes that were accepted before. A
refused caller takes no position in the log, and harms no other caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.model.events import Event
from secret_ledger.model.floors import ended_at
from secret_ledger.model.format import check_hash, hash_of
from secret_ledger.model.rows import LogHead
from secret_ledger.model.versions import info_of, opened
from secret_ledger.read.found_rows import found_rows
from secret_ledger.rules.authority import SealingKeys, read_newest
from secret_ledger.rules.decide import (
    Destroy,
    Draft,
    Intent,
    NewestEvent,
    Put,
    Walked,
    WalkNeeded,
    decide,
)
from secret_ledger.rules.gate import Standing, check_not_behind, check_not_exhausted
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.projection import InlineProjection
from secret_ledger.write.append import Attempt, Outcome, Overtaken, append_events, seal_draft
from secret_ledger.write.log_end import DamagedEnd, check_end, damaged_end

__all__ = [
    "Request",
    "append",
]


@dataclass(frozen=True, slots=True)
class Request:
    """One caller's write: all of its intents happen, or none."""

    intents: Sequence[Intent]
    walked: Mapping[str, Walked] = field(default_factory=dict)
    """By stream: the result of a walk below its newest event, made before the lock was taken."""


@dataclass(slots=True)
class _Batch:
    """The state of one append while it decides."""

    connection: Connection
    database: Database
    standing: Standing
    sealing: SealingKeys
    heads: Mapping[str, NewestEvent]
    """By stream: the newest event that the database holds."""
    events: list[Event] = field(default_factory=list)
    written: dict[str, Event] = field(default_factory=dict)
    """By stream: the newest of `events`."""

    def head(self, stream: str) -> NewestEvent | None:
        """The event that the next event of the stream builds on."""
        event = self.written.get(stream)
        if event is None:
            return self.heads.get(stream)
        row = event.with_seal(b"", event.event_hash)
        return NewestEvent(row, None, ended_at(self.standing.control, row))


def append(
    connection: Connection,
    database: Database,
    standing: Standing,
    requests: Sequence[Request],
    projections: Sequence[InlineProjection],
    seen: int,
    own: LogHead | None = None,
) -> Attempt | Sequence[Outcome]:
    """Decide and write a batch in the current transaction.

    Returns the outcomes alone if every request was refused and nothing was written. `seen`: the
    highest position of earlier calls. `own`: the head row as this process left it; if it is
    still so, the log's end is not checked.

    Raises Overtaken if the head row is no longer active at this epoch, or if the control stream
    has grown: the end of a key does not raise the epoch. Raises TamperedEvent if the log ends
    before `seen`, or if the head row is not at the last event.
    """
    control, sealing = standing.control, standing.check_may_write()
    intents = [intent for request in requests for intent in request.intents]
    streams = sorted({intent.stream for intent in intents})
    locked = database.lock_head(connection, control.generation, control.epoch, streams)
    if locked is None or locked.control != control.last.version:
        raise Overtaken
    head = locked.head
    check_not_behind(head, seen)
    damage: TamperedEvent | None = None
    end: DamagedEnd | None = None
    if head != own:  # the next events seal a position and a time that follow from it
        try:
            check_end(connection, database, control, standing.keys, head)
        except TamperedEvent as error:
            damage, end = error, damaged_end(connection, database, control, standing.keys, head)
            if end is None:
                raise
            locked = locked._replace(now=max(end.time, database.clock(connection)))
    views = {event.stream: _view(standing, event) for event in locked.newest}
    batch = _Batch(connection, database, standing, sealing, views)
    outcomes: list[Outcome] = [
        damage
        if damage is not None and not _only_ends(request, end)
        else _accept(batch, request, head, locked.now)
        for request in requests
    ]
    if not batch.events:
        return outcomes
    return append_events(connection, database, locked, batch.events, projections, outcomes=outcomes)


def _only_ends(request: Request, end: DamagedEnd | None) -> bool:
    """Whether a request only destroys secrets whose damaged events lie at the log's end."""
    return end is not None and all(
        isinstance(intent, Destroy) and intent.stream in end.streams for intent in request.intents
    )


def _view(standing: Standing, event: Event) -> NewestEvent:
    control = standing.control
    problem: LedgerError | None = None
    hash_: bytes = event.event_hash
    try:
        context = check_hash(control.ledger_id, event)
        read_newest(control, standing.keys, event, context=context)
    except LedgerError as error:
        problem = error
        with suppress(TamperedEvent):  # this format never wrote such a row
            hash_ = hash_of(control.ledger_id, event)
    return NewestEvent(event.with_seal(b"", hash_), problem, ended_at(control, event))


def _accept(batch: _Batch, request: Request, head: LogHead, now: int) -> Outcome:
    position = head.position + len(batch.events)
    events: list[Event] = []
    drafts: list[Draft] = []
    control, sealing = batch.standing.control, batch.sealing
    unwalked: list[str] = []
    try:
        check_not_exhausted(control, position + len(request.intents))
        for intent in request.intents:
            view, walked = batch.head(intent.stream), request.walked.get(intent.stream)
            if isinstance(intent, Destroy) and view is not None and not intent.facts:
                intent = _with_what_it_finds(batch, intent, view)
            try:
                drafts.append(decide(control, intent, view, walked))
            except WalkNeeded as needed:
                unwalked += needed.streams
        if unwalked:
            return WalkNeeded(unwalked)
        for number, draft in enumerate(drafts, position + 1):
            event = seal_draft(
                control.ledger_id,
                head.generation,
                draft,
                number,
                now,
                sealing.active,
                sealing.active_id,
            )
            events.append(event)
    except LedgerError as error:
        return error
    batch.events.extend(events)
    batch.written.update({event.stream: event for event in events})
    return [
        opened(event, intent.value)
        if isinstance(intent, Put)
        else replace(info_of(event), check="ok")
        for intent, event in zip(request.intents, events, strict=True)
    ]


def _with_what_it_finds(batch: _Batch, intent: Destroy, view: NewestEvent) -> Destroy:
    """A destruction states the rows below it. So it accounts for their damage.

    Raises TamperedEvent if the newest row claims the highest version that a column holds.
    """
    newest = view.event
    if newest.version >= 2**63 - 1:
        raise TamperedEvent(
            f"{newest.stream} claims version {newest.version}: no version can follow it",
            hint="put the row's true version back from a backup, then verify",
            stream=newest.stream,
            version=newest.version,
        )
    if intent.stream in batch.written:
        return intent  # the newest row is not in the database yet: the rows are left out
    found = found_rows(
        batch.connection, batch.database, batch.standing.control, intent.stream, newest.version + 1
    )
    return replace(intent, facts={**intent.facts, "rows": found.facts()})
