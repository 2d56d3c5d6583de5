"""The protocols of projections: what the write side may ask of a projection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from secret_ledger.model.events import Event
from secret_ledger.model.rows import Head
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, Folded

__all__ = [
    "BlindProjection",
    "CheckedProjection",
    "Forgetting",
    "InlineProjection",
    "Installable",
    "Lagging",
    "first_blind",
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


class BlindProjection(InlineProjection, Protocol):
    """A projection that may fold events without reading its rows (a blind write)."""

    def folded(self, database: Database, events: Sequence[Event]) -> Folded | None:
        """The rows after `events`. Returns None if `apply` must read the rows first."""
        ...


def first_blind(projections: Sequence[InlineProjection]) -> BlindProjection | None:
    """The first projection, if its rows may be written in the statement that adds the events."""

    def is_blind(projection: InlineProjection) -> TypeGuard[BlindProjection]:
        return hasattr(projection, "folded")

    return projections[0] if projections and is_blind(projections[0]) else None


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
