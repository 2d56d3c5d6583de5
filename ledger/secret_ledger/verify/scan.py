"""One pass over a generation, in bounded memory: its findings go to a tally.

The scan reads pages in short transactions, up to a bound that its caller fixes. A worker thread
checks each page, so that the event loop stays free. The database reads the next page meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from secrets import SystemRandom
from typing import Any

from anyio import to_thread

from secret_ledger.model.events import CONTROL_STREAM, Event, EventType
from secret_ledger.model.floors import ended_at
from secret_ledger.model.format import is_purged
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import CheckedRow, LogHead
from secret_ledger.read.found_rows import found_rows, stated_rows
from secret_ledger.rules.findings import (
    MAX_FINDINGS,
    Finding,
    OnProgress,
    Progress,
    Tally,
    finding_of,
)
from secret_ledger.rules.read_checks import lost_with
from secret_ledger.rules.row_checks import CheckedPage, Rules, missing_positions
from secret_ledger.rules.sealed_counts import SealedCounts
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.read_ahead import ahead
from secret_ledger.store.reads import (
    DRAWN,
    PAGE,
    check_page,
    count_secrets,
    heads_at,
    heads_of_generations,
    heads_page,
    stream_page_down,
)
from secret_ledger.store.retry import Read, patiently

__all__ = ["Scan"]


@dataclass(slots=True)
class Scan:
    """One pass over one generation; its findings go to the tally."""

    database: Database
    rules: Rules
    tally: Tally
    on_progress: OnProgress | None = None
    read: Read = patiently
    page: int = PAGE
    """Events in a page."""
    read_ahead: bool = True
    """Whether the database reads the next page while a page is checked.

    If a caller does a third thing meanwhile, it says False: one interpreter does not do three
    things at once.
    """
    _as_found: dict[tuple[str, int], bool] = field(default_factory=dict)
    """By stream and version of an end: whether the rows below are as the end found them."""
    _below: dict[tuple[str, int], Event | None] = field(default_factory=dict)
    """By stream and version of an end: the next `secret.destroyed` below it."""
    before: int = 0
    """Events of the generations that were checked earlier. They count as progress."""
    whole: int = 0
    """Events of all generations that are checked, as far as their number is known."""

    @property
    def generation(self) -> int:
        return self.rules.control.generation

    def _tell(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            done, total = self.before + done, self.before + total
            self.on_progress(Progress(done, max(done, total, self.whole)))

    async def count_rows(self) -> list[Finding]:
        """Check that rows are as many as the head row says now, and each stream's versions 1 to n.

        So no row lies above the end of the log or outside of its stream: a newest event that was
        moved to an older version, say, which no read meets. And no row lies in a later
        generation, which an old head row that somebody put back would hide. Returns the findings.
        """

        def unit(
            connection: Connection,
        ) -> tuple[Sequence[LogHead], Sequence[Any], int, Sequence[Sequence[Any]]]:
            sql = self.database.statements
            place = {"generation": self.generation}
            heads = heads_of_generations(connection, self.database)
            counts = connection.execute(sql.count, place).one()
            in_streams, not_whole = connection.execute(sql.count_by_stream, place).one()
            broken: Sequence[Sequence[Any]] = ()
            if not_whole:  # rare: to count all streams is cheaper than to list them
                listed = connection.execute(sql.broken_streams, {**place, "limit": MAX_FINDINGS})
                broken = [tuple(row) for row in listed]
            return heads, counts, in_streams, broken

        heads, (count, first, last, newest), in_streams, broken = await self.read(
            self.database, unit, "snapshot"
        )
        head = next((h for h in heads if h.generation == self.generation), None)
        if head is None or head.state in ("purging", "purged"):
            return []
        found: list[Finding] = []
        unfinished = {h.generation for h in heads if h.state in ("building", "purging")}
        above = isinstance(newest, int) and newest > self.generation
        if above and newest not in unfinished:
            found.append(
                Finding(
                    "tampered",
                    f"rows lie in generation {newest}, above the one in use; if nobody has put an"
                    f" old head row back, `secret-ledger generations purge {newest}` deletes them",
                    generation=newest,
                )
            )
        if (count, first, last) != (head.position, 1, head.position):
            found.append(
                Finding(
                    "tampered",
                    f"the log has {count} rows at positions {first} to {last}; its head row"
                    f" says {head.position}",
                    position=last if isinstance(last, int) and last > head.position else None,
                    generation=self.generation,
                )
            )
        if in_streams != count:
            found.append(
                Finding(
                    "tampered",
                    f"the log has {count} rows, and {in_streams} are found by their streams:"
                    " an index of the database is damaged",
                    generation=self.generation,
                )
            )
        for stream, rows, lowest, highest in broken:
            newest = await self._version(stream, highest) if isinstance(highest, int) else None
            if newest is not None and await self._is_ended_over_damage(newest, rows):
                continue
            found.append(
                Finding(
                    "tampered",
                    f"it has {rows} rows, of versions {lowest} to {highest}",
                    stream=printable(stream),
                    version=highest if isinstance(highest, int) else None,
                    generation=self.generation,
                )
            )
        return found

    async def heads(self, head: LogHead) -> None:
        """Open the newest event of every secret, and compare their versions with the log's length.

        A stream has versions 1 to n, each at its own position, and the positions are 1 to the
        head row's. So the newest versions, which their seals prove, add up to that position. If
        they do, no secret is left out, and none is shown at an older version.
        """
        secrets = versions = 0
        if self.on_progress is not None:
            count = partial(count_secrets, database=self.database, generation=self.generation)
            secrets = await self.read(self.database, count, "statement")
        async with aclosing(ahead(self._head_rows())) as pages:
            async for page in pages:
                await self._open_heads(page, head)
                versions += await self._versions(page, head)
                self._tell(self.tally.heads, secrets)
        if self.tally.kinds["tampered"]:
            return  # a row that does not open proves no version
        if versions != head.position:
            versions += await self._missing_below_ends(head)
        if versions != head.position or not await self._ends_where_it_says():
            found = await self.count_rows()
            self.tally.add_all(found or [self._wrong_sum(versions, head)])

    async def _versions(self, page: Sequence[Event], head: LogHead) -> int:
        """Returns how many rows the streams of a page have, up to the head row's position."""
        total = 0
        for event in page:
            if event.stream == CONTROL_STREAM:
                total += self.rules.control.last.version
            elif event.position <= head.position:
                total += event.version
            else:  # the event was written meanwhile
                total += await self._rows_of(event.stream, head.position)
        return total

    async def _is_ended_over_damage(self, newest: Event, rows: int) -> bool:
        """An end over damage states how many rows it found: versions need not be 1 to n."""
        if self.rules.open_newest(newest) is not None:
            return False
        return await self._rows_to_expect(newest) == rows

    async def _rows_of(self, stream: str, bound: int) -> int:
        asked = {
            "generation": self.generation,
            "stream": self.database.text(stream),
            "bound": bound,
        }
        sql = self.database.statements.rows_of_stream
        return await self.read(
            self.database, lambda c: int(c.execute(sql, asked).scalar_one()), "statement"
        )

    async def _missing_below_ends(self, head: LogHead) -> int:
        """Returns how far the sum of versions is off because secrets were ended over damage.

        Their rows may have lain at wrong versions. Each end states, under its seal, how many rows
        it found.
        """
        excess = 0
        async with aclosing(self._head_rows()) as pages:
            async for page in pages:
                for event in page:
                    if (
                        event.stream != CONTROL_STREAM
                        and event.position <= head.position
                        and ended_at(self.rules.control, event)
                    ):
                        excess += await self._rows_to_expect(event) - event.version
        return excess

    async def _ends_where_it_says(self) -> bool:
        """Rows and head row are read anew, in one snapshot: the log may have grown.

        Returns False also if a later generation, which is not being built or purged, has rows.
        """

        def unit(connection: Connection) -> tuple[Sequence[LogHead], Any, Any, Any]:
            sql = self.database.statements
            heads = heads_of_generations(connection, self.database)
            place = {"generation": self.generation}
            first, last = connection.execute(sql.ends, place).one()
            return heads, first, last, connection.execute(sql.newest_generation).scalar_one()

        heads, first, last, newest = await self.read(self.database, unit, "snapshot")
        head = next((h for h in heads if h.generation == self.generation), None)
        if head is None or head.state in ("purging", "purged"):
            return True
        unfinished = {h.generation for h in heads if h.state in ("building", "purging")}
        return (first, last) == (1, head.position) and newest in (self.generation, *unfinished)

    def _wrong_sum(self, versions: int, head: LogHead) -> Finding:
        return Finding(
            "tampered",
            f"the newest versions of all secrets add up to {versions}, but the log has"
            f" {head.position} events: newest events are missing, or the database hides them",
            generation=self.generation,
        )

    async def _head_rows(self) -> AsyncGenerator[Sequence[Event]]:
        after: str | None = None
        while True:
            page = await self.read(
                self.database,
                partial(
                    heads_page, database=self.database, generation=self.generation, after=after
                ),
                "statement",
            )
            if not page or page[-1].stream == after:  # damage: a name that is no text sorts last
                return
            after = page[-1].stream
            yield page

    async def sample(self, head: LogHead, bound: int, size: int) -> None:
        """Draw `size` positions up to `bound`, and open the newest event of each secret met.

        Nobody can predict the positions. If `bound` is below `size`, all are drawn. A position
        without an event is a finding.
        """
        drawn = SystemRandom().sample(range(1, bound + 1), min(size, bound))
        seen: set[str] = set()
        for start in range(0, len(drawn), DRAWN):
            asked = drawn[start : start + DRAWN]
            found = await self.read(
                self.database,
                partial(
                    heads_at, database=self.database, generation=self.generation, positions=asked
                ),
                "snapshot",
            )
            for position in sorted(set(asked) - {position for position, _ in found}):
                why = "no event is found at this position, or none in its stream"
                self.tally.add(
                    Finding("tampered", why, position=position, generation=self.generation)
                )
            fresh = {event.stream: event for _, event in found if event.stream not in seen}
            await self._open_heads(fresh.values(), head)
            seen.update(fresh)

    async def _open_heads(self, events: Iterable[Event], head: LogHead) -> None:
        # An event beyond the bound was written meanwhile, over a newest event that had to open.
        newest = [
            event
            for event in events
            if event.position <= head.position and event.stream != CONTROL_STREAM
        ]

        def opened() -> list[Finding]:
            problems = ((event, self.rules.open_newest(event)) for event in newest)
            return [finding_of(event, problem) for event, problem in problems if problem]

        self.tally.add_all(await to_thread.run_sync(opened))
        self.tally.heads += len(newest)
        self.tally.events += len(newest)
        self.tally.by_key.update([event.key_id for event in newest])

    async def every_event(self, head: LogHead, *, after: int = 0, time_before: int = 0) -> int:
        """Open every event above position `after`, and check every chain, position and time.

        The scan ends at the head row's position. `time_before`: when the event at `after` was
        recorded, in microseconds since 1970. Returns how many secrets begin above `after`.
        """
        secrets = 0
        whole = after == 0
        sealed = SealedCounts(self.rules.control)
        newer = self.pages(head.position, after=after, time_before=time_before)
        async with aclosing(newer) as pages:
            async for page in pages:
                after, time_before = page.last.position, page.last.recorded_at
                sealed.add(page.rows)
                secrets += sum(
                    row.event.version == 1 and row.event.stream != CONTROL_STREAM
                    for row in page.rows
                )
                self._tell(after, head.position)
        if after != head.position:
            self.tally.add(missing_positions(self.generation, after + 1, head.position))
        elif time_before != head.recorded_at:
            self.tally.add(
                Finding(
                    "tampered",
                    f"the head row's time is {head.recorded_at}, the last event's {time_before}",
                    generation=self.generation,
                )
            )
        if whole:
            self.tally.add_all(sealed.differences())
        if self.rules.control.upgrades and sealed.watches:
            await self._newest_not_lost(head)
        return secrets

    async def _newest_not_lost(self, head: LogHead) -> None:
        """Before a key is given up, each secret whose newest event lies under it is ended. So a
        newest event under a lost key, or without its data, is damage."""
        control = self.rules.control
        async with aclosing(self._head_rows()) as pages:
            async for page in pages:
                for event in page:
                    key = control.key(event.key_fingerprint)
                    gone = is_purged(event.sealed) or (key is not None and key.lost is not None)
                    if gone and event.stream != CONTROL_STREAM and event.position <= head.position:
                        problem = self.rules.open_newest(event)
                        if problem is not None:
                            self.tally.add(finding_of(event, problem))

    async def pages(
        self, bound: int, *, after: int = 0, time_before: int = 0
    ) -> AsyncGenerator[CheckedPage]:
        """Yield the events above position `after` up to `bound`, in pages, each page checked.

        `time_before`: when the event at `after` was recorded, in microseconds since 1970.
        """
        pages = self._rows(after, bound)
        async with aclosing(ahead(pages) if self.read_ahead else pages) as read:
            async for rows in read:
                page = await to_thread.run_sync(self.rules.check, rows, after, time_before)
                for row, finding in page.suspects:
                    if row is None or not await self._accounted_for(row):
                        self.tally.add(finding)
                after, time_before = page.last.position, page.time
                self.tally.events += len(rows)
                self.tally.by_key.update([row.event.key_id for row in rows])
                yield page

    async def _rows(self, after: int, bound: int) -> AsyncGenerator[Sequence[CheckedRow]]:
        while after < bound:
            rows = await self.read(
                self.database,
                partial(
                    check_page,
                    database=self.database,
                    generation=self.generation,
                    after=after,
                    bound=bound,
                    limit=self.page,
                    unstated=not self.rules.control.began_with_facts,
                ),
                "snapshot",
            )
            if not rows or rows[-1].event.position <= after:
                return
            after = rows[-1].event.position
            yield rows

    async def _accounted_for(self, row: CheckedRow) -> bool:
        """Whether the log itself says, under a seal, that this damage was ended.

        A `secret.destroyed` over damage says so, chains to the row as it was found, and states
        the rows below. While these rows stay as they were found, they are accounted for.
        """
        event = row.event
        place: tuple[object, ...] = (event.stream, event.version)
        if list(map(type, place)) != [str, int]:
            return False  # no row was ever written with such types
        if event.event_type == EventType.DESTROYED and event.version > 1:
            damaged = await self._version(event.stream, event.version - 1)
            if damaged is not None and self.rules.ends(event, damaged):
                return True
        end = await self._version(event.stream, event.version + 1)
        if end is not None and self.rules.ends(end, event):
            return True
        end = await self._version(event.stream, row.destroyed or 0)
        while end is not None and end.version > event.version:
            if await self._is_as_found(end):
                return True
            end = await self._end_below(end)
        return False

    async def _end_below(self, end: Event) -> Event | None:
        """The end of a secret whose key is lost states no digest. The chain from that end leads to
        the next `secret.destroyed` below."""
        place = end.stream, end.version
        if place not in self._below:
            self._below[place] = await self._walk_to_end(end)
        return self._below[place]

    async def _walk_to_end(self, above: Event) -> Event | None:
        if lost_with(above) is None or not self.rules.is_end(above):
            return None

        def page(connection: Connection) -> list[Event]:
            place = self.generation, above.stream, above.version, 1
            return stream_page_down(connection, self.database, *place)

        while rows := await self.read(self.database, page, "snapshot"):
            for row in rows:
                if not self.rules.is_followed(row, above):
                    return None
                if row.event_type == EventType.DESTROYED:
                    return row
                above = row
        return None

    async def _is_as_found(self, end: Event) -> bool:
        """Whether the rows below a destruction have the count and digest that it states."""
        stated, control = stated_rows(end), self.rules.control
        if stated is None or "digest" not in stated or not self.rules.is_end(end):
            return False
        if control.opened is not None and end.position < control.opened[0]:
            return True  # the digest is of the old hashes: a migration proved the rows
        if (end.stream, end.version) not in self._as_found:
            found = await self.read(
                self.database,
                lambda c: found_rows(c, self.database, control, end.stream, end.version),
                "snapshot",
            )
            self._as_found[end.stream, end.version] = found.facts() == stated
        return self._as_found[end.stream, end.version]

    async def _rows_to_expect(self, newest: Event) -> int:
        """Returns how many rows a stream must have, by its newest event, which has opened.

        That is its version. If the secret was ended over damage, the end states how many rows it
        found.
        """
        floor = ended_at(self.rules.control, newest)
        if not floor:
            return newest.version
        end = newest if floor == newest.version else await self._version(newest.stream, floor)
        stated = None if end is None or not self.rules.is_end(end) else stated_rows(end)
        if stated is None:
            return newest.version
        return int(stated["count"]) + 1 + newest.version - floor

    async def _version(self, stream: str, version: int) -> Event | None:
        named: object = stream  # a damaged row's name may be no text
        if not isinstance(named, str) or not 0 < version < 2**63:
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

        return await self.read(self.database, unit, "statement")
