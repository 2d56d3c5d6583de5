"""What the log is: one immutable, sealed row an event.

An event belongs to a *stream* (a secret's name, or `$ledger` for the control stream),
has a *version* in it (1, 2, 3, …) and a *position* in its generation (1, 2, 3, … without
a gap, in commit order). Every field of the row is bound by the seal; see `format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Self

__all__ = [
    "CONTROL_STREAM",
    "CONTROL_TYPES",
    "NO_HASH",
    "SECRET_TYPES",
    "Event",
    "EventType",
    "from_microseconds",
    "to_microseconds",
]

CONTROL_STREAM: Final = "$ledger"
NO_HASH: Final = bytes(32)
"""`prev_hash` of a stream's first event."""


class EventType:
    """The stored names of the event types: ours, never a Python path."""

    WRITTEN: Final = "secret.written"
    REKEYED: Final = "secret.rekeyed"
    DELETED: Final = "secret.deleted"
    RESTORED: Final = "secret.restored"
    DESTROYED: Final = "secret.destroyed"

    KEY_INTRODUCED: Final = "key.introduced"
    KEY_ACTIVATED: Final = "key.activated"
    KEY_RETIRED: Final = "key.retired"
    KEY_LOST: Final = "key.lost"
    GENERATION_OPENED: Final = "generation.opened"
    GENERATION_CLOSED: Final = "generation.closed"
    GENERATION_PURGED: Final = "generation.purged"
    GENERATION_ABANDONED: Final = "generation.abandoned"

    LEDGER_UPGRADED: Final = "ledger.upgraded"

    # Reserved: a later release writes these, and they change nothing that is decided here.
    LEDGER_RESTORED: Final = "ledger.restored"
    KEY_WRAPPED: Final = "key.wrapped"
    KEY_UNWRAPPED: Final = "key.unwrapped"


SECRET_TYPES: Final = frozenset(
    {
        EventType.WRITTEN,
        EventType.REKEYED,
        EventType.DELETED,
        EventType.RESTORED,
        EventType.DESTROYED,
    }
)
CONTROL_TYPES: Final = frozenset(
    {
        EventType.KEY_INTRODUCED,
        EventType.KEY_ACTIVATED,
        EventType.KEY_RETIRED,
        EventType.KEY_LOST,
        EventType.GENERATION_OPENED,
        EventType.GENERATION_CLOSED,
        EventType.GENERATION_PURGED,
        EventType.GENERATION_ABANDONED,
        EventType.LEDGER_UPGRADED,
        EventType.LEDGER_RESTORED,
        EventType.KEY_WRAPPED,
        EventType.KEY_UNWRAPPED,
    }
)


class Event(NamedTuple):
    """One row of `secret_event`, as it is stored.

    A tuple, not a dataclass: a boot makes one for each of up to millions of rows.
    `recorded_at` counts microseconds since 1970 in UTC; `metadata` is the JSON text as
    stored; `key_fingerprint`, `prev_hash` and `event_hash` are 32 bytes each.
    """

    generation: int
    position: int
    stream: str
    version: int
    event_type: str
    key_id: str
    key_fingerprint: bytes
    recorded_at: int
    metadata: str
    prev_hash: bytes
    sealed: bytes
    event_hash: bytes

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """The event of a row of `secret_event`, whatever the row holds.

        A value of another type than the column's (somebody took the table apart) becomes
        one of that type that was never sealed, so that the row is named like other damage.
        """
        if tuple(map(type, row)) == _TYPES:
            return cls._make(row)
        return cls._make(map(_never_written, row, _TYPES))

    def with_seal(self, sealed: bytes, event_hash: bytes) -> Self:
        """The event with these in place of its last two columns."""
        return type(self)._make((*self[:10], sealed, event_hash))

    def __repr__(self) -> str:
        return (
            f"<Event {self.generation}/{self.position} {self.stream!r} v{self.version}"
            f" {self.event_type} under {self.key_id}>"
        )


_TYPES: Final = (int, int, str, int, str, str, bytes, int, str, bytes, bytes, bytes)


def _never_written(value: object, kind: type) -> object:
    if type(value) is kind or (kind is int and type(value) is float):
        return value
    if kind is str:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
        return "\udcff" + text  # UTF-8 can't encode it, so no seal covers it
    return kind()


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime (clamped to what one can hold)."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return _LATEST if value > 0 else _EPOCH.replace(year=1)


def to_microseconds(value: datetime) -> int:
    """An aware datetime as microseconds since 1970. A naive one is refused: ValueError."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone is ambiguous; pass an aware datetime")
    return (value - _EPOCH) // _MICROSECOND
