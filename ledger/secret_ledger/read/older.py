"""Old versions of a secret: a walk down its chain from the newest event, which must open.

The event above a row has sealed that row's hash. So the walk proves each row that it reaches, and
detects each row that is missing, moved or changed. Pages are read in short transactions. A worker
thread hashes the pages after the first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from anyio import to_thread

from secret_ledger.errors import (
    LedgerError,
    MissingKey,
    SecretDestroyed,
    SecretNotFound,
    TamperedEvent,
)
from secret_ledger.model.events import Event
from secret_ledger.model.floors import Walk
from secret_ledger.model.rows import LogHead
from secret_ledger.model.secret import Secret
from secret_ledger.model.versions import SecretVersion, opened, state_of
from secret_ledger.rules.authority import read_event, read_newest
from secret_ledger.rules.decide import Restore, Walked
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.read_checks import (
    check_answer,
    check_has_value,
    ended,
    no_version,
    not_found,
    not_yet,
)
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.reads import event_of_version, newest_of, stream_page_down
from secret_ledger.store.retry import Read, patiently

__all__ = [
    "get_as_of",
    "get_version",
    "get_version_unproven",
    "walk_to_floor",
    "walk_to_restore",
]

FIRST: Final = 32
"""Rows that the first trip returns at most, the newest event included."""

T = TypeVar("T")


async def get_version(follower: Follower, stream: str, version: int) -> SecretVersion:
    """Read one version of a secret.

    Raises SecretNotFound, SecretDeleted, SecretDestroyed, MissingKey, TamperedEvent.
    """

    async def answer(standing: Standing) -> SecretVersion:
        down = await _begin(follower, standing, stream, version)
        if down is None:
            raise not_found(stream)
        if version > down.walk.newest.version:
            raise no_version(stream, version)
        walk = await down.until(lambda w: w.lowest.version == version or version <= w.floor)
        if version <= walk.floor:
            raise ended(walk.newest, version, walk.floor)
        return _value(down.standing, walk.lowest)

    return await _on_new_knowledge(follower, answer)


async def get_as_of(follower: Follower, stream: str, time: int, at: datetime) -> SecretVersion:
    """Read the last version recorded at or before `time` (microseconds since 1970).

    `at`: the same time, as a refusal shows it. Raises the errors of `get_version`.
    """

    async def answer(standing: Standing) -> SecretVersion:
        down = await _begin(follower, standing, stream, 1)
        if down is None:
            raise not_found(stream)
        walk = await down.until(lambda w: w.lowest.recorded_at <= time)
        row = walk.lowest
        if row.recorded_at <= time and row.version > walk.floor:
            return _value(down.standing, row)
        if walk.floor:
            raise ended(walk.newest, row.version, walk.floor)
        raise not_yet(stream, at.isoformat())

    return await _on_new_knowledge(follower, answer)


async def get_version_unproven(follower: Follower, stream: str, version: int) -> SecretVersion:
    """Read one version; if the chain can't prove it, by its own seal alone.

    That is so if `get_version` raises MissingKey or TamperedEvent, or if the secret ended because
    its key is lost. Then nobody can tell whether a later event has ended the version: the answer
    says so (`proven` is False). Raises the errors of `get_version`.
    """
    refusal: LedgerError
    try:
        return await get_version(follower, stream, version)
    except (MissingKey, TamperedEvent) as error:
        refusal = error
    except SecretDestroyed as error:
        if "key_id" not in error.details:
            raise
        refusal = error
    standing = follower.standing
    database, control = follower.database, standing.control

    def unit(connection: Connection) -> Event | None:
        return event_of_version(connection, database, control.generation, stream, version)

    event = await patiently(database, unit)
    if event is None:
        raise refusal
    check_answer(control, event, stream, version)
    return replace(_value(standing, event), proven=False)


async def walk_to_restore(
    follower: Follower, intent: Restore, read: Read = patiently
) -> Walked | None:
    """Find the value that a restore would write, and the newest event that the walk began at.

    Returns None if the secret is not deleted, or if the stated version is not below its newest
    event. If the walk ends in a refusal, the answer holds the refusal. Raises MissingKey,
    TamperedEvent.
    """
    stream, version = intent.stream, intent.version
    if version is not None and not 0 < version < 2**63:
        return None

    async def answer(standing: Standing) -> Walked | None:
        down = await _begin(follower, standing, stream, version or 1, read)
        if down is None or state_of(down.walk.newest) != "deleted":
            return None
        newest = down.walk.newest
        if version is not None and version >= newest.version:
            return None

        def is_found(walk: Walk) -> bool:
            row = walk.lowest
            if version is not None:
                return row.version == version or version <= walk.floor
            return row is not newest and state_of(row) == "live"

        walk = await down.until(is_found)
        return Walked(newest.event_hash, walk.floor, _restored(down.standing, walk, version))

    return await _on_new_knowledge(follower, answer)


def _restored(standing: Standing, walk: Walk, version: int | None) -> Secret | LedgerError:
    row, newest = walk.lowest, walk.newest
    if version is not None and version <= walk.floor:
        return ended(newest, version, walk.floor)
    if row is newest or state_of(row) != "live":
        if version is None and walk.floor:
            return ended(newest, walk.floor, walk.floor)
        at = f" at version {version}" if version is not None else ""
        return SecretNotFound(f"{newest.stream} has no value to restore{at}", stream=newest.stream)
    try:
        return Secret(read_event(standing.control, standing.keys, row))
    except LedgerError as error:
        return error


async def walk_to_floor(follower: Follower, stream: str, read: Read = patiently) -> Walked | None:
    """Find the floor that the next event of a stream must state.

    Returns None if the stream has no event. Raises MissingKey, TamperedEvent.
    """

    async def answer(standing: Standing) -> Walked | None:
        down = await _begin(follower, standing, stream, 1, read)
        if down is None:
            return None
        walk = await down.until(lambda w: w.settled)
        return Walked(walk.newest.event_hash, walk.floor, None)

    return await _on_new_knowledge(follower, answer)


async def _on_new_knowledge(follower: Follower, answer: Callable[[Standing], Awaitable[T]]) -> T:
    """MissingKey or TamperedEvent may rest on an old control stream: follow it, ask once more."""
    standing = follower.standing
    try:
        return await answer(standing)
    except (MissingKey, TamperedEvent):
        return await answer(await follower.follow(standing))


def _value(standing: Standing, event: Event) -> SecretVersion:
    value = Secret(read_event(standing.control, standing.keys, event))
    check_has_value(event)
    return opened(event, value)


# --- the walk itself ------------------------------------------------------------------


@dataclass(slots=True)
class _Descent:
    """A walk, and the rows that were read for it."""

    follower: Follower
    standing: Standing
    """The standing that judges the rows: as new as the newest event."""
    walk: Walk
    least: int
    """The lowest version that the walk reads."""
    read: Read
    rows: list[Event] = field(default_factory=list)
    """Rows that were read and not reached yet."""

    async def until(self, stop: Callable[[Walk], bool]) -> Walk:
        """Go down until `stop` is true, or to the floor. Raises TamperedEvent at a broken link."""
        walk, database = self.walk, self.follower.database

        def over() -> bool:
            return stop(walk) or walk.is_over

        def reach(rows: list[Event]) -> None:
            for row in rows:
                if over():
                    return
                walk.reach(row)

        reach(self.rows)
        while not over():
            below = walk.lowest.version

            def unit(connection: Connection, below: int = below) -> list[Event]:
                generation, stream = walk.newest.generation, walk.newest.stream
                return stream_page_down(connection, database, generation, stream, below, self.least)

            page = await self.read(database, unit)
            if not page:
                walk.reach(None)
            await to_thread.run_sync(reach, page)
        return walk


async def _begin(
    follower: Follower, standing: Standing, stream: str, least: int, read: Read = patiently
) -> _Descent | None:
    """The newest event has opened when the walk begins.

    Returns None if the stream has no event. Raises MissingKey, TamperedEvent.
    """
    database, seen = follower.database, follower.seen

    def unit(connection: Connection) -> tuple[LogHead, list[Event]] | None:
        found = newest_of(connection, database, stream, least, FIRST)
        if found is not None and not found[1] and least > 1:
            found = newest_of(connection, database, stream, 1, 1)
        if found is not None:
            follower.lineage.check(connection, found[0], seen)
        return found

    found = await read(database, unit, "snapshot")
    if found is None:
        raise TamperedEvent("no generation says that it is in use any more")
    head, rows = found
    follower.saw(head)
    if not follower.is_current(head):
        standing = await follower.follow(standing)
    if not rows:
        return None
    newest, control = rows[0], standing.control
    check_answer(control, newest, stream)
    read_newest(control, standing.keys, newest)
    return _Descent(follower, standing, Walk.begin(control, newest), least, read, rows[1:])
