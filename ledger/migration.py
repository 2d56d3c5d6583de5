"""The whole history under the active key: built beside the writers, proven, then put in use.

::

    begin     a `building` head row, under the active head's lock
    copy      page by page: opened, sealed anew, appended to the next generation
    prove     page by page: both generations read back, opened and compared
    flip      one transaction under the head's lock: what came in last is copied and proven,
              `generation.closed` here, `generation.opened` there

Nothing is kept but rows: killed at any moment, the same command goes on where the building
head row says. Each batch states that row's position, so that a second migrator is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anyio import to_thread
from sqlalchemy.engine import Connection

from ledger.append import Attempt, InlineProjection, place
from ledger.authority import HeldKeys
from ledger.census import uses
from ledger.committing import commit
from ledger.control import Control, generation_metadata
from ledger.control_log import Entry, control_events, lock_control
from ledger.decide import Draft
from ledger.errors import KeyReused, LedgerError, MigrationInProgress, TamperedEvent
from ledger.events import CONTROL_STREAM, NO_HASH, Event, EventType
from ledger.findings import Finding, Progress, Tally, Tell
from ledger.following import Follower
from ledger.gate import Standing, check_state, judge
from ledger.generation_copy import differences, reseal
from ledger.log import log
from ledger.secret import Secret
from ledger.state import CheckedRow, Head
from ledger.store.database import LockedHead
from ledger.store.reads import check_page, heads_of_generations, read_state
from ledger.store.schema import read_meta
from ledger.store.transitions import replace_head
from ledger.store.translate import is_refusal, is_transient
from ledger.verify import Scan

__all__ = ["MigrationReport", "migrate"]

REHEARSAL = 3.0
"""How much longer it takes than a rehearsal: it is written, and read back on both sides."""
BACKLOG = 200
"""Events that may be left for the flip: they are copied while writers wait."""
ROUNDS = 20
"""Times that the copy runs after writers that are as fast as it is, before it makes them wait."""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a migration did."""

    changed: bool
    """False where all of the history was under the active key already."""
    generation: int
    """The one in use now."""
    replaced: int | None
    """The one that was closed. Its keys are needed until it is purged."""
    key_id: str
    key_fingerprint: bytes
    events: int
    """The whole history; of these:"""
    copied: int
    """by this run, the others by earlier ones that were interrupted,"""
    purged: int
    """and carried by this run without their data, which nobody may read any more."""
    seconds: float
    locked_seconds: float
    """For how long writers had to wait."""
    bytes: int = 0
    """Of a dry run: how much the sealed values and metadata of the copy would take, and
    about 300 bytes more for each event."""
    dry_run: bool = False
    """Nothing was written: what would be done; `seconds` is an estimate."""


