"""The rows beside the log, as facts: which ledger, its generations, a snapshot of both. Pure."""

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
    """16 bytes."""
    format: int
    schema_version: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Raises TamperedEvent where a value is of another type than was ever written."""
        if tuple(map(type, row)) != (bytes, int, int) or len(row[0]) != 16:
            raise TamperedEvent("ledger_meta does not say which ledger this is", hint=_RESTORE)
        return cls._make(row)


class LogHead(NamedTuple):
    """A row of `ledger_head`: one generation and where its log ends."""

    generation: int
    position: int
    recorded_at: int
    """Microseconds since 1970, of the event at `position`."""
    key_epoch: int
    state: str

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Raises TamperedEvent where a value is of another type than was ever written."""
        if tuple(map(type, row)) != (int, int, int, int, str):
            raise TamperedEvent("a row of ledger_head holds what was never written", hint=_RESTORE)
        return cls._make(row)


class Move(NamedTuple):
    """A row of `ledger_move`: a generation that is built in another database, or came from one."""

    generation: int
    move_id: bytes
    """16 random bytes, which both sides repeat."""
    place: str
    """The address of the other side, without credentials."""

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Raises TamperedEvent where a value is of another type than was ever written."""
        if tuple(map(type, row)) != (int, bytes, str):
            raise TamperedEvent("a row of ledger_move holds what was never written", hint=_RESTORE)
        return cls._make(row)


class CheckedRow(NamedTuple):
    """An event with what it follows, for a scan that keeps no state by stream."""

    event: Event
    previous_position: int | None
    previous_hash: bytes | None
    destroyed: int | None
    """Version of the stream's newest `secret.destroyed`."""
    previous_type: str | None = None
    previous_facts: str | None = None
    """Metadata of the version before, if it may state a floor."""
    destroyed_before: int | None = None
    """Version of the newest `secret.destroyed` before the event, if nothing states it."""


@dataclass(frozen=True, slots=True)
class State:
    """All that the gate looks at before any key: one snapshot of the database."""

    meta: Meta
    heads: tuple[LogHead, ...]
    keys: tuple[tuple[str, bytes], ...]
    """The rows of `ledger_key`: a projection of the control stream, never trusted."""
    control: tuple[Event, ...]
    """The control stream of the generation in use (of `generation`, where one was asked)."""
    last: Event | None
    """The event at the position that the head row in use states."""

    @property
    def in_use(self) -> tuple[LogHead, ...]:
        """The head rows that say they are the one in use. There should be exactly one."""
        return tuple(h for h in self.heads if h.state in ("active", "moved"))
