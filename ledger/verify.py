"""Verification: does what is stored open, chain and belong, and if not, which row is it?

`control` proves the control stream, `latest` also opens the head of every secret and counts
the rows, `full` opens every event and checks every chain, every position and the projections.
A library function with a progress callback and a report; the command is a thin shell.
The scan pages in short transactions up to a bound fixed at its start, in bounded memory, and
checks each page in a worker thread, so that the event loop stays free.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from anyio import to_thread
from sqlalchemy.engine import Connection

from ledger.authority import read_event
from ledger.control import Control, fold_control
from ledger.errors import LedgerError, MissingKey, SecretDestroyed, TamperedEvent
from ledger.events import CONTROL_STREAM, CONTROL_TYPES, NO_HASH, SECRET_TYPES, Event, EventType
from ledger.findings import (
    MAX_FINDINGS,
    Finding,
    Level,
    Progress,
    Tally,
    Tell,
    VerifyReport,
    check_level,
    finding_of,
)
from ledger.format import hash_of, printable
from ledger.gate import Standing
from ledger.keys import LedgerKey
from ledger.metadata import parse_metadata
from ledger.state import CheckedRow, Head, Meta
from ledger.store.database import Database
from ledger.store.reads import (
    check_page,
    heads_of_generations,
    heads_page,
    read_state,
)

__all__ = ["CheckedProjection", "Scan", "check_projections", "verify_ledger"]


@runtime_checkable
class CheckedProjection(Protocol):
    """A projection that can be held against its fold."""

    name: str

    def differences(self, database: Database, head: Head) -> AsyncIterator[str]:
        """Each way in which the table, at `head`, is not what the log folds to."""
        ...


async def verify_ledger(
    database: Database,
    meta: Meta,
    standing: Standing,
    level: Level,
    *,
    projections: Sequence[CheckedProjection] = (),
    on_progress: Tell | None = None,
) -> VerifyReport | None:
    """Check what lies in `database`, whose control stream `standing` has verified already.

    What is written while it runs is never a finding; so None where the control stream has
    grown since `standing`: read on, then try again. Raises LedgerUnavailable, and InvalidValue
    for a level that there is not.
    """
    check_level(level)
    began = time.monotonic()
    tally = Tally()
    control = standing.control
    if level == "control":
        tally.events = len(control.events)
        tally.by_key.update(e.key_id for e in control.events)
        return tally.report(level, time.monotonic() - began)

    state = await database.run(lambda c: read_state(c, database, meta), "snapshot")
    head = next((h for h in state.heads if h.generation == control.generation), None)
    if head is None:
        raise TamperedEvent(f"the head row of generation {control.generation} is gone")
    if [e.event_hash for e in state.control] != [e.event_hash for e in control.events]:
        return None
    scan = Scan(database, control, standing.keys, tally, on_progress)
    if level == "latest":
        await scan.count_rows()
        await scan.heads(head)
        return tally.report(level, time.monotonic() - began)

    tally.heads = await scan.every_event(head)
    await scan.count_rows()
    await scan.other_generations(state.heads, meta)
    await check_projections(database, head, projections, tally)
    return tally.report(level, time.monotonic() - began)


async def check_projections(
    database: Database, head: Head, projections: Sequence[CheckedProjection], tally: Tally
) -> None:
    """Add each way in which a projection, at `head`, is not what the log folds to."""
    for projection in projections:
        async for difference in projection.differences(database, head):
            tally.add(Finding("projection", f"{projection.name}: {difference}"))


@dataclass(slots=True)
class Scan:
    """One pass over one generation; what it finds goes to the tally."""

    database: Database
    control: Control
    keys: Mapping[bytes, LedgerKey]
    tally: Tally
    on_progress: Tell | None
    missing_keys_matter: bool = True

    @property
    def generation(self) -> int:
        return self.control.generation

    def _tell(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(done, total))

    async def count_rows(self) -> None:
        """As many rows as the head row says by now, and each stream's versions are 1 to n.

        So no row lies behind the end of the log or outside of its stream: a head that was
        given an older version's place, say, where no read comes across it.
        """

        def unit(
            connection: Connection,
        ) -> tuple[Head | None, Sequence[Any], int, list[Sequence[Any]]]:
            sql = self.database.statements
            place = {"generation": self.generation}
            heads = heads_of_generations(connection, self.database)
            head = next((h for h in heads if h.generation == self.generation), None)
            counts = connection.execute(sql.count, place).one()
            in_streams = connection.execute(sql.count_by_stream, place).scalar_one()
            broken = connection.execute(sql.broken_streams, {**place, "limit": MAX_FINDINGS})
            return head, counts, in_streams, list(broken)

        head, (count, first, last), in_streams, broken = await self.database.run(unit, "snapshot")
        if head is None or head.state in ("purging", "purged"):
            return
        if (count, first, last) != (head.position, 1, head.position):
            self.tally.add(
                Finding(
                    "tampered",
                    f"the log has {count} rows at positions {first} to {last}; its head row"
                    f" says {head.position}",
                    position=last if isinstance(last, int) and last > head.position else None,
                    generation=self.generation,
                )
            )
        if in_streams != count:
            self.tally.add(
                Finding(
                    "tampered",
                    f"the log has {count} rows, and {in_streams} are found by their streams:"
                    " an index of the database is damaged",
                    generation=self.generation,
                )
            )
        for stream, rows, lowest, highest in broken:
            self.tally.add(
                Finding(
                    "tampered",
                    f"it has {rows} rows, of versions {lowest} to {highest}",
                    stream=printable(stream),
                    version=highest if isinstance(highest, int) else None,
                    generation=self.generation,
                )
            )

    async def heads(self, head: Head) -> None:
        """Open the newest event of every secret."""
        after: str | None = None
        while True:
            page = await self.database.run(
                partial(
                    heads_page, database=self.database, generation=self.generation, after=after
                ),
                "statement",
            )
            if not page or page[-1].stream == after:  # no text at all sorts behind all text
                return
            after = page[-1].stream
            # A head beyond the bound was written meanwhile, over one that had to open.
            rows = [e for e in page if e.position <= head.position and e.stream != CONTROL_STREAM]
            for finding in await to_thread.run_sync(self._check_heads, rows):
                self.tally.add(finding)
            self.tally.heads += len(rows)
            self.tally.events += len(rows)
            self.tally.by_key.update(e.key_id for e in rows)
            self._tell(self.tally.heads, head.position)

    def _check_heads(self, rows: Sequence[Event]) -> list[Finding]:
        found = [self._check_one(event, destroyed_later=False) for event in rows]
        return [finding for finding in found if finding is not None]

    def _check_one(self, event: Event, *, destroyed_later: bool) -> Finding | None:
        try:
            if hash_of(self.control.ledger_id, event) != event.event_hash:
                return finding_of(event, "its hash does not match its row")
            read_event(self.control, self.keys, event, destroyed_later=destroyed_later)
        except SecretDestroyed:
            return None  # gone for good, and its hash is still what the chain says
        except MissingKey as error:
            # A control event has no value to miss; the active key's own seals cover the chain.
            if event.stream == CONTROL_STREAM or not self.missing_keys_matter:
                return None
            return finding_of(event, error)
        except LedgerError as error:
            return finding_of(event, error)
        return None

    async def every_event(self, head: Head) -> int:
        """Open every event and check every chain, position and time up to the head row's.

        Returns how many secrets have begun by then.
        """
        secrets = after = time_before = 0
        async for rows in self.pages(head.position):
            after, time_before = rows[-1].event.position, rows[-1].event.recorded_at
            secrets += sum(r.event.version == 1 for r in rows if r.event.stream != CONTROL_STREAM)
            self._tell(after, head.position)
        if after != head.position:
            self.tally.add(_gap(self.generation, after + 1, head.position))
        elif time_before != head.recorded_at:
            self.tally.add(
                Finding(
                    "tampered",
                    f"the head row's time is {head.recorded_at}, the last event's {time_before}",
                    generation=self.generation,
                )
            )
        return secrets

    async def pages(
        self, bound: int, *, after: int = 0, time_before: int = 0
    ) -> AsyncIterator[Sequence[CheckedRow]]:
        """The events above position `after` up to `bound`, page by page, each checked."""
        while True:
            rows = await self.database.run(
                partial(
                    check_page,
                    database=self.database,
                    generation=self.generation,
                    after=after,
                    bound=bound,
                ),
                "snapshot",
            )
            if not rows or rows[-1].event.position <= after:
                return
            suspects = await to_thread.run_sync(self.check, rows, after, time_before)
            for row, finding in suspects:
                if row is None or not await self._accounted_for(row):
                    self.tally.add(finding)
            after, time_before = rows[-1].event.position, rows[-1].event.recorded_at
            self.tally.events += len(rows)
            self.tally.by_key.update(r.event.key_id for r in rows)
            yield rows

    def check(
        self, rows: Sequence[CheckedRow], after: int, time_before: int
    ) -> list[tuple[CheckedRow | None, Finding]]:
        """What is wrong with these rows, as far as they tell; None for the row where it is
        not one of them that is at fault."""
        suspects: list[tuple[CheckedRow | None, Finding]] = []
        for row in rows:
            event = row.event
            if event.position <= after:
                suspects.append((None, finding_of(event, "another event has its position")))
            elif event.position != after + 1:
                suspects.append((None, _gap(self.generation, after + 1, event.position - 1)))
            if event.recorded_at < time_before:
                suspects.append((None, finding_of(event, "it is older than the event before it")))
            after, time_before = event.position, event.recorded_at
            finding = (
                self._check_kind(event)
                or self._check_end(row)
                or self._check_chain(row)
                or self._check_one(event, destroyed_later=(row.destroyed or 0) > event.version)
            )
            if finding is not None:
                suspects.append((row, finding))
        return suspects

    def _check_kind(self, event: Event) -> Finding | None:
        kinds = CONTROL_TYPES if event.stream == CONTROL_STREAM else SECRET_TYPES
        if event.event_type not in kinds:
            return finding_of(event, f"{printable(event.event_type)} is no event of such a stream")
        if parse_metadata(event.metadata).malformed:
            return finding_of(event, "its metadata is not readable")
        return None

    def _check_end(self, row: CheckedRow) -> Finding | None:
        event = row.event
        if event.event_type != EventType.DESTROYED or (row.destroyed or 0) >= event.version:
            return None
        return finding_of(event, "reads do not find it: an index of the database is damaged")

    def _check_chain(self, row: CheckedRow) -> Finding | None:
        event = row.event
        if event.version == 1:
            follows = event.prev_hash == NO_HASH
        elif row.previous_position is None:
            return finding_of(event, f"version {event.version - 1} before it is missing")
        else:
            follows = (
                row.previous_hash == event.prev_hash and row.previous_position < event.position
            )
        return None if follows else finding_of(event, "it does not follow the version before it")

    async def _accounted_for(self, row: CheckedRow) -> bool:
        """Whether the log itself says, under a seal, that this damage was ended.

        A `secret.destroyed` over a head that does not open states so, and chains to the row
        as it was found: that row is accounted for, as long as it stays as it was found.
        """
        event = row.event
        if event.event_type == EventType.DESTROYED and event.version > 1:
            damaged = await self._version(event.stream, event.version - 1)
            return damaged is not None and self._ends(event, damaged)
        end = await self._version(event.stream, event.version + 1)
        return end is not None and self._ends(end, event)

    def _ends(self, end: Event, damaged: Event) -> bool:
        try:
            return (
                end.event_type == EventType.DESTROYED
                and parse_metadata(end.metadata).ledger.get("unopened") is True
                and end.prev_hash == hash_of(self.control.ledger_id, damaged)
                and hash_of(self.control.ledger_id, end) == end.event_hash
                and read_event(self.control, self.keys, end) == b""
            )
        except LedgerError:
            return False

    async def _version(self, stream: str, version: int) -> Event | None:
        if not 0 < version < 2**63:
            return None

        def unit(connection: Connection) -> Event | None:
            row = connection.execute(
                self.database.statements.event_of_version,
                {
                    "generation": self.generation,
                    "stream": self.database.text(stream),
                    "version": version,
                },
            ).first()
            return None if row is None else Event.of_row(row)

        return await self.database.run(unit, "statement")

    async def other_generations(self, heads: Sequence[Head], meta: Meta) -> None:
        """Closed generations still chain; what no head row knows of is not ours."""
        states = {h.generation: h for h in heads}

        def unit(connection: Connection) -> list[tuple[int, int, int, int]]:
            sql = self.database.statements.generations_of_events
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(sql)]

        found = await self.database.run(unit, "statement")
        for generation, count, first, _ in found:
            head = states.get(generation)
            if head is None or head.state == "purged":
                self.tally.add(
                    Finding(
                        "tampered",
                        f"{count} rows lie in generation {generation}, which"
                        + (" does not exist" if head is None else " was purged"),
                        position=first,
                        generation=generation,
                    )
                )
            elif head.state == "closed" and generation != self.generation:
                await self._closed_generation(head, meta)
        with_rows = {generation for generation, *_ in found}
        for head in heads:
            if head.state in ("closed", "moved") and head.generation not in with_rows:
                self.tally.add(
                    Finding(
                        "tampered",
                        f"generation {head.generation} is {head.state} and has no rows",
                        generation=head.generation,
                    )
                )

    async def _closed_generation(self, head: Head, meta: Meta) -> None:
        state = await self.database.run(
            lambda c: read_state(c, self.database, meta, head.generation), "snapshot"
        )
        try:
            control = fold_control(meta.ledger_id, head.generation, state.control)
        except TamperedEvent as error:
            self.tally.add(Finding("tampered", error.message, generation=head.generation))
            return
        scan = Scan(
            self.database, control, self.keys, self.tally, self.on_progress,
            missing_keys_matter=False,
        )  # fmt: skip
        await scan.every_event(head)


def _gap(generation: int, first: int, last: int) -> Finding:
    missing = f"position {first} is" if first == last else f"positions {first} to {last} are"
    return Finding(
        "tampered", f"{missing} missing from the log", position=first, generation=generation
    )
