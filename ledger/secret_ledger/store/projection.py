"""The protocols of projections: the calls that the write side may make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from secret_ledger.model.events import Event
from secret_ledger.model.rows import LogHead
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
    """A projection whose table each append updates, in its own transaction."""

    name: str

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        """Fold `events`, which follow `head`'s position without a gap, into the table."""
        ...

    async def catch_up(self, database: Database) -> int:
        """Fold the events that were written while nobody kept the table. Returns their number."""
        ...


class BlindProjection(InlineProjection, Protocol):
    """A projection that may fold events without reading its rows (a blind write)."""

    def folded(self, database: Database, events: Sequence[Event]) -> Folded | None:
        """The rows as `events` leave them. Returns None if `apply` must read the rows first."""
        ...


def first_blind(projections: Sequence[InlineProjection]) -> BlindProjection | None:
    """The first projection, if its rows may be written in the statement that adds the events."""

    def is_blind(projection: InlineProjection) -> TypeGuard[BlindProjection]:
        return hasattr(projection, "folded")

    return projections[0] if projections and is_blind(projections[0]) else None


@runtime_checkable
class Installable(Protocol):
    """A projection that can say whether its table exists."""

    def is_installed(self, connection: Connection, database: Database) -> bool:
        """Whether the projection's table exists."""
        ...


@runtime_checkable
class Forgetting(Protocol):
    """A projection that can drop its rows of a generation."""

    def forget(
        self, connection: Connection, database: Database, generation: int, limit: int
    ) -> int:
        """Delete up to `limit` rows. Returns their number; after 0, no row is left."""
        ...


@runtime_checkable
class CheckedProjection(Protocol):
    """A projection that can be compared with the log."""

    name: str

    def differences(self, database: Database, head: LogHead) -> AsyncIterator[str]:
        """Each difference between the table and the fold of the log.

        If the table is behind `head`, it is compared up to its checkpoint.
        """
        ...

    async def behind(self, database: Database, head: LogHead) -> int:
        """Positions that the table is behind `head`; 0 if no secret was written at them."""
        ...


@runtime_checkable
class Lagging(Protocol):
    """A projection that can say how far it is behind."""

    name: str

    def lag(self, connection: Connection, database: Database, head: LogHead) -> int:
        """Positions from the projection's checkpoint to the head row."""
        ...
