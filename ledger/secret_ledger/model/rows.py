"""The rows beside the log: the ledger's id, its generations, and a snapshot of both. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.events import Event

__all__ = ["CheckedRow", "LogHead", "Meta", "Move", "State"]

_RESTORE = "restore the database from a backup"


class Meta(NamedTuple):
    """The row of `ledger_meta`."""

    ledger_id: bytes
    """The ledger's id: 16 bytes."""
    format: int
    schema_version: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """The row as Meta. Raises TamperedEvent if a value has a type that was never written."""
        if tuple(map(type, row)) != (bytes, int, int) or len(row[0]) != 16:
            raise TamperedEvent("ledger_meta does not say which ledger this is", hint=_RESTORE)
        return cls._make(row)


class LogHead(NamedTuple):
    """A row of `ledger_head`: one generation and where its log ends."""

    generation: int
    position: int
    recorded_at: int
    """When the event at `position` was recorded: microseconds since 1970."""
    key_epoch: int
    state: str

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """The row as LogHead. Raises TamperedEvent if a value has a type that was never written."""
        if tuple(map(type, row)) != (int, int, int, int, str):
            raise TamperedEvent(
                "a row of ledger_head holds values that no ledger writes", hint=_RESTORE
            )
        return cls._make(row)


class Move(NamedTuple):
    """A row of `ledger_move`, for a generation that moves to or came from another database."""

    generation: int
    move_id: bytes
    """The id of the move: 16 random bytes, the same on both sides."""
    place: str
    """The address of the other side, without credentials."""

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """The row as Move. Raises TamperedEvent if a value has a type that was never written."""
        if tuple(map(type, row)) != (int, bytes, str):
            raise TamperedEvent(
                "a row of ledger_move holds values that no ledger writes", hint=_RESTORE
            )
        return cls._make(row)


class CheckedRow(NamedTuple):
    """An event with facts of its stream, so that a scan keeps no state for each stream."""

    event: Event
    previous_position: int | None
    previous_hash: bytes | None
    destroyed: int | None
    """Version of the stream's newest `secret.destroyed`. None if the stream has none."""
    previous_type: str | None = None
    previous_facts: str | None = None
    """Metadata of the version before, if it may state a floor."""
    destroyed_before: int | None = None
    """Version of the newest `secret.destroyed` before the event, if the floor may be unstated."""


@dataclass(frozen=True, slots=True)
class State:
    """One snapshot of the database: all rows that the gate checks before it uses a key."""

    meta: Meta
    heads: tuple[LogHead, ...]
    keys: tuple[tuple[str, bytes], ...]
    """Ids and fingerprints of `ledger_key`: a projection of the control stream, never trusted."""
    control: tuple[Event, ...]
    """The control stream of the generation in use, or of the generation that was asked for."""
    last: Event | None
    """The event at the position that the head row in use states."""

    @property
    def in_use(self) -> tuple[LogHead, ...]:
        """The head rows that say `active` or `moved`. A sound ledger has exactly one."""
        return tuple(h for h in self.heads if h.state in ("active", "moved"))
