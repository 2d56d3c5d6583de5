"""The log: each event is one immutable, sealed row.

An event belongs to a *stream*: a secret's name, or `$ledger`, the control stream. Its *version*
is its number in the stream, its *position* its number in the generation. Both count 1, 2, 3, …
without a gap; positions follow the order of commits. The seal binds every field of the row but
`event_hash`, the hash of the others; see `format`.
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
"""`prev_hash` of a stream's first event: 32 zero bytes."""


class EventType:
    """The stored names of the event types. They are fixed words, never Python paths."""

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

    # Reserved for a later release. In this release these types decide nothing.
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

    A tuple, not a dataclass: a boot may make millions of events. `recorded_at` counts
    microseconds since 1970 in UTC. `metadata` is the JSON text as stored. `key_fingerprint`,
    `prev_hash` and `event_hash` have 32 bytes each.
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

        If somebody altered the table, a value may have another type than its column. Then a
        value of the right type that was never sealed replaces it, so that the row is reported
        like other damage. A float in an integer column stays: no seal covers a float either.
        """
        if tuple(map(type, row)) == _TYPES:
            return cls._make(row)
        return cls._make(map(_never_written, row, _TYPES))

    def with_seal(self, sealed: bytes, event_hash: bytes) -> Self:
        """A copy of the event with this `sealed` and this `event_hash`."""
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
        return "\udcff" + text  # UTF-8 can't encode U+DCFF, so no seal covers the text
    return kind()


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime, clamped to the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return _LATEST if value > 0 else _EPOCH.replace(year=1)


def to_microseconds(value: datetime) -> int:
    """An aware datetime as microseconds since 1970. Raises ValueError if it has no time zone."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone is ambiguous; pass an aware datetime")
    return (value - _EPOCH) // _MICROSECOND
