"""Which generations there were, as the sealed events of the control stream say. Pure.

A head row is a claim: anybody with SQL access can write one, or change its state. That a
generation was in use, where it ended and that it was purged is sealed into the control stream,
and every later generation carries that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ledger.control import Control
from ledger.events import Event, EventType
from ledger.metadata import parse_metadata

__all__ = ["Opening", "Openings", "openings_of"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What one `generation.opened` says."""

    generation: int
    """The generation that it opens."""
    source: int
    """The generation that this one was made of."""
    position: int
    """Where it lies; the source's `generation.closed`, its last event, has the same position."""
    is_move: bool
    """Whether the source lies in another database."""


@dataclass(frozen=True, slots=True)
class Openings:
    """What the control stream of the generation in use says of all generations."""

    in_use: int
    opened: tuple[Opening, ...]
    """In order of position; none where the ledger was never migrated."""
    purged: frozenset[int]
    """The generations whose purge was begun."""

    @property
    def used(self) -> frozenset[int]:
        """Every generation that is in use, or was, here or before a move."""
        named = {number for each in self.opened for number in (each.generation, each.source)}
        return frozenset(named | {self.in_use})

    @property
    def kept(self) -> dict[int, int]:
        """The closed generations whose rows must lie in this database, each with the position
        of its last event."""
        first = max((each.generation for each in self.opened if each.is_move), default=0)
        return {
            each.source: each.position
            for each in self.opened
            if each.source >= first and each.source not in self.purged
        }

    def next(self, heads: Collection[int]) -> int:
        """The number of the next generation, beside head rows of these numbers.

        Numbers come one after the other. A number that was given up is not taken again; a head
        row beyond a gap is nobody's, and ends nothing.
        """
        number = max(self.used) + 1
        while number in heads:
            number += 1
        return number

    def end(self, generation: int) -> int | None:
        """The position of the last event of a closed generation; None for any other."""
        ends = (each.position for each in self.opened if each.source == generation)
        return next(ends, None)


def openings_of(control: Control) -> Openings:
    """Read what `control`, which was folded and so checked, says of generations."""
    opened: list[Opening] = []
    purged: set[int] = set()
    for event in control.events:
        if event.event_type == EventType.GENERATION_OPENED:
            opened.append(_opening(event))
        elif event.event_type == EventType.GENERATION_PURGED:
            number = _facts(event).get("generation")
            if isinstance(number, int):
                purged.add(number)
    return Openings(control.generation, tuple(opened), frozenset(purged))


def _opening(event: Event) -> Opening:
    about = _facts(event)
    source = about.get("from")
    return Opening(
        generation=about["generation"],
        source=source if isinstance(source, int) else 0,
        position=event.position,
        is_move="move" in about,
    )


def _facts(event: Event) -> dict[str, Any]:
    return dict(parse_metadata(event.metadata).ledger)
