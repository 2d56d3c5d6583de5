"""Which generations there were, as the sealed events of the control stream say. Pure.

A head row is a claim: anybody with SQL access can write one, or change its state. That a
generation was in use, where it ended and that it was purged is sealed into the control stream,
and every later generation carries that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secret_ledger.model.control import Control
from secret_ledger.model.events import Event, EventType
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.rows import LogHead
from secret_ledger.rules.findings import Finding

__all__ = ["Opening", "Openings", "openings_of", "unaccounted"]


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
    abandoned: frozenset[int]
    """The generations that were given up before they were in use."""

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


def unaccounted(
    openings: Openings, heads: Sequence[LogHead], rows: Mapping[int, int]
) -> list[Finding]:
    """Where head rows, and the generations that `rows` lie in (how many in each), are not what
    the sealed events say there must be. The generation in use is not looked at."""
    by_number = {head.generation: head for head in heads}
    kept = openings.kept
    found = [
        _finding(generation, problem)
        for generation, end in kept.items()
        if (problem := _not_kept(end, by_number.get(generation), rows.get(generation, 0)))
    ]
    for number, head in by_number.items():
        if number not in kept and number != openings.in_use:
            problem = _not_said(openings, head, by_number)
            if problem is not None:
                found.append(_finding(number, problem))
    for number, count in rows.items():
        if number in kept or number == openings.in_use:
            continue
        head_row = by_number.get(number)
        if head_row is None:
            found.append(_finding(number, f"{count} rows lie in it, and it does not exist"))
        elif head_row.state not in ("building", "purging"):
            found.append(
                _finding(
                    number,
                    f"{count} rows lie in it, and it was purged, or never in use:"
                    f" `secret-ledger generations purge {number}` deletes them",
                )
            )
    return found


def _not_kept(end: int, head: LogHead | None, count: int) -> str | None:
    """What is wrong with a closed generation that nothing sealed says was purged."""
    if not count:
        return "it was in use and has no rows, and no sealed event says that it was purged"
    if head is None:
        return "it was in use, and its head row is gone"
    if head.state != "closed":
        return f"its head row says that it is {head.state}; as sealed events say, it is closed"
    if head.position != end:
        return f"its head row says that it ends at position {head.position}; it was closed at {end}"
    return None


def _not_said(openings: Openings, head: LogHead, heads: Collection[int]) -> str | None:
    """What is wrong with the head row of a generation that has nothing to keep here."""
    unfinished = head.state in ("building", "purging", "purged")
    if head.generation in openings.used:
        if head.state in ("purging", "purged"):
            return None
        return f"its head row says that it is {head.state}, but it was purged, or left by a move"
    if not unfinished:
        return f"its head row says that it is {head.state}; no sealed event says that it was in use"
    if head.generation > openings.next(heads) and head.generation not in openings.abandoned:
        return "somebody else wrote its head row: no generation comes before it; delete that row"
    return None


def _finding(generation: int, reason: str) -> Finding:
    return Finding("tampered", f"generation {generation}: {reason}", generation=generation)


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
    abandoned = frozenset(number for number, _, _ in control.abandoned)
    return Openings(control.generation, tuple(opened), frozenset(purged), abandoned)


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
