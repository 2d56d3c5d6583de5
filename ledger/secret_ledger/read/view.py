"""The sealed view: the newest events of secrets, kept in memory, still sealed.

A read is answered from here where what is kept is proven to be current: it is opened for that
one answer, by the rules and the verdict of every read (`reading`), under the standing as
it is by then. What may be served is settled by the positions of the log alone:

    kept      read from the database, unless its stream went on while the read was under way
    dropped   by this process's own writes, before their callers hear of them; and by the tail:
              one statement that tells which streams have gone on since it was asked last
    proven    as of the moment before the tail was asked; or, on SQLite, as of now, where
              nobody has committed since

Nothing is polled: a read that finds the proof growing old asks for the next one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from sys import getsizeof
from typing import Final, Literal, NamedTuple

from secret_ledger.errors import (
    InvalidValue,
    LedgerError,
    LedgerUnavailable,
    MissingKey,
    TamperedEvent,
)
from secret_ledger.inputs import seconds
from secret_ledger.model.events import CONTROL_STREAM
from secret_ledger.model.names import normalise_name
from secret_ledger.model.versions import SecretVersion
from secret_ledger.read.reading import Facts, facts_of, get_secret, verdict
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.reads import Changes, Found, changes
from secret_ledger.store.retry import patiently

__all__ = ["VIEW_BYTES", "Bounds", "SealedView", "ViewStatus", "WhenStale"]

WhenStale = Literal["database", "refuse"]

VIEW_BYTES: Final = 64 * 1024 * 1024
ENTRY_BYTES: Final = 800
"""What a secret takes beside the texts and the bytes of its event, and what it says of itself,
rounded up."""
OFTEN: Final = 1.0
"""Seconds after which a read has the next proof fetched, however long this one will still do."""
SLOW: Final = 1.0
"""Seconds that a proof is waited for."""
EVENTS: Final = 4096
"""What the tail looks through; where more were written, nothing that is kept counts any more."""
BREATH: Final = 256
"""Answers from memory after which other tasks get a turn: a loop of reads has no other pause."""

# Time that a machine sleeps counts: what it kept meanwhile has grown old all the same.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How old an answer may be, what is done where that can't be held, and how much is kept.

    Raises InvalidValue.
    """

    max_staleness: float
    """Seconds."""
    when_stale: WhenStale = "database"
    bytes: int = VIEW_BYTES

    def __post_init__(self) -> None:
        seconds(self.max_staleness, "max_staleness")
        if self.when_stale not in ("database", "refuse"):
            raise InvalidValue(
                f'when_stale is "database" or "refuse", not {self.when_stale!r}',
            )
        given: object = self.bytes
        if not isinstance(given, int) or given < 1:
            raise InvalidValue(f"view_bytes is a number of bytes, not {self.bytes!r}")


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """What is kept in memory, and what became of the reads since the ledger was opened."""

    secrets: int
    bytes: int
    hits: int
    """Reads that were answered from memory."""
    misses: int
    """Reads that went to the database."""
    age_seconds: float | None
    """How long ago it was last proven that what is kept is current; None: not yet."""


class _Kept(NamedTuple):
    found: Found
    facts: Facts
    size: int
    """The bytes of memory that it takes, rounded up."""


