"""Migrates the whole history to the active key: built while writers go on, proven, put in use.

::

    begin     a `building` head row, under the active head row's lock
    build     pages are copied and proven: `generations.builder`
    flip      one transaction under the head row's lock: the last events are copied and proven,
              `generation.closed` in the old generation, `generation.opened` in the new one

If the command is killed at any moment, the same command goes on. `generations.move` migrates into
another database.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from anyio import to_thread

from secret_ledger.errors import KeyReused, TamperedEvent
from secret_ledger.generations.builder import (
    Builder,
    another_builder,
    not_the_same,
    sealing_keys,
    why_not_opened,
)
from secret_ledger.generations.reseal import reseal
from secret_ledger.log import log
from secret_ledger.model.control import Control, generation_metadata
from secret_ledger.model.events import CONTROL_STREAM, NO_HASH, Event, EventType
from secret_ledger.model.rows import LogHead
from secret_ledger.model.secret import Secret
from secret_ledger.read.census import uses
from secret_ledger.rotation.rotation import Takeover
from secret_ledger.rules.decide import Draft
from secret_ledger.rules.findings import Finding, OnProgress, Progress, Tally
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.openings import openings_of
from secret_ledger.rules.row_checks import Rules
from secret_ledger.session.following import Follower
from secret_ledger.session.in_progress import begin_building, in_progress, moving
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import LockedHead
from secret_ledger.store.reads import heads_of_generations
from secret_ledger.store.retry import through_outages
from secret_ledger.store.transitions import replace_head
from secret_ledger.verify.scan import Scan
from secret_ledger.write.append import Attempt, seal_draft
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = ["MigrationReport", "check_current_key", "migrate", "rehearse"]

REHEARSAL = 3.0
"""A migration takes so many times as long as its rehearsal.

