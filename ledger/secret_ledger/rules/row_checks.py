"""Checks a row: its hash, its seal, its key, its place, its kind. Pure.

Each row comes with the version before it in its stream. So the check of a page needs only the
last position and time of the page before. The page keeps the opened data, so that nobody opens
a row again.
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
    """Rows in order of position, the data sealed into them, and the findings."""

    rows: Sequence[CheckedRow]
    values: Values
    """The data of each row. None if a row gives no data.

    Then its key is lost or not in hand, or a later `secret.destroyed` ended it, or the row is a
    suspect."""
    suspects: Sequence[tuple[CheckedRow | None, Finding]]
    """Each finding with the row at fault. The row is None if no single row is at fault."""
    time: int = 0
    """Time of the newest proven row, in microseconds since 1970. Only `Rules.check` sets it."""

    def __post_init__(self) -> None:
        # If a value slipped to another row, a migration would seal and prove it in that row.
        if len(self.values) != len(self.rows):
            raise ValueError(f"{len(self.values)} values for {len(self.rows)} rows")

    @property
    def last(self) -> Event:
        """The event with the highest position."""
        return self.rows[-1].event

    @property
    def ends(self) -> dict[str, int]:
        """The streams with a `secret.destroyed`, and the version of the newest of each stream."""
        return {row.event.stream: row.destroyed for row in self.rows if row.destroyed}

    def part(self, after: int, last: int) -> CheckedPage:
        """The rows above position `after`, up to `last`. The page must have no suspects."""
        first = self.rows[0].event.position
        part = slice(after + 1 - first, last + 1 - first)
        return CheckedPage(self.rows[part], self.values.part(part), ())


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that the events of one generation must obey."""

    control: Control
    keys: Mapping[bytes, LedgerKey]
    missing_keys_matter: bool = True
    known_ends: Mapping[str, int] = field(default_factory=dict)
    """Streams that have ended, with the version. That may lie above the rows that are read."""

    def check(self, rows: Sequence[CheckedRow], after: int, time_before: int) -> CheckedPage:
        """Check the rows that follow position `after`.

        time_before: when the event at `after` was recorded, in microseconds since 1970.
        """
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
            else:  # the time of a damaged row says nothing about the next row
                time_before = event.recorded_at
        return CheckedPage(rows, values, suspects, time_before)

    def _elsewhere(self, event: Event, after: int) -> Finding:
        if event.position <= after:
            return finding_of(event, "another event has its position")
        return missing_positions(self.control.generation, after + 1, event.position - 1)

    def open(self, rows: Sequence[CheckedRow]) -> CheckedPage:
        """Open each row by itself. The row before it is not checked."""
        suspects: list[tuple[CheckedRow | None, Finding]] = []
        values = Values()
        for row in rows:
            problem = self._open(row, values)
            if problem is not None:
                suspects.append((row, finding_of(row.event, problem)))
        return CheckedPage(rows, values, suspects)

    def open_newest(self, event: Event) -> str | LedgerError | None:
        """Check the hash, the seal and the key of a secret's newest event.

        Returns the problem, or None. A missing key is no problem unless `missing_keys_matter`.
        """
        try:
            context = check_hash(self.control.ledger_id, event)
            read_newest(self.control, self.keys, event, context=context)
        except SecretDestroyed:  # without `ledger.upgraded`, a newest event may be under a lost key
            return None
        except MissingKey as error:
            return error if self.missing_keys_matter else None
        except LedgerError as error:
            return error
        return None

    def _floor_problem(self, row: CheckedRow) -> str | None:
        """The row before determines the floor: docs/format.md, "Full verification", rule 4."""
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
            return None  # a node of an older release wrote the event: reads walk the chain
        if floor == (stated or 0):
            return None
        return (
            f"it says that the secret ended at version {stated or 0}; the log says at version"
            f" {floor}"
        )

    def each_in_stream(self, rows: Sequence[CheckedRow]) -> list[Finding | None]:
        """The finding for each row, alone or against the version before. None if it is sound."""
        problems = [self._in_stream(row) for row in rows]
        return [
            None if problem is None else finding_of(row.event, problem)
            for row, problem in zip(rows, problems, strict=True)
        ]

    def _in_stream(self, row: CheckedRow) -> str | LedgerError | None:
        return _misplaced(row) or self._floor_problem(row) or self._open(row, Values())

    def _open(self, row: CheckedRow, values: Values) -> str | LedgerError | None:
        """Returns the problem, or None. Always adds the row's data, or None, to `values`."""
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
            pass  # the data is gone for good, and `check_hash` has passed
        except MissingKey as error:
            # A control event has no data to miss. The seals of the active key cover the chain.
            if event.stream == CONTROL_STREAM:
                values.add(b"")
                return None
            problem = error if self.missing_keys_matter else None
        except LedgerError as error:
            problem = error
        values.add(None)
        return problem

    def ends(self, end: Event, damaged: Event) -> bool:
        """Whether `end` is a `secret.destroyed` that was written over `damaged` as it is now.

        `end` says that it was built on an event that did not open, and has sealed that hash.
        """
        try:
            found = hash_of(self.control.ledger_id, damaged)
        except TamperedEvent:  # then the `secret.destroyed` took the hash that the row states
            found = damaged.event_hash
        return is_unopened(end) and end.prev_hash == found and self.is_end(end)

    def is_followed(self, below: Event, above: Event) -> bool:
        """Whether `above` is the version after `below`, and has sealed the hash of `below`."""
        try:
            found = hash_of(self.control.ledger_id, below)
        except TamperedEvent:
            return False
        return below.version == above.version - 1 and found == above.prev_hash

    def is_end(self, end: Event) -> bool:
        """Whether an event is a `secret.destroyed` that opens, or whose key is lost."""
        try:
            return (
                end.event_type == EventType.DESTROYED
                and hash_of(self.control.ledger_id, end) == end.event_hash
                and read_event(self.control, self.keys, end) == b""
            )
        except SecretDestroyed:  # its key is lost: its hash is in the chain above it
            return True
        except MissingKey:
            # If missing keys don't matter, the columns of the row decide.
            return not self.missing_keys_matter
        except LedgerError:
            return False


def _misplaced(row: CheckedRow) -> str | LedgerError | None:
    event = row.event
    kinds = CONTROL_TYPES if event.stream == CONTROL_STREAM else SECRET_TYPES
    if event.event_type not in kinds:
        return f"{printable(event.event_type)} is no event type of this stream"
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
    """The finding for a gap in the log: positions `first` to `last` are missing."""
    missing = f"position {first} is" if first == last else f"positions {first} to {last} are"
    return Finding(
        "tampered", f"{missing} missing from the log", position=first, generation=generation
    )
