"""The generations of a ledger, as the sealed events of the control stream say. Pure.

A head row is a claim: anybody with SQL access can write or change it. Sealed events of the
control stream say whether a generation was in use, where it ended, and whether it was purged.
Every later generation carries these events.
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
    """The content of one `generation.opened`."""

    generation: int
    """The generation that the event opens."""
    source: int
    """The generation that the opened generation is a copy of."""
    position: int
    """Position of the event, and of the source's last event, its `generation.closed`."""
    is_move: bool
    """Whether the source lies in another database."""


@dataclass(frozen=True, slots=True)
class Openings:
    """All generations, as the control stream of the generation in use says."""

    in_use: int
    opened: tuple[Opening, ...]
    """All openings in order of position. Empty if the ledger was never migrated."""
    purged: frozenset[int]
    """Generations whose purge has begun."""
    abandoned: frozenset[int]
    """Generations that were given up before they were in use."""

    @property
    def used(self) -> frozenset[int]:
        """Every generation that is or was in use, in this database or before a move."""
        named = {number for each in self.opened for number in (each.generation, each.source)}
        return frozenset(named | {self.in_use})

    @property
    def kept(self) -> dict[int, int]:
        """The closed generations whose rows must lie in this database.

        Each comes with the position of its last event."""
        first = max((each.generation for each in self.opened if each.is_move), default=0)
        return {
            each.source: each.position
            for each in self.opened
            if each.source >= first and each.source not in self.purged
        }

    def next(self, heads: Collection[int]) -> int:
        """The number of the next generation.

        Numbers follow each other. A number with a head row is passed over, so the number of an
        abandoned generation is not used again. A head row beyond a gap has no effect.

        heads: the numbers of all head rows.
        """
        number = max(self.used) + 1
        while number in heads:
            number += 1
        return number

    def end(self, generation: int) -> int | None:
        """The position of a closed generation's last event. Returns None for other generations."""
        ends = (each.position for each in self.opened if each.source == generation)
        return next(ends, None)


def unaccounted(
    openings: Openings, heads: Sequence[LogHead], rows: Mapping[int, int]
) -> list[Finding]:
    """Findings for head rows, and for rows of generations, that contradict the sealed events.

    The generation in use is not checked.

    rows: the number of rows of each generation, by generation."""
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
            found.append(_finding(number, f"{count} rows lie in it, but it has no head row"))
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
    """`end` is the last position of a closed generation, which no sealed event says was purged."""
    if not count:
        return "it was in use and has no rows, and no sealed event says that it was purged"
    if head is None:
        return "it was in use, but its head row is gone"
    if head.state != "closed":
        return f"its head row says that it is {head.state}; sealed events say that it is closed"
    if head.position != end:
        return (
            f"its head row says that it ends at position {head.position}; it was closed at"
            f" position {end}"
        )
    return None


def _not_said(openings: Openings, head: LogHead, heads: Collection[int]) -> str | None:
    """The generation of `head` has no rows to keep in this database."""
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
    """The generations that `control` states. Its events were checked when it was folded."""
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
