"""Gives up a key for good: first, each secret that is lost with it is ended under a seal.

::

    prove     the whole log, without that key: damage must not pass for loss
    end       each secret whose newest event lies under the key gets a `secret.destroyed`
    record    one `key.lost`, with a digest of every row that lies under the key

So the newest event of a secret never lies under a lost key. A superseded key seals nothing new, so
no row is added under it between these steps. If the operation is interrupted, run it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.model.control import Control, ControlKey
from secret_ledger.model.events import CONTROL_STREAM, Event, EventType
from secret_ledger.model.format import hash_of
from secret_ledger.model.metadata import encode_metadata
from secret_ledger.model.secret import Secret
from secret_ledger.read.found_rows import rows_of
from secret_ledger.rules.decide import Draft
from secret_ledger.rules.findings import Finding, OnProgress, Progress, Tally
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.read_checks import lost_with
from secret_ledger.rules.row_checks import Rules
from secret_ledger.rules.sealed_counts import RowDigest
from secret_ledger.session.following import Follower
from secret_ledger.session.in_progress import check_not_building
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import LockedHead
from secret_ledger.store.reads import BULK, heads_of_generations, heads_page
from secret_ledger.store.retry import through_outages
from secret_ledger.verify.scan import Scan
from secret_ledger.write.append import Attempt, append_events, seal_draft
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = ["Ending", "end_drafts", "give_up"]

ROUNDS: Final = 20
"""Migrations and rotations that one loss follows before it gives up."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Who gives up a key and why, and the other facts that its `key.lost` states."""

    reason: str
    actor: str | None
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Proven:
    """The rows under the key, in one generation."""

    generation: int
    rows: RowDigest
    ends: int
    """Secrets that an earlier, interrupted run has ended."""


async def give_up(
    session: Session, key: ControlKey, ending: Ending, on_progress: OnProgress | None = None
) -> None:
    """Record that a superseded key is lost, unless that was recorded before.

    Raises TamperedEvent if the log is damaged, MigrationInProgress while a generation is being
    built, and LedgerUnavailable.
    """
    database, follower = session.database, session.follower
    for _ in range(ROUNDS):
        standing = await follower.follow(read=through_outages)
        known = standing.control.key(key.fingerprint)
        if known is None or known.lost is not None:
            return
        await through_outages(database, partial(_check_not_building, follower))
        proven = await _prove(follower, standing, key, on_progress)
        giving_up = _GivingUp(session, key, ending, proven)
        ended = await giving_up.end_secrets()
        if ended is not None and await giving_up.record(proven.ends + ended):
            await follower.follow(read=through_outages)
            return
    raise LedgerUnavailable("the ledger kept changing while the key was being given up")


def _check_not_building(follower: Follower, connection: Connection) -> None:
    check_not_building(connection, follower.database, follower.standing.control)


async def _prove(
    follower: Follower, standing: Standing, key: ControlKey, on_progress: OnProgress | None
) -> _Proven:
    """Checks all rows, except for the values whose key is not held."""
    database, control = follower.database, standing.control
    heads = await through_outages(database, lambda c: heads_of_generations(c, database))
    head = next(head for head in heads if head.generation == control.generation)
    scan = Scan(
        database,
        Rules(control, standing.keys, missing_keys_matter=False),
        Tally(),
        read=through_outages,
    )
    rows, ends, after = RowDigest(), 0, 0
    async with aclosing(scan.pages(head.position)) as pages:
        async for page in pages:
            after = page.last.position
            for row in page.rows:
                if row.event.key_fingerprint == key.fingerprint:
                    rows.add(row.event)
                ends += (
                    row.event.event_type == EventType.DESTROYED and lost_with(row.event) == key.id
                )
            if on_progress is not None:
                on_progress(Progress(after, head.position))
    if after != head.position:
        scan.tally.add(Finding("tampered", f"the log ends at position {after}", head.position))
    scan.tally.report("full", 0).raise_if_not_ok()
    return _Proven(control.generation, rows, ends)