It also writes the copy, reads it back and opens it.
"""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """The result of a migration."""

    changed: bool
    """False if nothing was left to do.

    Then all of the history was under the active key already, or the move was done before.
    """
    generation: int
    """The generation that is in use now."""
    replaced: int | None
    """The generation that was closed; None if nothing changed.

    Its keys are needed until it is purged. After a move, they are needed for as long as somebody
    reads the source.
    """
    key_id: str
    key_fingerprint: bytes
    events: int
    """Events of the whole history."""
    copied: int
    """Events that this run copied. Earlier runs that were interrupted copied the others."""
    purged: int
    """Events that this run copied without their data.

    Nobody may read that data any more.
    """
    seconds: float
    locked_seconds: float
    """Seconds that writers had to wait."""
    bytes: int = 0
    """Of a dry run: bytes of the sealed values and metadata of the copy; else 0.

    The database takes about 300 bytes more for each event.
    """
    dry_run: bool = False
    """Whether nothing was written.

    Then the report is of the migration that would be done, and `seconds` is an estimate.
    """
    moved_to: str | None = None
    """Address, without credentials, of the other database that the ledger lies in now.

    Of a dry run: the database that the ledger would lie in. None if the ledger stays in this
    database.
    """


class Migrator:
    """One run of a migration within a database."""

    def __init__(
        self,
        session: Session,
        *,
        actor: str | None,
        on_progress: OnProgress | None,
        only_begun: bool = False,
    ) -> None:
        """`only_begun`: finish a migration that was begun under the active key, and begin none."""
        self._follower = session.follower
        self._only_begun = only_begun
        self._database = session.database
        self._builder = Builder(session, session.database, on_progress=on_progress)
        self._actor = actor
        self._patience = session.patience
        self._locked_seconds = 0.0

    async def run(self) -> MigrationReport:
        """Build, prove and flip.

        Raises MigrationInProgress if another migrator is at work, TamperedEvent or MissingKey if an
        event can't be opened, and LedgerUnavailable.
        """
        began = time.monotonic()
        control, building = await self._begin()
        if building is None:
            return self._report(control, None, began)
        before = control.generation
        flipped = False
        while not flipped:
            building = await self._builder.approach(building)
            flipped = await self._flip(building)
        standing = await self._follower.follow(read=through_outages)
        log.info(
            "ledger_migrated",
            generation=standing.control.generation,
            replaced=before,
            key_id=standing.control.active.id,
            actor=self._actor,
        )
        return self._report(standing.control, before, began)

    def _report(self, control: Control, replaced: int | None, began: float) -> MigrationReport:
        return MigrationReport(
            changed=replaced is not None,
            generation=control.generation,
            replaced=replaced,
            key_id=control.active.id,
            key_fingerprint=control.active.fingerprint,
            events=self._follower.seen,
            copied=self._builder.copied,
            purged=self._builder.purged,
            seconds=time.monotonic() - began,
            locked_seconds=self._locked_seconds,
        )

    # --- begin -----------------------------------------------------------------------

    async def _begin(self) -> tuple[Control, LogHead | None]:
        """Returns the control stream to migrate, and the building head row, found or made.

        The head row is None if nothing is left to do.
        """
        follower, database = self._follower, self._database

        def begin(connection: Connection, standing: Standing) -> Attempt | LogHead | None:
            if standing.control is not control:
                return None  # a rotation, or another migrator, was faster
            lock_control(connection, database, standing)
            found = in_progress(connection, database, control)
            if found is not None and found.move is not None:
                raise moving(found.move)
            if found is None and self._only_begun:
                return None  # the migration was given up meanwhile
            return found.head if found else begin_building(connection, database, control)

        while True:
            standing = await follower.follow(read=through_outages)
            control = standing.control
            check_current_key(standing, follower, may_pend=self._only_begun)
            found = await through_outages(
                database,
                lambda c: in_progress(c, database, control),  # noqa: B023
                "statement",
            )
            if found is None and (self._only_begun or not await _is_needed(follower, control)):
                return control, None
            begun = await commit(follower, begin, patience=self._patience)
            if isinstance(begun, LogHead):
                return control, begun

    # --- flip ------------------------------------------------------------------------

    async def _flip(self, building: LogHead) -> bool:
        """Puts the generation in use. Returns False if `approach` must run again first."""
        database = self._database
        source = self._follower.standing.control.generation
        began = 0.0

        def flip(connection: Connection, standing: Standing) -> Attempt | None:
            nonlocal began
            control = standing.control
            if control.generation != source:
                raise another_builder(building.generation)
            locked = lock_control(connection, database, standing)
            if database.lock_generation(connection, building.generation) != building:
                raise another_builder(building.generation)
            began = time.monotonic()
            last = self._builder.last_stretch(connection, standing, building, locked.head)
            if last is None:
                return None
            return self._hand_over(connection, standing, locked, building, last)

        done = await commit(self._follower, flip, patience=self._patience)
        self._locked_seconds += time.monotonic() - began
        return isinstance(done, Attempt)

    def _hand_over(
        self,
        connection: Connection,
        standing: Standing,
        locked: LockedHead,
        building: LogHead,
        last: Sequence[Event],
    ) -> Attempt:
        database, control, sealing = self._database, standing.control, sealing_keys(standing)
        about = partial(
            generation_metadata,
            building.generation,
            control.generation,
            sealing.active_id,
            sealing.active.fingerprint,
            actor=self._actor,
        )
        closed = control_events(
            control, sealing, locked, [Entry(EventType.GENERATION_CLOSED, about())]
        )
        database.insert_events(connection, closed)
        end = locked.head._replace(position=closed[0].position, recorded_at=locked.now)
        if not replace_head(connection, database, locked.head, end._replace(state="closed")):
            raise TamperedEvent(f"the head row of generation {control.generation} changed")

        stored = database.heads_of(connection, building.generation, [CONTROL_STREAM])
        before = [*stored, *(e for e in last if e.stream == CONTROL_STREAM)]
        draft = Draft(
            CONTROL_STREAM,
            control.last.version + 1,
            EventType.GENERATION_OPENED,
            Secret(b""),
            about(purged=self._builder.left_out(last)),
            before[-1].event_hash if before else NO_HASH,
        )
        opened = seal_draft(
            control.ledger_id,
            building.generation,
            draft,
            end.position,
            locked.now,
            sealing.active,
            sealing.active_id,
        )
        new = end._replace(generation=building.generation, state="active")
        if not replace_head(connection, database, building, new):
            raise another_builder(building.generation)
        self._builder.append_copies(connection, building, [*last, opened])
        self._check_put_in_use(connection, building, new)
        return Attempt(control.generation, closed[0], new)

    def _check_put_in_use(self, connection: Connection, building: LogHead, new: LogHead) -> None:
        """Refuses a generation that was changed since its proof: nobody could open it."""
        database = self._database
        ends = connection.execute(database.statements.ends, {"generation": new.generation}).one()
        if tuple(ends) != (1, new.position):
            reason = f"its rows are at positions {ends[0]} to {ends[1]}, not 1 to {new.position}"
            raise not_the_same(building, Finding("tampered", reason, ends[1]))
        problem = why_not_opened(connection, database, self._follower.keyring)
        if problem is not None:
            position = problem.details.get("position")
            raise not_the_same(building, Finding("tampered", problem.message, position))


async def migrate(
    session: Session,
    takeover: Takeover | None,
    *,
    actor: str | None,
    on_progress: OnProgress | None,
) -> MigrationReport:
    """Copy the whole history under the active key into the next generation.

    `takeover` rotates to a pending key. If a migration was begun before that key came, it is
    finished first, under the active key. Until then no key is activated.

    Raises KeyReused if the configured key was superseded; the refusals of the rotation;
    MigrationInProgress; TamperedEvent or MissingKey, with the list of events that can't be opened;
    LedgerMoved; LedgerUnavailable.
    """
    follower = session.follower
    migrator = partial(Migrator, session, actor=actor, on_progress=on_progress)
    if takeover is not None:
        check_current_key(await follower.follow(read=through_outages), follower, may_pend=True)
        await takeover.check()
        await migrator(only_begun=True).run()
        await takeover.rotate()
    check_current_key(await follower.follow(read=through_outages), follower)
    return await migrator().run()


def check_current_key(standing: Standing, follower: Follower, *, may_pend: bool = False) -> None:
    """Raises LedgerMoved if the ledger has moved, KeyReused if the configured key is not active.

    `may_pend`: the configured key may also be pending.
    """
    control = standing.control
    standing.check_not_moved()
    current = follower.keyring.current.for_ledger(control.ledger_id)
    pending = may_pend and control.key(current.fingerprint) is None
    if current.fingerprint != control.active.fingerprint and not pending:
        raise KeyReused(
            f"the configured key {current.id} is not the active one, {control.active.id}",
            hint="make the active key the current one, or rotate to a new one",
        )


async def rehearse(
    follower: Follower, *, on_progress: OnProgress | None, moved_to: str | None = None
) -> MigrationReport:
    """Read all events and seal them in memory. Write nothing.

    `moved_to`: the address of the other database that the ledger would move to. Raises the errors
    that `migrate` would raise.
    """
    began = time.monotonic()
    standing = await follower.follow(read=through_outages)
    check_current_key(standing, follower, may_pend=True)
    control, sealing = standing.control, standing.check_may_write()
    database = follower.database
    heads = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    found = await through_outages(
        database, lambda c: in_progress(c, database, control), "statement"
    )
    if found is not None and (found.move is None) != (moved_to is None):
        raise moving(found.move) if found.move else another_builder(found.head.generation)
    in_use = next(head for head in heads if head.generation == control.generation)
    follower.saw(in_use)
    key = sealing.pending or sealing.active
    label = sealing.active_id if key is sealing.active else key.id
    would = replace(sealing, active=key, active_id=label)
    scan = Scan(database, Rules(control, standing.keys), Tally(), read=through_outages)
    copied = purged = size = 0
    async with aclosing(scan.pages(in_use.position)) as pages:
        async for page in pages:
            if not scan.tally.findings:
                sealed = await to_thread.run_sync(reseal, control, would, 0, page, {})
                copied += len(sealed.events)
                purged += sealed.purged
                size += sum(len(e.sealed) + len(e.metadata) for e in sealed.events)
            if on_progress is not None:
                on_progress(Progress(page.last.position, in_use.position))
    scan.tally.report("full", 0).raise_if_not_ok()
    changed = (
        moved_to is not None
        or found is not None
        or key is not sealing.active
        or await _is_needed(follower, control)
    )
    number = openings_of(control).next({head.generation for head in heads})
    if found is not None and key is sealing.active:
        number = found.head.generation
    return MigrationReport(
        changed=changed,
        generation=number if changed else control.generation,
        replaced=control.generation if changed else None,
        key_id=would.active_id,
        key_fingerprint=key.fingerprint,
        events=follower.seen,
        copied=copied,
        purged=purged,
        seconds=REHEARSAL * (time.monotonic() - began),
        locked_seconds=0.0,
        bytes=size,
        dry_run=True,
        moved_to=moved_to,
    )


async def _is_needed(follower: Follower, control: Control) -> bool:
    """Whether any event of the generation in use needs another key than the active key."""
    database = follower.database
    heads = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    in_use = [head for head in heads if head.generation == control.generation]
    follower.saw(in_use[0])
    # Purged rows keep the key that they had, and need none.
    return any(
        use.events and use.key_fingerprint != control.active.fingerprint
        for use in await uses(database, in_use)
    )