class Migrator:
    """One run of a migration within a database."""

    def __init__(
        self,
        follower: Follower,
        projections: Sequence[InlineProjection],
        *,
        actor: str | None,
        on_progress: Tell | None,
        patience: float,
    ) -> None:
        self._follower = follower
        self._database = follower.database
        self._projections = projections
        self._actor = actor
        self._on_progress = on_progress
        self._patience = patience
        self._copied = 0
        self._purged = 0
        self._locked_seconds = 0.0

    async def run(self) -> MigrationReport:
        """Build, prove, flip. Raises MigrationInProgress beside another migrator;
        TamperedEvent or MissingKey where an event can't be opened; LedgerUnavailable."""
        began = time.monotonic()
        control, building = await self._begin()
        if building is None:
            return self._report(control, None, began, changed=False)
        before = control.generation
        proven = 0
        flipped = False
        while not flipped:
            for _ in range(ROUNDS):
                building = await self._copy(building)
                await self._prove(building, proven, building.position)
                proven = building.position
                if await self._end() - proven <= BACKLOG:
                    break
            flipped = await self._flip(building)
        standing = await self._follower.follow()
        log.info(
            "ledger_migrated",
            generation=standing.control.generation,
            replaced=before,
            key_id=standing.control.active.id,
            actor=self._actor,
        )
        return self._report(standing.control, before, began, changed=True)

    async def rehearse(self) -> MigrationReport:
        """Read all and seal it in memory; write nothing. Raises what `run` would."""
        began = time.monotonic()
        standing = await self._follower.follow()
        control, held = standing.control, standing.held
        heads = await self._heads()
        bound = next(h.position for h in heads if h.generation == control.generation)
        self._follower.saw(next(h for h in heads if h.generation == control.generation))
        if held is None:
            raise standing.refusal or MigrationInProgress("this node may not write")
        key = held.pending or held.active
        key_id = held.active_id if key is held.active else key.id
        would = replace(held, active=key, active_id=key_id)
        scan = self._scan(control)
        size = 0
        async for rows in scan.pages(bound):
            if not scan.tally.findings:
                copied = await to_thread.run_sync(reseal, control, would, 0, rows, {})
                self._copied += len(copied.events)
                self._purged += copied.purged
                size += sum(len(e.sealed) + len(e.metadata) for e in copied.events)
            self._tell(rows[-1].event.position, bound, 1)
        scan.tally.report("full", 0).raise_if_not_ok()
        building = self._building(heads, control)
        number = max(h.generation for h in heads) + 1 if building is None else building.generation
        changed = building is not None or key is not held.active or await self._is_needed(control)
        return replace(
            self._report(control, control.generation, began, changed=changed),
            generation=number if changed else control.generation,
            replaced=control.generation if changed else None,
            key_id=key_id,
            key_fingerprint=key.fingerprint,
            bytes=size,
            seconds=REHEARSAL * (time.monotonic() - began),
            dry_run=True,
        )

    def _report(
        self, control: Control, replaced: int | None, began: float, *, changed: bool
    ) -> MigrationReport:
        return MigrationReport(
            changed=changed,
            generation=control.generation,
            replaced=replaced,
            key_id=control.active.id,
            key_fingerprint=control.active.fingerprint,
            events=self._follower.seen,
            copied=self._copied,
            purged=self._purged,
            seconds=time.monotonic() - began,
            locked_seconds=self._locked_seconds,
        )

    # --- begin -----------------------------------------------------------------------

    async def _begin(self) -> tuple[Control, Head | None]:
        """What is migrated, and the head row of the generation to build, found or made; None
        where there is nothing to do."""
        database = self._database

        def begin(connection: Connection, standing: Standing) -> Attempt | Head | tuple[()] | None:
            if standing.control is not control:
                return ()  # a rotation, or another migrator, was faster
            if lock_control(connection, database, control) is None:
                return None
            heads = heads_of_generations(connection, database)
            found = self._building(heads, control)
            if found is None:
                number = max(head.generation for head in heads) + 1
                found = Head(number, 0, 0, control.epoch, "building")
                connection.execute(database.statements.insert_head, found._asdict())
            return found

        while True:
            control = (await self._follower.follow()).control
            _check_current_key(self._follower, control)
            building = self._building(await self._heads(), control)
            if building is not None or not await self._is_needed(control):
                return control, building
            begun = await commit(self._follower, begin, patience=self._patience)
            if isinstance(begun, Head):
                return control, begun

    async def _heads(self) -> Sequence[Head]:
        database = self._database
        return await database.run(lambda c: heads_of_generations(c, database), "statement")

    async def _is_needed(self, control: Control) -> bool:
        """Whether any event of the generation in use needs another key than the active one."""
        in_use = [head for head in await self._heads() if head.generation == control.generation]
        self._follower.saw(in_use[0])
        # Purged rows keep the key that they had, and need none.
        return any(
            use.events and use.key_fingerprint != control.active.fingerprint
            for use in await uses(self._database, in_use)
        )

    def _building(self, heads: Sequence[Head], control: Control) -> Head | None:
        found = next((head for head in heads if head.state == "building"), None)
        if found is not None and found.key_epoch != control.epoch:
            raise MigrationInProgress(
                f"generation {found.generation} was begun under another key than the active one",
                hint="secret-ledger migrate --abandon, then migrate again",
                generation=found.generation,
            )
        return found

    async def _end(self) -> int:
        """Where the log in use ends by now."""
        generation = self._follower.standing.control.generation
        return next(h.position for h in await self._heads() if h.generation == generation)

    # --- copy ------------------------------------------------------------------------

    async def _copy(self, building: Head) -> Head:
        """Copy what lies between the building generation's end and the log's."""
        standing = await self._follower.follow()
        held = _held(standing)
        bound = await self._end()
        scan = self._scan(standing.control)
        async for rows in scan.pages(
            bound, after=building.position, time_before=building.recorded_at
        ):
            if scan.tally.findings:
                continue  # to name all that must be mended before it can go on
            newest = await self._newest(building.generation, rows)
            copied = await to_thread.run_sync(
                reseal, standing.control, held, building.generation, rows, newest
            )
            building = await self._append(building, copied.events)
            self._copied += len(copied.events)
            self._purged += copied.purged
            self._tell(building.position, bound, 0)
        scan.tally.report("full", 0).raise_if_not_ok()
        return building

    def _scan(self, control: Control) -> Scan:
        return Scan(self._database, control, self._follower.standing.keys, Tally(), None)

    def _tell(self, done: int, total: int, passes: int) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(passes * total + min(done, total), 2 * total))

    async def _newest(self, generation: int, rows: Sequence[CheckedRow]) -> dict[str, bytes]:
        streams = sorted({row.event.stream for row in rows if row.event.version > 1})
        database = self._database

        def unit(connection: Connection) -> dict[str, bytes]:
            found = database.heads_of(connection, generation, streams)
            return {event.stream: event.event_hash for event in found}

        return await database.run(unit, "statement")

    async def _append(self, before: Head, events: Sequence[Event]) -> Head:
        """Add a page to the building generation, whose head row must be where it was."""
        last = events[-1]
        after = before._replace(position=last.position, recorded_at=last.recorded_at)
        database = self._database

        def unit(connection: Connection) -> bool:
            moved = replace_head(connection, database, before, after)
            if moved:
                self._enter(connection, before, events)
            return moved

        give_up = time.monotonic() + self._patience
        while True:
            try:
                if await database.run(unit, "write"):
                    return after
            except LedgerError as error:
                if is_refusal(error):
                    await self._check_free(before)
                if not is_transient(error) or time.monotonic() > give_up:
                    raise
            # The lost transaction may have been committed; nonces are random, so equal
            # hashes are this very page.
            if await database.run(lambda c: self._is_there(c, last), "statement"):
                return after
            if await database.run(lambda c: self._is_elsewhere(c, before), "statement"):
                raise _in_progress(before.generation)

    async def _check_free(self, building: Head) -> None:
        """Raises TamperedEvent where others' rows lie in the building generation."""
        sql, place_of = self._database.statements, {"generation": building.generation}
        first, last = await self._database.run(
            lambda c: c.execute(sql.ends, place_of).one(), "statement"
        )
        if first is not None and (first < 1 or last > building.position):
            reason = f"rows that are not the copy's lie there, at positions {first} to {last}"
            raise _not_the_same(building, Finding("tampered", reason, building.position + 1))

    def _is_there(self, connection: Connection, event: Event) -> bool:
        place_of = {"generation": event.generation, "position": event.position}
        row = connection.execute(self._database.statements.event_at_position, place_of).first()
        return row is not None and Event.of_row(row).event_hash == event.event_hash

    def _is_elsewhere(self, connection: Connection, before: Head) -> bool:
        return before not in heads_of_generations(connection, self._database)

    def _enter(self, connection: Connection, before: Head, events: Sequence[Event]) -> None:
        self._database.insert_events(connection, events)
        for projection in self._projections:
            projection.apply(connection, self._database, before, events)

    # --- prove -----------------------------------------------------------------------

    async def _prove(self, building: Head, after: int, bound: int) -> None:
        """Read both generations back and compare them. Raises TamperedEvent that names the
        first position where they differ."""
        standing = self._follower.standing
        old, new = standing.control, _as_opened(standing.control, building, bound)
        database = self._database
        scan = self._scan(new)
        pages = scan.pages(bound, after=after, time_before=0)
        async for copies in pages:
            last = copies[-1].event.position
            originals: list[CheckedRow] = []
            while not originals or originals[-1].event.position < last:
                start = originals[-1].event.position if originals else after

                def page(connection: Connection, start: int = start) -> list[CheckedRow]:
                    return check_page(connection, database, old.generation, start, last)  # noqa: B023

                more = await database.run(page, "snapshot")
                if not more:
                    break
                originals += more
            for finding in await to_thread.run_sync(
                differences, old, new, standing.keys, originals, copies
            ):
                scan.tally.add(finding)
            if scan.tally.findings:
                break
            after = last
            self._tell(after, bound, 1)
        if not scan.tally.findings and after != bound:
            scan.tally.add(Finding("tampered", f"it ends at {after}, not at {bound}", after + 1))
        for finding in scan.tally.findings:
            # Not tampering where it was thrown away, or put in use and its source purged.
            if await database.run(lambda c: self._is_elsewhere(c, building), "statement"):
                raise _in_progress(building.generation)
            raise _not_the_same(building, finding)

    # --- flip ------------------------------------------------------------------------

    async def _flip(self, building: Head) -> bool:
        """Put the generation in use. False where the last stretch needs a closer look."""
        database = self._database
        source = self._follower.standing.control.generation
        began = 0.0

        def flip(connection: Connection, standing: Standing) -> Attempt | tuple[()] | None:
            nonlocal began
            control, held = standing.control, _held(standing)
            if control.generation != source:
                raise _in_progress(building.generation)
            locked = lock_control(connection, database, control)
            if locked is None:
                return None
            if database.lock_generation(connection, building.generation) != building:
                raise _in_progress(building.generation)
            began = time.monotonic()
            last = self._last_stretch(connection, standing, building, locked.head)
            if last is None:
                return ()
            return self._hand_over(connection, control, held, locked, building, last)

        done = await commit(self._follower, flip, patience=self._patience)
        self._locked_seconds += time.monotonic() - began
        return isinstance(done, Attempt)

    def _last_stretch(
        self, connection: Connection, standing: Standing, building: Head, head: Head
    ) -> Sequence[Event] | None:
        """Copy what was written since the last page, all writers waiting; None where a row
        of it does not check out by itself, for `_copy` to look at."""
        database, control = self._database, standing.control
        rows: list[CheckedRow] = []
        while (rows[-1].event.position if rows else building.position) < head.position:
            start = rows[-1].event.position if rows else building.position
            page = check_page(connection, database, control.generation, start, head.position)
            if not page:
                return None
            rows += page
        if self._scan(control).check(rows, building.position, building.recorded_at):
            return None
        streams = sorted({row.event.stream for row in rows if row.event.version > 1})
        newest = {
            event.stream: event.event_hash
            for event in database.heads_of(connection, building.generation, streams)
        }
        copied = reseal(control, _held(standing), building.generation, rows, newest)
        copies = [CheckedRow(event, None, None, None) for event in copied.events]
        new = _as_opened(control, building, head.position)
        for finding in differences(control, new, standing.keys, rows, copies):
            raise _not_the_same(building, finding)
        self._copied += len(copied.events)
        self._purged += copied.purged
        return copied.events

    def _hand_over(
        self,
        connection: Connection,
        control: Control,
        held: HeldKeys,
        locked: LockedHead,
        building: Head,
        last: Sequence[Event],
    ) -> Attempt:
        database = self._database
        metadata = generation_metadata(
            building.generation, control.generation, held.active_id, held.active.fingerprint,
            actor=self._actor,
        )  # fmt: skip
        closed = control_events(
            control, held, locked, [Entry(EventType.GENERATION_CLOSED, metadata)]
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
            metadata,
            before[-1].event_hash if before else NO_HASH,
        )
        opened = place(
            control.ledger_id,
            building.generation,
            draft,
            end.position,
            locked.now,
            held.active,
            held.active_id,
        )
        new = end._replace(generation=building.generation, state="active")
        if not replace_head(connection, database, building, new):
            raise _in_progress(building.generation)
        self._enter(connection, building, [*last, opened])
        self._check_put_in_use(connection, building, new)
        return Attempt(control.generation, closed[0], new)

    def _check_put_in_use(self, connection: Connection, building: Head, new: Head) -> None:
        """Look at what is about to be committed as the boot gate will: nobody could open a
        generation whose control stream was changed since it was proven."""
        database = self._database
        ends = connection.execute(database.statements.ends, {"generation": new.generation}).one()
        if tuple(ends) != (1, new.position):
            reason = f"its rows are at positions {ends[0]} to {ends[1]}, not 1 to {new.position}"
            raise _not_the_same(building, Finding("tampered", reason, ends[1]))
        meta = read_meta(connection, database)
        assert meta is not None  # noqa: S101  # it was read when this ledger was opened
        problem: TamperedEvent
        try:
            judge(check_state(read_state(connection, database, meta)), self._follower.keyring)
            return
        except TamperedEvent as error:
            problem = error
        position = problem.details.get("position")
        raise _not_the_same(building, Finding("tampered", problem.message, position))