def end_drafts(
    control: Control,
    key: ControlKey,
    newest: Iterable[Event],
    rows: Mapping[str, int],
    reason: str,
    actor: str | None,
) -> list[Draft]:
    """The events that end the secrets whose newest event lies under a lost key.

    `rows`: how many rows each secret has. If an event does not open, its end can't carry on the
    event's facts. So the end states the count itself.
    """
    drafts = []
    for event in newest:
        if (
            event.stream == CONTROL_STREAM
            or event.key_fingerprint != key.fingerprint
            or not control.may_be_under(event)
        ):
            continue
        about: dict[str, Any] = {"unopened": True, "lost": key.id, "floor": event.version}
        about["rows"] = {"count": rows[event.stream]}
        drafts.append(
            Draft(
                event.stream,
                event.version + 1,
                EventType.DESTROYED,
                Secret(b""),
                encode_metadata(actor=actor, reason=reason, ledger=about),
                hash_of(control.ledger_id, event),
            )
        )
    return drafts


@dataclass(frozen=True, slots=True)
class _GivingUp:
    """One run, in the generation that was proven."""

    session: Session
    key: ControlKey
    ending: Ending
    proven: _Proven

    def _lock(self, connection: Connection, standing: Standing) -> LockedHead:
        """Raises Overtaken if the control stream has grown."""
        locked = lock_control(connection, self.session.database, standing)
        check_not_building(connection, self.session.database, standing.control)
        return locked

    async def end_secrets(self) -> int | None:
        """Ends each secret that is lost with the key, and returns their number.

        Returns None if a migration came in between.
        """
        database, after, ended = self.session.database, None, 0
        while True:

            def read(connection: Connection, after: str | None = after) -> list[Event]:
                return heads_page(connection, database, self.proven.generation, after, limit=BULK)

            page = await through_outages(database, read, "snapshot")
            if not page or page[-1].stream == after:
                return ended
            after = page[-1].stream
            theirs = [e for e in page if e.key_fingerprint == self.key.fingerprint]
            if theirs:
                done = await self._end(theirs)
                if done is None:
                    return None
                ended += done

    async def _end(self, newest: Sequence[Event]) -> int | None:
        known = {event.stream: event.event_hash for event in newest}
        database = self.session.database

        def write(connection: Connection, standing: Standing) -> Attempt | bool:
            control, sealing = standing.control, standing.check_may_write()
            if control.generation != self.proven.generation:
                return False
            locked = self._lock(connection, standing)
            found = list(database.heads_of(connection, control.generation, list(known)))
            same = [event for event in found if known.get(event.stream) == event.event_hash]
            rows = rows_of(connection, database, same)
            drafts = end_drafts(
                control, self.key, same, rows, self.ending.reason, self.ending.actor
            )
            events = [
                seal_draft(
                    control.ledger_id, control.generation, draft, position, locked.now,
                    sealing.active, sealing.active_id,
                )
                for position, draft in enumerate(drafts, locked.head.position + 1)
            ]  # fmt: skip
            if not events:
                return True
            return append_events(connection, database, locked, events, self.session.projections)

        done = await commit(self.session.follower, write, patience=self.session.patience)
        if isinstance(done, Attempt):
            return done.head.position - done.first.position + 1
        return 0 if done else None

    async def record(self, ends: int) -> bool:
        """Writes `key.lost`. Returns False if a migration came in between."""
        about = {**self.ending.about, "ends": ends, "rows": self.proven.rows.facts()}
        metadata = encode_metadata(actor=self.ending.actor, reason=self.ending.reason, ledger=about)
        database = self.session.database

        def write(connection: Connection, standing: Standing) -> Attempt | bool:
            control, sealing = standing.control, standing.check_may_write()
            known = control.key(self.key.fingerprint)
            if known is None or known.lost is not None:
                return True  # another node was faster
            if control.generation != self.proven.generation:
                return False
            locked = self._lock(connection, standing)
            entry = Entry(EventType.KEY_LOST, metadata)
            events = control_events(control, sealing, locked, [entry])
            return append_events(connection, database, locked, events, self.session.projections)

        done = await commit(self.session.follower, write, patience=self.session.patience)
        return isinstance(done, Attempt) or done
