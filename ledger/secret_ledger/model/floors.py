"""The version up to which a secret has ended, and how a chain proves it. Pure, no I/O.

A `secret.destroyed` ends all versions up to its own. Every later event of the stream states that
version as its *floor*, under its seal. So a newest event that opens is enough to tell the floor.
If an older release wrote the newest event, readers walk down the chain instead (docs/format.md,
"Floor").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from secret_ledger.model.control import Control
from secret_ledger.model.events import Event, EventType
from secret_ledger.model.format import hash_of
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.refusals import tampered

__all__ = ["Walk", "ended_at", "floor_facts", "floor_in", "is_unopened", "stated_floor"]


def stated_floor(event: Event) -> int | None:
    """The floor that an event states, or None. The floor is proven if the event is proven."""
    return floor_in(event.metadata) if '"floor":' in event.metadata else None


def floor_in(metadata: str) -> int | None:
    """The floor that a stored metadata text states, or None."""
    floor = parse_metadata(metadata).ledger.get("floor")
    return floor if type(floor) is int and floor >= 0 else None


def ended_at(control: Control, newest: Event) -> int | None:
    """The version up to which a secret has ended, as its newest event says. 0 if none has ended.

    Returns None if only a walk down the chain tells: an older release wrote the event.
    """
    if newest.event_type == EventType.DESTROYED:
        return newest.version
    floor = stated_floor(newest)
    return 0 if floor is None and control.began_with_facts else floor


def floor_facts(control: Control, floor: int) -> Mapping[str, Any]:
    """The fact that states `floor`. Empty if the floor is 0 and the ledger began with facts."""
    return {} if not floor and control.began_with_facts else {"floor": floor}


def is_unopened(event: Event) -> bool:
    """Whether an event was built on a newest event that did not open."""
    return '"unopened":' in event.metadata and (
        parse_metadata(event.metadata).ledger.get("unopened") is True
    )


@dataclass(slots=True)
class Walk:
    """A walk down a stream's chain from its newest event, which has opened.

    Each row that the walk reaches is proven: the event above the row has sealed the row's hash.
    """

    control: Control
    newest: Event
    lowest: Event
    """The oldest row that the walk has reached."""
    floor: int
    """The version up to which the secret has ended, as far as the walk knows."""
    settled: bool
    """Whether no lower row can raise the floor."""
    above: Event | None = None
    """The row above `lowest`. None before the first step."""

    @classmethod
    def begin(cls, control: Control, newest: Event) -> Self:
        """Start at `newest`, which the caller has opened."""
        floor = ended_at(control, newest)
        walk = cls(control, newest, newest, floor or 0, floor is not None)
        walk._settle()
        return walk

    @property
    def next(self) -> int:
        """The version below the lowest row. 0 if the lowest row is version 1."""
        return self.lowest.version - 1

    @property
    def is_over(self) -> bool:
        """Whether the walk has reached all rows above the floor."""
        return self.next <= self.floor

    def reach(self, row: Event | None) -> None:
        """Go down to version `next`, which `row` is. None says that the row is missing.

        Raises TamperedEvent if `row` is missing, or not the row whose hash was sealed.
        """
        after = self.lowest
        if row is None or row.version != self.next:
            raise tampered(after, f"version {self.next} before it is missing")
        if (row.stream, row.generation) != (after.stream, after.generation):
            raise tampered(
                row, "the database returned it for an event of another secret or generation"
            )
        if row.position >= after.position or row.recorded_at > after.recorded_at:
            raise tampered(row, "its position or time is not before that of the next version")
        if hash_of(self.control.ledger_id, row) != after.prev_hash:
            raise tampered(row, "the version after it does not follow it")
        self.above, self.lowest = after, row
        self._settle()

    def _settle(self) -> None:
        if self.settled:
            return
        row = self.lowest
        if row.event_type == EventType.DESTROYED:
            self.floor, self.settled = row.version, True
        elif is_unopened(row):
            self.floor, self.settled = row.version - 1, True
        elif (stated := stated_floor(row)) is not None:
            self.floor, self.settled = stated, True
        elif row.version == 1:
            self.settled = True