async def migrate(
    follower: Follower,
    projections: Sequence[InlineProjection],
    *,
    dry_run: bool,
    actor: str | None,
    on_progress: Tell | None,
    patience: float,
) -> MigrationReport:
    """Replay the whole history under the active key into the next generation.

    The configured key is the active one: a pending one is rotated to before. Raises
    KeyReused where it was superseded, MigrationInProgress, TamperedEvent or MissingKey with
    the list of events that can't be opened, LedgerUnavailable.
    """
    control = (await follower.follow()).control
    _check_current_key(follower, control, may_be_pending=dry_run)
    migrator = Migrator(
        follower, projections, actor=actor, on_progress=on_progress, patience=patience
    )
    return await (migrator.rehearse() if dry_run else migrator.run())


def _check_current_key(
    follower: Follower, control: Control, *, may_be_pending: bool = False
) -> None:
    current = follower.keyring.current.for_ledger(control.ledger_id)
    pending = may_be_pending and control.key(current.fingerprint) is None
    if current.fingerprint != control.active.fingerprint and not pending:
        raise KeyReused(
            f"the configured key {current.id} is not the active one, {control.active.id}",
            hint="make the active key the current one, or rotate to a new one",
        )


def _held(standing: Standing) -> HeldKeys:
    if standing.held is None:
        raise standing.refusal or MigrationInProgress("this node may not write")
    return standing.held


def _as_opened(control: Control, building: Head, bound: int) -> Control:
    """The control stream as it will be once the generation is opened: all under one key."""
    return replace(
        control,
        generation=building.generation,
        opened=(bound + 1, control.active.fingerprint),
        closed=None,
    )


def _in_progress(generation: int) -> MigrationInProgress:
    return MigrationInProgress(
        f"another process is building generation {generation}, has put it in use, or threw it away",
        hint="let it finish; `secret-ledger generations list` shows how far it is",
        generation=generation,
    )


def _not_the_same(building: Head, finding: Finding) -> TamperedEvent:
    where = f"{finding.stream} at position" if finding.stream else "position"
    return TamperedEvent(
        f"generation {building.generation} is not what it was made of: {where}"
        f" {finding.position}: {finding.reason}",
        hint="the generation in use is untouched; throw the new one away with"
        " `secret-ledger migrate --abandon`, look for who writes to the database besides the"
        " ledger, then migrate again",
        generation=building.generation,
        position=finding.position,
        stream=finding.stream,
    )
