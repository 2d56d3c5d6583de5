"""The sealed view: the newest events of secrets, kept in memory, still sealed.

If a kept event is proven to be current, a read is answered from memory. The event is opened for
that answer only, under the present standing, with the verdict of every read (`reading`). The
positions of the log alone decide:

    kept      A read returned the event, and its stream did not grow during the read.
    dropped   This process has written to the stream: the event goes before the caller hears.
              Or the tail names the stream. The tail is a statement that names the streams
              with events since the last tail.
    proven    The event was current at the moment before the tail was asked. On SQLite it is
              current now, if nobody has committed since.

Nothing is polled: if the proof is growing old, a read starts the next tail.
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
"""Bytes that a kept secret takes beside its name, context and event fields, rounded up."""
OFTEN: Final = 1.0
"""Age of a proof in seconds. If a proof is older, the next read starts a tail at the latest."""
SLOW: Final = 1.0
"""Seconds that a read waits for a tail, from the moment that the tail was asked."""
EVENTS: Final = 4096
"""Events that one tail reads at most. If more were written, all kept events are dropped."""
BREATH: Final = 256
"""After so many answers from memory other tasks get a turn: a loop of reads has no other pause."""

# The time that a machine sleeps counts: the kept events grow old meanwhile.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How old an answer may be, what a read does if it would be older, and how much is kept.

    Raises InvalidValue if a field is out of range.
    """

    max_staleness: float
    """Age in seconds that an answer from memory has at most."""
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
    """How much the view keeps in memory, and how it has served since the ledger was opened."""

    secrets: int
    bytes: int
    hits: int
    """Reads that were answered from memory."""
    misses: int
    """Reads that went to the database."""
    age_seconds: float | None
    """Seconds since the kept events were last proven current; None if they never were."""


class _Kept(NamedTuple):
    found: Found
    facts: Facts
    size: int
    """Bytes of memory that the entry takes, rounded up."""


class SealedView:
    """The newest events that were read last, still sealed, up to a number of bytes."""

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
        """Tells whether anybody has committed (see `Database.watch`); None if only a tail tells."""
        self._commits_known: int | None = None
        """The number that `_commits` gave before the last tail was asked."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """By stream; the entry that was unused for longest comes first."""
        self._bytes = 0
        self._reading: dict[str, object] = {}
        """By stream: the newest read under way. Only the answer of that read is kept."""
        self._position = follower.seen
        """The kept events are the newest of their streams up to this position."""
        self._proven = -math.inf
        """When `_position` was last the end of the log, as proven: seconds, by `_now`."""
        self._tail: asyncio.Task[LedgerError | None] | None = None
        self._asked = -math.inf
        """When that task was started: seconds, by `_now`."""
        self._hits = 0
        self._misses = 0

    def __repr__(self) -> str:
        return f"<SealedView of {len(self._kept)} secrets>"

    @property
    def status(self) -> ViewStatus:
        """How much is kept, and how it has served."""
        age = None if self._proven == -math.inf else _now() - self._proven
        return ViewStatus(len(self._kept), self._bytes, self._hits, self._misses, age)

    async def get(self, name: str) -> SecretVersion:
        """Read the newest version of a secret, as of `max_staleness` seconds ago or later.

        Raises the errors of `get_secret`. If `when_stale` is "refuse" and the view can't be proven
        current, raises the reason: mostly LedgerUnavailable.
        """
        self._database.home.check()
        if self._hits % BREATH == 0:
            await asyncio.sleep(0)  # other tasks of the loop get a turn
        # Kept names are normalised: a name that is found as it stands needs no check.
        kept = self._kept.get(name) if type(name) is str else None
        if kept is None:
            name = normalise_name(name)
            kept = self._kept.get(name)
        if kept is not None:
            now = _now()
            if not self._is_proven(now - self._often, now):
                proven = await self._prove(now - self._bounds.max_staleness)
                kept = self._kept.get(name) if proven else None  # the tail may have dropped it
        standing = self._follower.standing
        if kept is not None and kept.found.head.generation == standing.control.generation:
            self._kept.move_to_end(name)
            self._hits += 1
            try:
                return verdict(standing, kept.found, name, facts=kept.facts)
            except (MissingKey, TamperedEvent):  # neither is ever given from memory
                self._hits -= 1
        return await self._read(name)

    async def _read(self, stream: str) -> SecretVersion:
        """The answer is kept, unless the stream grows meanwhile."""
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

    # --- the kept events -------------------------------------------------------------

    def _keep(self, stream: str, found: Found) -> None:
        self._drop(stream)
        if found.event is None:
            return
        try:
            facts = facts_of(self._follower.standing.control.ledger_id, found.event)
        except TamperedEvent:  # the verdict of the read names the damage
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
        """The streams have grown: the next read of each asks the database, and no answer of a read
        under way is kept."""
        for stream in streams:
            self._reading.pop(stream, None)
            self._drop(stream)

    def _has(self, stream: str, position: int) -> bool:
        """If this process wrote the event and read it back, the tail need not drop it."""
        kept = self._kept.get(stream)
        event = kept.found.event if kept else None
        return event is not None and event.position == position

    def _forget_all(self) -> None:
        self._reading.clear()
        self._kept.clear()
        self._bytes = 0

    # --- their proof -----------------------------------------------------------------

    def _is_proven(self, since: float, now: float) -> bool:
        """Whether the kept events are proven to have been current at `since` or later.

        Raises LedgerUnavailable if the database's file is not in its place any more.
        """
        if self._commits is not None:
            commits = self._commits()
            if commits is not None and commits == self._commits_known:
                self._proven = now
        return self._proven >= since

    async def _prove(self, since: float) -> bool:
        """Start a tail, and wait for it unless the events were current at `since` or later.

        Returns False if the tail fails or is late. If `when_stale` is "refuse", raises that reason.
        """
        tail = self._ask()
        await asyncio.sleep(0)  # the tail gets on its way, however many reads wait
        while self._proven < since:
            await asyncio.wait({tail}, timeout=max(0, self._asked + SLOW - _now()))
            answered = tail.done() and not tail.cancelled()
            failure = tail.result() if answered else self._too_slow()
            if failure is not None and self._bounds.when_stale == "refuse":
                raise copy(failure)
            if failure is not None:
                return False
            if self._proven < since:  # that tail was asked before `since`
                tail = self._ask()
        return True

    def _too_slow(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"{self._database.place}: the database did not confirm in time that the values in"
            f" memory are at most {self._bounds.max_staleness:g} s old",
            hint='try again; with when_stale="database" such a read waits for the database',
            transient=True,
        )

    def _ask(self) -> asyncio.Task[LedgerError | None]:
        """Never more than one tail is under way."""
        if self._tail is None or self._tail.done():
            self._asked = _now()
            self._tail = asyncio.create_task(self._catch_up(), name="secret-ledger view")
        return self._tail

    async def _catch_up(self) -> LedgerError | None:
        """Drop the streams that have grown since the last tail. Returns the error if that fails."""
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
        """Drop all events, and keep none from now on."""
        self._room = 0
        self._forget_all()
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.wait([self._tail])


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def _size(stream: str, found: Found, facts: Facts) -> int:
    """Bytes of memory that an entry takes, rounded up."""
    parts = (stream, facts.context, *(found.event or ()))
    return ENTRY_BYTES + sum(map(getsizeof, parts))
