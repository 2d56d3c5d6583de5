"""The next generation, copied page by page and proven: into the same database, or another.

::

    copy      a page is read and opened, sealed anew, and appended to the building generation
    prove     as soon as it is committed it is read back, opened, and compared with the
              originals that it was made of

While one page is written, the next is read and sealed, and the last is proven. Nothing is kept
but rows: killed at any moment, the next run goes on where the building head row says; of what
earlier runs have copied it reads and opens both sides. Each page states that row's position, so
that a second builder is refused. What somebody changes in the copy once it is proven is found as
it is in any generation: by reads and `verify`; what nobody could open is refused before the flip.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from anyio import to_thread

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import (
    LedgerError,
    LedgerUnavailable,
    MigrationInProgress,
    NotALedger,
    TamperedEvent,
)
from secret_ledger.generations.reseal import Copied, differences, read_back, reseal
from secret_ledger.model.control import Control
from secret_ledger.model.events import Event
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.rows import CheckedRow, LogHead
from secret_ledger.rules.authority import SealingKeys, choose_keys
from secret_ledger.rules.findings import Finding, OnProgress, Progress, Tally
from secret_ledger.rules.gate import Standing, check_state, judge_keys
from secret_ledger.rules.row_checks import CheckedPage, Rules, missing_positions
from secret_ledger.rules.sealed_counts import RowDigest
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import is_refusal, is_transient
from secret_ledger.store.projection import InlineProjection, Installable
from secret_ledger.store.read_ahead import ahead
from secret_ledger.store.reads import (
    BULK,
    check_page,
    events_page,
    heads_of_generations,
    read_state,
)
from secret_ledger.store.retry import through_outages
from secret_ledger.store.schema import check_version, read_meta
from secret_ledger.store.transitions import replace_head
from secret_ledger.verify.scan import Scan
from secret_ledger.write.append import keep

__all__ = [
    "Builder",
    "another_builder",
    "kept_in",
    "not_the_same",
    "sealing_keys",
    "why_not_opened",
]

BACKLOG = 200
"""Events that may be left for the end: they are copied while writers wait."""
MOST_WAITED_FOR = 50 * BACKLOG
"""Events that are copied while writers wait, at the very most: they are all in memory."""
ROUNDS = 20
"""Times that the copy runs after writers that are as fast as it is, before it makes them wait."""


def kept_in(
    connection: Connection, database: Database, projections: Sequence[InlineProjection]
) -> Sequence[InlineProjection]:
    """The projections that `database` has tables for. The others are made, and folded, when
    the ledger is opened there."""
    return [
        each
        for each in projections
        if not isinstance(each, Installable) or each.is_installed(connection, database)
    ]


def sealing_keys(standing: Standing) -> SealingKeys:
    """What the copy is sealed under, also of a ledger that has moved, where nothing is written
    any more. Raises what keeps this process from it."""
    if standing.moved:
        return choose_keys(standing.control, standing.keys.values())
    return standing.check_may_write()


@dataclass(frozen=True, slots=True)
class _Page:
    """What was appended to the building generation in one transaction."""

    before: LogHead
    """The building head row, before it and after."""
    after: LogHead
    originals: CheckedPage
    written: Sequence[Event]
    key: LedgerKey
    """What all of it was sealed under."""

    def part(self, after: int, last: int) -> tuple[CheckedPage, Sequence[Event]]:
        """The originals above position `after` up to `last`, and what was written of them."""
        first = self.before.position + 1
        return self.originals.part(after, last), self.written[after + 1 - first : last + 1 - first]


class Builder:
    """Fills a building generation of `target` with the history of the ledger followed."""

    def __init__(
        self,
        session: Session,
        target: Database,
        *,
        on_progress: OnProgress | None,
    ) -> None:
        self.copied = 0
        """Events copied by this run."""
        self.purged = 0
        """How many of them without their data."""
        self._follower = session.follower
        self._source = session.database
        self._target = target
        self._projections = session.projections
        self._on_progress = on_progress
        self._patience = session.patience
        self._kept: Sequence[InlineProjection] | None = None
        self._bound = 0
        """Where the copy ends that is being made."""
        self._proven = 0
        self._left_out = RowDigest()
        """The proven rows whose key was lost before."""
        self._earlier: int | None = None
        """Up to where earlier runs have copied what this one has not proven."""

    async def approach(self, building: LogHead) -> LogHead:
        """Copy and prove until few enough events are left for the writers to wait for."""
        for _ in range(ROUNDS):
            building = await self.complete(building)
            if await self._end() - building.position <= BACKLOG:
                break
        return building

    async def complete(self, building: LogHead) -> LogHead:
        """Copy up to where the log ends by now, and prove all of it that this run has not.

        Raises TamperedEvent or MissingKey, with the list, where events can't be opened;
        MigrationInProgress beside another builder.
        """
        self._bound = await self._end()
        if self._earlier is None:
            self._earlier = building.position
            if self._earlier:  # in order of position, for what is sealed of the rows left out
                await self._prove_earlier(building, self._earlier)
        async with aclosing(ahead(self._copy(building))) as pages:
            async for page in pages:
                await self._prove(page)
                building = page.after
        return building

    async def _end(self) -> int:
        """Where the log to copy ends by now: before the event that closed it, if it is."""
        control = self._follower.standing.control
        if control.closed is not None:
            return control.closed - 1
        database = self._source
        heads = await through_outages(
            database, lambda c: heads_of_generations(c, database), "statement"
        )
        return next(head.position for head in heads if head.generation == control.generation)

    # --- copy ------------------------------------------------------------------------

    async def _copy(self, building: LogHead) -> AsyncGenerator[_Page]:
        """Each page that was appended."""
        async with aclosing(ahead(self._resealed(building))) as pages:
            async for page, copied, key in pages:
                before, building = building, await self.append(building, copied.events)
                self._count(copied)
                self._tell(building)
                yield _Page(before, building, page, copied.events, key)

    async def _resealed(
        self, building: LogHead
    ) -> AsyncGenerator[tuple[CheckedPage, Copied, LedgerKey]]:
        """Each page to append, with its originals. The one before it may still be under way to
        the database; those before that are there."""
        standing = await self._follower.follow(read=through_outages)
        sealing, control = sealing_keys(standing), standing.control
        scan = self._scan(self._source, Rules(control, standing.keys))
        pages = scan.pages(self._bound, after=building.position, time_before=building.recorded_at)
        last: dict[str, bytes] = {}
        async with aclosing(pages):
            async for page in pages:
                if scan.tally.findings:
                    continue  # to name all that must be mended before it can go on
                hashes = await self._hashes_before(building.generation, page.rows) | last
                copied = await to_thread.run_sync(
                    reseal, control, sealing, building.generation, page, hashes
                )
                last = {event.stream: event.event_hash for event in copied.events}
                yield page, copied, sealing.active
        scan.tally.report("full", 0).raise_if_not_ok()

    def _scan(self, database: Database, rules: Rules) -> Scan:
        return Scan(database, rules, Tally(), read=through_outages, page=BULK, read_ahead=False)

    def _count(self, copied: Copied) -> None:
        self.copied += len(copied.events)
        self.purged += copied.purged

    def _tell(self, building: LogHead) -> None:
        if self._on_progress is not None:
            done = building.position + self._proven
            self._on_progress(Progress(done, 2 * max(self._bound, building.position)))

    async def _hashes_before(self, generation: int, rows: Sequence[CheckedRow]) -> dict[str, bytes]:
        database, versions = self._target, _followed(rows)
        if not versions:
            return {}
        return await through_outages(
            database, lambda c: database.hashes_of(c, generation, versions), "statement"
        )

    # --- append ----------------------------------------------------------------------

    async def append(
        self,
        before: LogHead,
        events: Sequence[Event],
        *,
        state: str = "building",
        check: Callable[[Connection], None] | None = None,
    ) -> LogHead:
        """Add events to the building generation, whose head row must be where it was; from
        then on it is `state`. What `check` raises keeps it from being committed."""
        last = events[-1]
        after = before._replace(position=last.position, recorded_at=last.recorded_at, state=state)
        database = self._target

        def unit(connection: Connection) -> bool:
            replaced = replace_head(connection, database, before, after)
            if replaced:
                self.append_copies(connection, before, events)
                if check is not None:
                    check(connection)
            return replaced

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
            # hashes are these very events.
            if await through_outages(database, lambda c: self._is_there(c, last), "statement"):
                return after
            if await through_outages(
                database, lambda c: self._is_elsewhere(c, before), "statement"
            ):
                raise another_builder(before.generation)

    async def _check_free(self, building: LogHead) -> None:
        """Raises TamperedEvent where others' rows lie in the building generation."""
        sql, place_of = self._target.statements, {"generation": building.generation}
        first, last = await through_outages(
            self._target, lambda c: c.execute(sql.ends, place_of).one(), "statement"
        )
        if first is not None and (first < 1 or last > building.position):
            reason = f"rows that are not the copy's lie there, at positions {first} to {last}"
            raise not_the_same(building, Finding("tampered", reason, building.position + 1))

    def _is_there(self, connection: Connection, event: Event) -> bool:
        place_of = {"generation": event.generation, "position": event.position}
        row = connection.execute(self._target.statements.event_at_position, place_of).first()
        return row is not None and Event.of_row(row).event_hash == event.event_hash

    def _is_elsewhere(self, connection: Connection, before: LogHead) -> bool:
        return before not in heads_of_generations(connection, self._target)

    def _is_building(self, connection: Connection, building: LogHead) -> bool:
        return (building.generation, "building") in {
            (head.generation, head.state) for head in heads_of_generations(connection, self._target)
        }

    def append_copies(
        self, connection: Connection, before: LogHead, events: Sequence[Event]
    ) -> None:
        """Write events behind `before`, the head row, which moves on in the same transaction;
        the projections are kept."""
        self._target.insert_events(connection, events)
        if self._kept is None:
            self._kept = kept_in(connection, self._target, self._projections)
        for projection in self._kept:
            keep(projection, connection, self._target, before, events)

    # --- prove -----------------------------------------------------------------------

    async def _prove(self, page: _Page) -> None:
        """Read back what was committed, open it, and compare it with its originals.

        Raises TamperedEvent that names the first position where they differ.
        """
        database, building = self._target, page.after
        after, bound = page.before.position, building.position
        while after < bound:
            read = partial(
                events_page,
                database=database,
                generation=building.generation,
                after=after,
                bound=bound,
                limit=BULK,
            )
            stored = await through_outages(database, read, "statement")
            last = max((event.position for event in stored), default=bound)
            found = await to_thread.run_sync(
                read_back,
                self._follower.standing.control.ledger_id,
                page.key.event_cipher,
                *page.part(after, last),
                stored,
            )
            await self._agreed(building, after, last, found)
            self._count_left_out(stored, self._left_out)
            after = last

    async def _agreed(
        self, building: LogHead, after: int, last: int, found: Sequence[Finding]
    ) -> None:
        """What lies above position `after` up to `last` is proven, unless something was found."""
        for finding in found:
            # Not tampering where it was thrown away, or put in use and its source purged.
            if not await through_outages(
                self._target, lambda c: self._is_building(c, building), "statement"
            ):
                raise another_builder(building.generation)
            raise not_the_same(building, finding)
        self._proven += last - after
        self._tell(building)

    async def _prove_earlier(self, building: LogHead, bound: int) -> None:
        """What earlier runs have copied up to `bound`: here both sides are read and opened."""
        control, after = self._follower.standing.control, 0
        scan = self._scan(self._source, Rules(control, self._follower.standing.keys))
        async with aclosing(ahead(scan.pages(bound))) as pages:
            async for page in pages:
                if not scan.tally.findings:
                    await self._prove_both(building, after, page)
                after = page.last.position
        if after != bound:
            scan.tally.add(missing_positions(control.generation, after + 1, bound))
        scan.tally.report("full", 0).raise_if_not_ok()

    async def _prove_both(self, building: LogHead, after: int, originals: CheckedPage) -> None:
        """Like `_prove`, of what nobody has in hand that was written."""
        standing, bound = self._follower.standing, originals.last.position
        opened = _as_opened(standing.control, building, bound)
        # What ends them may not have been copied yet.
        scan = self._scan(self._target, Rules(opened, standing.keys, known_ends=originals.ends))
        async with aclosing(scan.pages(bound, after=after)) as pages:
            async for copies in pages:
                last = copies.last.position
                part = originals.part(after, last)
                found = await to_thread.run_sync(differences, part, copies)
                await self._agreed(building, after, last, [*scan.tally.findings, *found])
                self._count_left_out([row.event for row in copies.rows], self._left_out)
                after = last
        if after != bound:
            ended = Finding("tampered", f"it ends at {after}, not at {bound}", after + 1)
            await self._agreed(building, after, bound, [ended])

    def _count_left_out(self, events: Iterable[Event], digest: RowDigest) -> RowDigest:
        lost = {
            key.fingerprint for key in self._follower.standing.control.keys if key.lost is not None
        }
        for event in events:
            if event.key_fingerprint in lost:
                digest.add(event)
        return digest

    def left_out(self, last: Sequence[Event] = ()) -> Mapping[str, Any]:
        """What the generation's opening seals: the rows whose key was lost before, of all that
        was proven and of the `last` ones."""
        return self._count_left_out(last, self._left_out.copy()).facts()

    # --- the last stretch ------------------------------------------------------------

    def last_stretch(
        self, connection: Connection, standing: Standing, building: LogHead, head: LogHead
    ) -> Sequence[Event] | None:
        """What was written since the last page, read at the source with all writers waiting,
        checked, sealed anew and compared. None where a row does not check out by itself, for
        `complete` to look at.

        Where the target is another database these are a rehearsal, without their chains: that
        they can be written there is known before the source is closed.
        """
        database, control = self._source, standing.control
        if head.position - building.position > MOST_WAITED_FOR:
            return None
        rows: list[CheckedRow] = []
        while (rows[-1].event.position if rows else building.position) < head.position:
            start = rows[-1].event.position if rows else building.position
            more = check_page(connection, database, control.generation, start, head.position)
            if not more:
                return None
            rows += more
        page = Rules(control, standing.keys).check(rows, building.position, building.recorded_at)
        if page.suspects:
            return None
        before: dict[str, bytes] = {}
        if self._target is database:
            before = database.hashes_of(connection, building.generation, _followed(rows))
        copied = reseal(control, sealing_keys(standing), building.generation, page, before)
        rules = Rules(_as_opened(control, building, head.position), standing.keys)
        copies = rules.open(
            [row._replace(event=new) for row, new in zip(rows, copied.events, strict=True)]
        )
        for finding in [*(f for _, f in copies.suspects), *differences(page, copies)]:
            raise not_the_same(building, finding)
        if self._target is database:
            self._count(copied)
        return copied.events


