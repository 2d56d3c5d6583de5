"""Copies the next generation page by page and proves it: in the same database, or in another.

::

    copy      a page is read and opened, sealed anew, and appended to the building generation
    prove     once the page is committed, it is read back, opened, and compared with the
              originals that it was made of

While one page is written, the next page is read and sealed, and the page before is proven. A
builder keeps nothing but rows. If it is killed at any moment, the next run goes on from the
building head row. For pages that earlier runs copied, the next run reads and opens both sides.

Each append states the position of the building head row, so a second builder is refused. If
somebody changes the copy after its proof, reads and `verify` find that, as in any generation. If
nobody could open the changed copy, the flip is refused.
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
"""Events that may be left for the last transaction, which makes writers wait."""
MOST_WAITED_FOR = 50 * BACKLOG
"""Events that may be copied while writers wait, at the very most: all of them are in memory."""
ROUNDS = 20
"""Rounds in which the copy follows writers that are as fast as the copy; then they must wait."""


def kept_in(
    connection: Connection, database: Database, projections: Sequence[InlineProjection]
) -> Sequence[InlineProjection]:
    """The projections whose table exists in `database`, or that can't say whether it exists.

    Opening the ledger in `database` makes and folds the other projections.
    """
    return [
        each
        for each in projections
        if not isinstance(each, Installable) or each.is_installed(connection, database)
    ]


def sealing_keys(standing: Standing) -> SealingKeys:
    """The keys that the copy is sealed under, even if the ledger has moved and nobody writes here.

    Raises KeyFingerprintMismatch or StaleKey if this process does not hold the active key.
    """
    if standing.moved:
        return choose_keys(standing.control, standing.keys.values())
    return standing.check_may_write()


@dataclass(frozen=True, slots=True)
class _Page:
    """The originals and events of one append to the building generation."""

    before: LogHead
    """The building head row before the append."""
    after: LogHead
    originals: CheckedPage
    written: Sequence[Event]
    key: LedgerKey
    """The key that all events of the page were sealed under."""

    def part(self, after: int, last: int) -> tuple[CheckedPage, Sequence[Event]]:
        """The originals above position `after` up to `last`, and the events made of them."""
        first = self.before.position + 1
        return self.originals.part(after, last), self.written[after + 1 - first : last + 1 - first]


class Builder:
    """Fills a building generation of `target` with the history of the followed ledger."""

    def __init__(
        self,
        session: Session,
        target: Database,
        *,
        on_progress: OnProgress | None,
    ) -> None:
        self.copied = 0
        """Events that this run has copied."""
        self.purged = 0
        """Events that this run has copied without their data."""
        self._follower = session.follower
        self._source = session.database
        self._target = target
        self._projections = session.projections
        self._on_progress = on_progress
        self._patience = session.patience
        self._kept: Sequence[InlineProjection] | None = None
        self._bound = 0
        """The position at which the copy under way ends."""
        self._proven = 0
        self._left_out = RowDigest()
        """The proven rows whose key was lost before."""
        self._earlier: int | None = None
        """The position up to which earlier runs have copied; None before the first `complete`."""

    async def approach(self, building: LogHead) -> LogHead:
        """Copy and prove until few enough events are left, or until `ROUNDS` rounds have passed."""
        for _ in range(ROUNDS):
            building = await self.complete(building)
            if await self._end() - building.position <= BACKLOG:
                break
        return building

    async def complete(self, building: LogHead) -> LogHead:
        """Copy up to the present end of the log, and prove all that this run has not proven.

        Raises TamperedEvent or MissingKey, with the list, if events can't be opened. Raises
        MigrationInProgress if another builder is at work.
        """
        self._bound = await self._end()
        if self._earlier is None:
            self._earlier = building.position
            if self._earlier:  # first: the digest of the rows left out is in order of position
                await self._prove_earlier(building, self._earlier)
        async with aclosing(ahead(self._copy(building))) as pages:
            async for page in pages:
                await self._prove(page)
                building = page.after
        return building

    async def _end(self) -> int:
        """If the log was closed, the event that closed it is not copied: the log ends before it."""
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
        async with aclosing(ahead(self._resealed(building))) as pages:
            async for page, copied, key in pages:
                before, building = building, await self.append(building, copied.events)
                self._count(copied)
                self._tell(building)
                yield _Page(before, building, page, copied.events, key)

    async def _resealed(
        self, building: LogHead
    ) -> AsyncGenerator[tuple[CheckedPage, Copied, LedgerKey]]:
        """Yields each page to append, with its originals.

        The page before may not be committed yet; all earlier pages are.
        """
        standing = await self._follower.follow(read=through_outages)
        sealing, control = sealing_keys(standing), standing.control
        scan = self._scan(self._source, Rules(control, standing.keys))
        pages = scan.pages(self._bound, after=building.position, time_before=building.recorded_at)
        last: dict[str, bytes] = {}
        async with aclosing(pages):
            async for page in pages:
                if scan.tally.findings:
                    continue  # only to find every damaged row: the report names them all
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
        """Add events to the building generation, if its head row is still `before`.

        From then on, the head row says `state`. If `check` raises, nothing is committed. Raises
        MigrationInProgress if the head row has changed, and TamperedEvent if rows that are not the
        copy's lie in the generation.
        """
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
            # The lost transaction may have been committed. Nonces are random, so equal hashes
            # mean the same events.
            if await through_outages(database, lambda c: self._is_there(c, last), "statement"):
                return after
            if await through_outages(
                database, lambda c: self._is_elsewhere(c, before), "statement"
            ):
                raise another_builder(before.generation)

    async def _check_free(self, building: LogHead) -> None:
        """Raises TamperedEvent if rows that are not the copy's lie in the building generation."""
        sql, place_of = self._target.statements, {"generation": building.generation}
        first, last = await through_outages(
            self._target, lambda c: c.execute(sql.ends, place_of).one(), "statement"
        )
        if first is not None and (first < 1 or last > building.position):
            reason = (
                f"the new generation has rows at positions {first} to {last} that the copy did"
                " not write"
            )
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
        """Write events after the head row `before`, and fold them into the projections.

        The caller moves the head row in the same transaction.
        """
        self._target.insert_events(connection, events)
        if self._kept is None:
            self._kept = kept_in(connection, self._target, self._projections)
        for projection in self._kept:
            keep(projection, connection, self._target, before, events)

    # --- prove -----------------------------------------------------------------------

    async def _prove(self, page: _Page) -> None:
        """Reads a committed page back, opens it, and compares it with its originals.

        Raises TamperedEvent, which names the first position that differs.
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
        """Counts positions above `after` up to `last` as proven, or raises the first finding."""
        for finding in found:
            # If the generation was abandoned, or is in use and its source purged, this is no
            # tampering.
            if not await through_outages(
                self._target, lambda c: self._is_building(c, building), "statement"
            ):
                raise another_builder(building.generation)
            raise not_the_same(building, finding)
        self._proven += last - after
        self._tell(building)

    async def _prove_earlier(self, building: LogHead, bound: int) -> None:
        """Proves rows that earlier runs copied, up to `bound`: both sides are read and opened."""
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
        """Like `_prove`, for rows whose written events are not in memory."""
        standing, bound = self._follower.standing, originals.last.position
        opened = _as_opened(standing.control, building, bound)
        # The `secret.destroyed` of a copied stream may not have been copied yet.
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
            ended = Finding(
                "tampered", f"the copy ends at position {after}, not at {bound}", after + 1
            )
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
        """The fact about rows under lost keys that the generation's opening seals.

        It covers all rows that were proven, and the rows `last`.
        """
        return self._count_left_out(last, self._left_out.copy()).facts()

    # --- the last stretch ------------------------------------------------------------

    def last_stretch(
        self, connection: Connection, standing: Standing, building: LogHead, head: LogHead
    ) -> Sequence[Event] | None:
        """Read the source's events since the last page, check them, seal them anew and compare.

        All writers wait meanwhile. Returns None if a row does not check out by itself, or if more
        than `MOST_WAITED_FOR` events are left: then `complete` must look at them.

        If the target is another database, this is a rehearsal, and the events have no chains. So
        the source is closed only if its last events can be copied.
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
    """The version before the first row of each stream, for streams that have such a version."""
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
    """Judge the rows that this transaction will commit as the boot gate will judge them.

    Deferred triggers run first: they may change rows. Returns the refusal if nobody could open the
    ledger, else None. Raises LedgerUnavailable.
    """
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
        raise  # this says nothing about the rows
    except LedgerError as error:
        return error
    return None


def another_builder(generation: int) -> MigrationInProgress:
    """The refusal of a builder whose head row is not as the builder left it."""
    return MigrationInProgress(
        f"another process is building generation {generation}, has put it in use, or threw it away",
        hint="let it finish; `secret-ledger generations list` shows how far it is",
        generation=generation,
    )


def not_the_same(building: LogHead, finding: Finding) -> TamperedEvent:
    """The error for a copy that differs from its originals."""
    where = f"{finding.stream} at position" if finding.stream else "position"
    return TamperedEvent(
        f"generation {building.generation} differs from its originals: {where}"
        f" {finding.position}: {finding.reason}",
        hint="the generation in use is untouched; throw the new one away with"
        " `secret-ledger migrate --abandon`, look for who writes to the database besides the"
        " ledger, then migrate again",
        generation=building.generation,
        position=finding.position,
        stream=finding.stream,
    )
