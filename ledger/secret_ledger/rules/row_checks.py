"""What is checked of a row: its hash, its seal, its key, its place, its kind. Pure.

A page of events is checked without state of the pages before it but their last position
and time: each row comes with the version before it in its stream. What was opened on the
way is kept with the page, so that nobody has to open it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from secret_ledger.errors import LedgerError, MissingKey, SecretDestroyed, TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.events import (
    CONTROL_STREAM,
    CONTROL_TYPES,
    NO_HASH,
    SECRET_TYPES,
    Event,
    EventType,
)
from secret_ledger.model.floors import floor_in, is_unopened, stated_floor
from secret_ledger.model.format import check_hash, hash_of
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.metadata import is_metadata
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import CheckedRow
from secret_ledger.model.secret import Values
from secret_ledger.rules.authority import read_event, read_newest
from secret_ledger.rules.findings import Finding, finding_of

__all__ = ["CheckedPage", "Rules", "missing_positions"]


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """Rows in order of position, what was sealed into them, and what is wrong with them."""

    rows: Sequence[CheckedRow]
    values: Values
    """The data of each row. None where there is none to be had: it went with its key, or was
    ended by a later `secret.destroyed`, or the row is a suspect."""
    suspects: Sequence[tuple[CheckedRow | None, Finding]]
    """None for the row where it is not one of them that is at fault."""
    time: int = 0
    """Of the newest of them that is proven: microseconds since 1970."""

    def __post_init__(self) -> None:
        # A value that slipped to another row would be sealed into it, and proven to be there.
        if len(self.values) != len(self.rows):
            raise ValueError(f"{len(self.values)} values for {len(self.rows)} rows")

    @property
    def last(self) -> Event:
        """The newest of them."""
        return self.rows[-1].event

    @property
    def ends(self) -> dict[str, int]:
        """The streams that were ended, and the version of the `secret.destroyed`."""
        return {row.event.stream: row.destroyed for row in self.rows if row.destroyed}

    def part(self, after: int, last: int) -> CheckedPage:
        """What lies above position `after` up to `last`, of a page without suspects."""
        first = self.rows[0].event.position
        part = slice(after + 1 - first, last + 1 - first)
        return CheckedPage(self.rows[part], self.values.part(part), ())


@dataclass(frozen=True, slots=True)
class Rules:
    """What the events of one generation are held to."""

    control: Control
    keys: Mapping[bytes, LedgerKey]
    missing_keys_matter: bool = True
    known_ends: Mapping[str, int] = field(default_factory=dict)
    """Streams that were ended at a version, which may lie above what the rows are read of."""

    def check(self, rows: Sequence[CheckedRow], after: int, time_before: int) -> CheckedPage:
        """Check rows that follow position `after`, whose event was recorded at `time_before`."""
        suspects: list[tuple[CheckedRow | None, Finding]] = []
        values = Values()
        for row in rows:
            event = row.event
            if event.position != after + 1:
                suspects.append((None, self._elsewhere(event, after)))
            after = event.position
            problem = _misplaced(row) or self._floor_problem(row)
            if problem is None:
                problem = self._open(row, values)
            else:
                values.add(None)
            if problem is not None:
                suspects.append((row, finding_of(event, problem)))
            elif event.recorded_at < time_before:
                suspects.append((None, finding_of(event, "it is older than the event before it")))
            else:  # the time of a damaged row says nothing of the next one
                time_before = event.recorded_at
        return CheckedPage(rows, values, suspects, time_before)

    def _elsewhere(self, event: Event, after: int) -> Finding:
        if event.position <= after:
            return finding_of(event, "another event has its position")
        return missing_positions(self.control.generation, after + 1, event.position - 1)

    def open(self, rows: Sequence[CheckedRow]) -> CheckedPage:
        """Open rows, each for itself: what it follows is not looked at."""
        suspects: list[tuple[CheckedRow | None, Finding]] = []
        values = Values()
        for row in rows:
            problem = self._open(row, values)
            if problem is not None:
                suspects.append((row, finding_of(row.event, problem)))
        return CheckedPage(rows, values, suspects)

    def open_newest(self, event: Event) -> str | LedgerError | None:
        """What is wrong with the newest event of a secret: its hash, its seal or its key."""
        try:
            context = check_hash(self.control.ledger_id, event)
            read_newest(self.control, self.keys, event, context=context)
        except SecretDestroyed:  # before facts were sealed, a lost key could have the newest event
            return None
        except MissingKey as error:
            return error if self.missing_keys_matter else None
        except LedgerError as error:
            return error
        return None

    def _floor_problem(self, row: CheckedRow) -> str | None:
        """What is wrong with what an event states of how far its secret has ended."""
        event, control = row.event, self.control
        if (
            event.stream == CONTROL_STREAM
            or not control.upgrades
            or event.position <= control.upgrades[0]
        ):
            return None
        stated = stated_floor(event)
        if is_unopened(event) or row.previous_type == EventType.DESTROYED:
            floor = event.version - 1
        else:
            before = floor_in(row.previous_facts) if row.previous_facts else None
            floor = (row.destroyed_before or 0) if before is None else before
        if stated is None and not control.began_with_facts:
            return None  # a node of an older release wrote it, and reads walk the chain
        if floor == (stated or 0):
            return None
        return f"it says that the secret ended at version {stated or 0}, the log at {floor}"

    def each_in_stream(self, rows: Sequence[CheckedRow]) -> list[Finding | None]:
        """What is wrong with each of these rows, by itself or by what it follows."""
        problems = [self._in_stream(row) for row in rows]
        return [
            None if problem is None else finding_of(row.event, problem)
            for row, problem in zip(rows, problems, strict=True)
        ]

    def _in_stream(self, row: CheckedRow) -> str | LedgerError | None:
        return _misplaced(row) or self._floor_problem(row) or self._open(row, Values())

    def _open(self, row: CheckedRow, values: Values) -> str | LedgerError | None:
        """What is wrong with a row's hash, seal or key. Its data, or None, is added to `values`."""
        event, destroyed = row.event, row.destroyed
        if self.known_ends:
            destroyed = max(destroyed or 0, self.known_ends.get(event.stream, 0))
        ended = destroyed is not None and destroyed > event.version
        problem: LedgerError | None = None
        try:
            context = check_hash(self.control.ledger_id, event)
            values.add(read_event(self.control, self.keys, event, context=context, ended=ended))
            return None
        except SecretDestroyed:
            pass  # gone for good, and its hash is still what the chain says
        except MissingKey as error:
            # A control event has no value to miss; the active key's own seals cover the chain.
            if event.stream == CONTROL_STREAM:
                values.add(b"")
                return None
            problem = error if self.missing_keys_matter else None
        except LedgerError as error:
            problem = error
        values.add(None)
        return problem

    def ends(self, end: Event, damaged: Event) -> bool:
        """Whether `end` is a `secret.destroyed` over a row that did not open, as it was found."""
        try:
            found = hash_of(self.control.ledger_id, damaged)
        except TamperedEvent:  # then the destruction took the hash that the row states
            found = damaged.event_hash
        return is_unopened(end) and end.prev_hash == found and self.is_end(end)

    def is_followed(self, below: Event, above: Event) -> bool:
        """Whether `above` is the next version after `below`, and has sealed its hash."""
        try:
            found = hash_of(self.control.ledger_id, below)
        except TamperedEvent:
            return False
        return below.version == above.version - 1 and found == above.prev_hash

    def is_end(self, end: Event) -> bool:
        """Whether an event is a `secret.destroyed` that opens."""
        try:
            return (
                end.event_type == EventType.DESTROYED
                and hash_of(self.control.ledger_id, end) == end.event_hash
                and read_event(self.control, self.keys, end) == b""
            )
        except SecretDestroyed:  # its key is lost: its hash is in the chain above it
            return True
        except MissingKey:
            # Of what lies under a key that nobody holds, the rows are all there is to go by.
            return not self.missing_keys_matter
        except LedgerError:
            return False


def _misplaced(row: CheckedRow) -> str | LedgerError | None:
    """What is wrong with an event's kind, or with what it follows."""
    event = row.event
    kinds = CONTROL_TYPES if event.stream == CONTROL_STREAM else SECRET_TYPES
    if event.event_type not in kinds:
        return f"{printable(event.event_type)} is no event of such a stream"
    if not is_metadata(event.metadata):
        return "its metadata is not readable"
    if event.event_type == EventType.DESTROYED and (row.destroyed or 0) < event.version:
        return "reads do not find it: an index of the database is damaged"
    if event.version == 1:
        follows = event.prev_hash == NO_HASH
    elif row.previous_position is None:
        return f"version {event.version - 1} before it is missing"
    else:
        follows = row.previous_hash == event.prev_hash and row.previous_position < event.position
    return None if follows else "it does not follow the version before it"


def missing_positions(generation: int, first: int, last: int) -> Finding:
    """The finding that there is a gap in the log."""
    missing = f"position {first} is" if first == last else f"positions {first} to {last} are"
    return Finding(
        "tampered", f"{missing} missing from the log", position=first, generation=generation
    )