class SealedView:
    """The heads that were read last, sealed, up to so many bytes."""

    def __init__(
        self, follower: Follower, bounds: Bounds, commits: Callable[[], int | None] | None
    ) -> None:
        self._follower = follower
        follower.on_write = self._forget
        self._database = follower.database
        self._bounds = bounds
        self._often = min(bounds.max_staleness / 3, OFTEN)
        self._room = bounds.bytes
        self._commits = commits
        """See `Database.watch`."""
        self._commits_known: int | None = None
        """What it gave before the tail was asked last."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """By stream; what was not used for longest comes first."""
        self._bytes = 0
        self._reading: dict[str, object] = {}
        """The newest read of each stream that is under way. Out of here, it is not kept."""
        self._position = follower.seen
        """What is kept is each stream's head as of here."""
        self._proven = -math.inf
        """When the log ended here for sure."""
        self._tail: asyncio.Task[LedgerError | None] | None = None
        self._asked = -math.inf
        """When that task was begun."""
        self._hits = 0
        self._misses = 0

    def __repr__(self) -> str:
        return f"<SealedView of {len(self._kept)} secrets>"

    @property
    def status(self) -> ViewStatus:
        """What is kept, and how it served."""
        age = None if self._proven == -math.inf else _now() - self._proven
        return ViewStatus(len(self._kept), self._bytes, self._hits, self._misses, age)

    async def get(self, name: str) -> SecretVersion:
        """The latest version of a secret, as of `max_staleness` seconds ago or later.

        Raises what a read from the database raises; and where it is to refuse rather than ask
        the database, what keeps the view from being current: LedgerUnavailable, mostly.
        """
        self._database.home.check()
        if self._hits % BREATH == 0:
            await asyncio.sleep(0)  # lets others on the loop run, however many answers are kept
        # What is kept is kept by the names of streams, each of which is spelt as it has to be.
        kept = self._kept.get(name) if type(name) is str else None
        if kept is None:
            name = normalise_name(name)
            kept = self._kept.get(name)
        if kept is not None:
            now = _now()
            if not self._is_proven(now - self._often, now):
                proven = await self._prove(now - self._bounds.max_staleness)
                kept = self._kept.get(name) if proven else None  # it may be gone by now
        standing = self._follower.standing
        if kept is not None and kept.found.head.generation == standing.control.generation:
            self._kept.move_to_end(name)
            self._hits += 1
            try:
                return verdict(standing, kept.found, name, facts=kept.facts)
            except (MissingKey, TamperedEvent):  # never said from memory
                self._hits -= 1
        return await self._read(name)

    async def _read(self, stream: str) -> SecretVersion:
        """Ask the database, and keep its answer unless the stream goes on meanwhile."""
        self._misses += 1
        read = self._reading[stream] = object()

        def keep(found: Found) -> None:
            if self._reading.get(stream) is read:
                self._keep(stream, found)

        try:
            return await get_secret(self._follower, stream, keep=keep)
        finally:
            if self._reading.get(stream) is read:
                del self._reading[stream]

    # --- what is kept ----------------------------------------------------------------

    def _keep(self, stream: str, found: Found) -> None:
        self._drop(stream)
        if found.event is None:
            return
        try:
            facts = facts_of(self._follower.standing.control.ledger_id, found.event)
        except TamperedEvent:  # the verdict says so
            return
        size = _size(stream, found, facts)
        if size > self._room:
            return
        self._kept[stream] = _Kept(found, facts, size)
        self._bytes += size
        while self._bytes > self._room:
            self._drop(next(iter(self._kept)))

    def _drop(self, stream: str) -> None:
        kept = self._kept.pop(stream, None)
        if kept is not None:
            self._bytes -= kept.size

    def _forget(self, streams: Iterable[str]) -> None:
        """They have gone on: the next read of each asks the database, and what is being read
        of them just now is not kept."""
        for stream in streams:
            self._reading.pop(stream, None)
            self._drop(stream)

    def _has(self, stream: str, position: int) -> bool:
        """Whether the event at `position` is kept: this process's own, which it read back."""
        kept = self._kept.get(stream)
        event = kept.found.event if kept else None
        return event is not None and event.position == position

    def _forget_all(self) -> None:
        self._reading.clear()
        self._kept.clear()
        self._bytes = 0

    # --- that it is current ----------------------------------------------------------

    def _is_proven(self, since: float, now: float) -> bool:
        """Whether what is kept is known to have been current at `since` or later.

        Raises LedgerUnavailable where the database's file is not in its place any more.
        """
        if self._commits is not None:
            commits = self._commits()
            if commits is not None and commits == self._commits_known:
                self._proven = now
        return self._proven >= since

    async def _prove(self, since: float) -> bool:
        """Have the database asked; and wait for its answer, unless what is kept is known to have
        been current at `since` or later. False where it does not come in time."""
        tail = self._ask()
        await asyncio.sleep(0)  # lets it be on its way, however many loops of reads there are
        while self._proven < since:
            await asyncio.wait({tail}, timeout=max(0, self._asked + SLOW - _now()))
            answered = tail.done() and not tail.cancelled()
            failure = tail.result() if answered else self._too_slow()
            if failure is not None and self._bounds.when_stale == "refuse":
                raise copy(failure)
            if failure is not None:
                return False
            if self._proven < since:  # it had been asked before that
                tail = self._ask()
        return True

    def _too_slow(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"{self._database.place}: the database did not tell in time whether what is kept in"
            f" memory is at most {self._bounds.max_staleness:g} s old",
            hint='try again; with when_stale="database" such a read waits for the database',
            transient=True,
        )

    def _ask(self) -> asyncio.Task[LedgerError | None]:
        """The tail that is under way, or else a new one."""
        if self._tail is None or self._tail.done():
            self._asked = _now()
            self._tail = asyncio.create_task(self._catch_up(), name="secret-ledger view")
        return self._tail

    async def _catch_up(self) -> LedgerError | None:
        """Drop what has gone on since this was asked last; why that can't be told, if so."""
        follower, database = self._follower, self._database
        after, seen = self._position, follower.seen

        def unit(connection: Connection) -> Changes | None:
            found = changes(connection, database, after, EVENTS)
            if found is not None:
                follower.lineage.check(connection, found.head, seen)
            return found

        asked = _now()
        try:
            commits = None if self._commits is None else self._commits()
            found = await patiently(database, unit)
            if found is None:
                raise TamperedEvent("no generation says that it is in use any more")
            follower.saw(found.head)
            standing = follower.standing
            if (
                not follower.is_current(found.head)
                or CONTROL_STREAM in found.newest
                or not found.complete
            ):
                await follower.follow(standing)
        except LedgerError as error:
            return error
        if found.complete:
            self._forget(s for s, newest in found.newest.items() if not self._has(s, newest))
        else:
            self._forget_all()
        self._position, self._commits_known, self._proven = found.head.position, commits, asked
        return None

    async def close(self) -> None:
        """Keep nothing any more."""
        self._room = 0
        self._forget_all()
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.wait([self._tail])


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def _size(stream: str, found: Found, facts: Facts) -> int:
    """The bytes of memory that an entry takes, rounded up."""
    parts = (stream, facts.context, *(found.event or ()))
    return ENTRY_BYTES + sum(map(getsizeof, parts))
