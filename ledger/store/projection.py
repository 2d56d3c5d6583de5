"""What the write side knows of a projection: what it may be asked for beside an append."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from ledger.events import Event
from ledger.state import Head
from ledger.store.connection import Connection, Rows
from ledger.store.database import Beside, Database, Kept

__all__ = [
    "CheckedProjection",
    "Forgetting",
    "InlineProjection",
    "Installable",
    "Lagging",
    "Riding",
    "rider",
]


class InlineProjection(Protocol):
    """A read-side table that is kept in the append's own transaction."""

    name: str

    def apply(
        self, connection: Connection, database: Database, head: Head, events: Sequence[Event]
    ) -> None:
        """Fold `events`, which follow `head`'s position without a gap, into the table."""
        ...

    async def catch_up(self, database: Database) -> int:
        """Fold what was written while nobody kept the table; how many events that was."""
        ...


class Riding(InlineProjection, Protocol):
    """One whose rows come in the trip that reads the heads, and go in the one that adds events."""

    def beside(self, database: Database) -> Beside:
        """What is to be asked for with the heads."""
        ...

    def kept(self, database: Database, events: Sequence[Event], found: Rows) -> Kept | None:
        """What `events` make of the rows that were found; None where that has to be seen to by
        `apply`."""
        ...


def rider(projections: Sequence[InlineProjection]) -> Riding | None:
    """The first projection, if it is such a one."""

    def rides(projection: InlineProjection) -> TypeGuard[Riding]:
        return hasattr(projection, "beside")

    return projections[0] if projections and rides(projections[0]) else None


@runtime_checkable
class Installable(Protocol):
    """A projection that can say whether it has a table to be kept in."""

    def is_installed(self, connection: Connection, database: Database) -> bool:
        """Whether its table is there."""
        ...


@runtime_checkable
class Forgetting(Protocol):
    """A projection that can drop its rows of a generation."""

    def forget(
        self, connection: Connection, database: Database, generation: int, limit: int
    ) -> int:
        """Delete up to `limit` rows; how many there were. None are left after 0."""
        ...


@runtime_checkable
class CheckedProjection(Protocol):
    """A projection that can be held against its fold."""

    name: str

    def differences(self, database: Database, head: Head) -> AsyncIterator[str]:
        """Each way in which the table is not what the log folds to. A table that is behind
        `head` is compared as far as it is folded."""
        ...

    async def behind(self, database: Database, head: Head) -> int:
        """Positions that the table is behind `head`; 0 where no secret was written there."""
        ...


@runtime_checkable
class Lagging(Protocol):
    """A projection that can say how far it is behind."""

    name: str

    def lag(self, connection: Connection, database: Database, head: Head) -> int:
        """Positions between its checkpoint and the head row."""
        ...