def _followed(rows: Sequence[CheckedRow]) -> dict[str, int]:
    """The version before the first of each stream, of those that have one."""
    versions: dict[str, int] = {}
    for row in rows:
        versions.setdefault(row.event.stream, row.event.version - 1)
    return {stream: version for stream, version in versions.items() if version}


def _as_opened(control: Control, building: LogHead, bound: int) -> Control:
    """The control stream as it will be once the generation is opened: all under one key."""
    opening = (max(bound, control.last.position) + 1, control.active.fingerprint)
    return replace(
        control,
        generation=building.generation,
        opened=opening,
        openings=(*control.openings, opening),
        closed=None,
    )


def why_not_opened(
    connection: Connection, database: Database, keyring: Keyring
) -> LedgerError | None:
    """Look at what is about to be committed as the boot gate will, and as it will be then; why
    nobody could open it, if so."""
    database.run_deferred(connection)
    try:
        meta = read_meta(connection, database)
        if meta is None:
            raise NotALedger(f"{database.place} holds no ledger any more")
        check_version(meta)
        state = read_state(connection, database, meta)
        control = check_state(state)
        judge_keys(control, keyring, moved=state.in_use[0].state == "moved")
    except LedgerUnavailable:
        raise  # that says nothing of what lies there
    except LedgerError as error:
        return error
    return None


def another_builder(generation: int) -> MigrationInProgress:
    """What a builder is refused with whose head row is not where it left it."""
    return MigrationInProgress(
        f"another process is building generation {generation}, has put it in use, or threw it away",
        hint="let it finish; `secret-ledger generations list` shows how far it is",
        generation=generation,
    )


def not_the_same(building: LogHead, finding: Finding) -> TamperedEvent:
    """What is raised where the copy is not what it was made of."""
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
