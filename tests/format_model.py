"""docs/format.md's rules, written anew: abstract seals and hashes, and what each answer rests on.

Nothing in `format_*` imports the project. A seal is a number that only `Vault.seal` gives out, so
nobody without a key can make one; a hash is a number that stands for what was hashed, so anybody
can::

    format_model      rows, seals, hashes, the control stream folded
    format_reads      what a read rests on: `Ledger`, which can be told to leave rules out
    format_checks     boot, full verification
    format_writes     appends, certificates, rotation, loss, migration, purge
    format_histories  honest histories, and what is true after them
    format_attacks    what somebody without a key can do
    format_verdict    is an answer true, a refusal, or a stated limit?

This model has shown that four of them are needed: `sum-of-versions`, `census-of-an-end`,
`lost-verifies` and `already-proven`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

CONTROL: Final = "$"
NO_HASH: Final = 0
MOST_DAMAGED: Final = 2
"""Damaged last events that a `destroy` may go over: docs/format.md says 1,000."""


class Facts(NamedTuple):
    """`metadata.ledger`, as far as the rules read it."""

    floor: int | None = None
    unopened: bool = False
    lost: str | None = None
    """Of a `destroyed`: the lost key that its stream ended with."""
    of: int | None = None
    state: str | None = None
    """Of a `rekeyed`: what the secret is."""
    key: str | None = None
    """Of a control event: the key it is about."""
    generation: int | None = None
    purged: tuple[int, int] | None = None
    """Of `opened`: count and digest of the rows under lost keys that it begins with."""
    rows: tuple[int, int] | None = None
    """Of `lost`, and of an end over damage: count and digest of the rows it covers."""
    ends: int | None = None


class Seal(NamedTuple):
    """`sealed`: its bytes (`number` stands for them), or their purged form."""

    number: int
    purged: bool = False


class Row(NamedTuple):
    """An event as the database claims it. Its hash is always recomputed, so it has no column."""

    generation: int
    position: int
    stream: str
    version: int
    type: str
    key: str
    time: int
    facts: Facts
    prev: int
    sealed: Seal


class Head(NamedTuple):
    """A head row."""

    position: int
    time: int
    epoch: int
    state: str


@dataclass
class Database:
    """What anybody with SQL access can write as he likes."""

    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    """By generation and position."""
    heads: dict[int, Head] = field(default_factory=dict)

    def copy(self) -> Database:
        return Database(dict(self.rows), dict(self.heads))

    @cached_property
    def streams(self) -> dict[tuple[int, str], dict[int, Row]]:
        """By generation and stream: the rows by version. For a database at rest only."""
        found: dict[tuple[int, str], dict[int, Row]] = {}
        for row in self.rows.values():
            found.setdefault((row.generation, row.stream), {})[row.version] = row
        return found

    @cached_property
    def generations(self) -> dict[int, list[Row]]:
        """The rows of each generation, in order of position."""
        found: dict[int, list[Row]] = {}
        for place in sorted(self.rows):
            found.setdefault(place[0], []).append(self.rows[place])
        return found


class Vault:
    """Every seal that was ever made, and every hash that was ever asked for."""

    def __init__(self) -> None:
        self.seals: list[tuple[tuple[object, ...], object]] = []
        self._hashes: dict[object, int] = {}
        self._controls: dict[object, Control | Refused] = {}

    def seal(self, row: Row, data: object) -> Row:
        """Only for whoever holds `row.key`."""
        self.seals.append((row[:9], data))
        return row._replace(sealed=Seal(len(self.seals)))

    def hash(self, what: object) -> int:
        """Anybody can."""
        return self._hashes.setdefault(what, len(self._hashes) + 1)

    def hash_of(self, row: Row) -> int:
        """The event hash: the same for a row and for its purged form."""
        return self.hash((row[:9], row.sealed.number))

    def opens(self, row: Row) -> bool:
        """Whether the seal authenticates, for whoever holds `row.key`."""
        sealed = row.sealed
        return (
            not sealed.purged and sealed.number > 0 and self.seals[sealed.number - 1][0] == row[:9]
        )

    def data(self, row: Row) -> object:
        return self.seals[row.sealed.number - 1][1]

    def census(self, rows: list[Row]) -> tuple[int, int]:
        """Count and digest over position and event hash, in order of position."""
        ordered = sorted(rows, key=lambda row: row.position)
        return len(ordered), self.hash(tuple((r.position, self.hash_of(r)) for r in ordered))


class Refused(Exception):
    """A typed refusal: TamperedEvent, MissingKey, or an operation that says why it can't."""


class Answer(NamedTuple):
    """What a question was answered with."""

    kind: str
    """value, deleted, destroyed, absent, live (nothing to restore)."""
    value: object = None


@dataclass(frozen=True)
class Control:
    """The control stream, folded."""

    activated: tuple[tuple[int, str], ...]
    """Position and key of each activation."""
    openings: tuple[Row, ...]
    purged: frozenset[int]
    """Generations with a sealed `generation.purged`."""
    abandoned: frozenset[int]
    lost: Mapping[str, Row]
    retired: frozenset[str]
    upgraded: int | None
    """S, the position of `ledger.upgraded`."""
    closed: bool
    own: Row | None
    """The opening of the generation it was read in."""
    end: int
    """Position of its newest event."""

    @property
    def active(self) -> str:
        return self.activated[-1][1]

    @property
    def epoch(self) -> int:
        return len(self.activated) + (self.upgraded is not None)

    @property
    def born_upgraded(self) -> bool:
        """Whether S is in the ledger's genesis."""
        return self.upgraded == 3

    def active_at(self, position: int) -> str:
        found = self.activated[0][1]
        for since, key in self.activated:
            if since <= position:
                found = key
        return found

    def authority(self, position: int, generation: int | None = None) -> str:
        """The key of a position, in the generation read or (as its opening says) an earlier one."""
        own = self.own
        if generation is not None:
            own = next((o for o in self.openings if o.facts.generation == generation), None)
        if own is not None and position <= own.position:
            return str(own.facts.key)
        return self.active_at(position)

    def generation_at(self, position: int) -> int:
        """Which generation was written when the log was at `position`."""
        opened = [o.facts.generation or 0 for o in self.openings if o.position < position]
        return max(opened, default=0)


def state_of(row: Row) -> str:
    """live, deleted or destroyed."""
    if row.type == "rekeyed":
        return str(row.facts.state)
    return row.type if row.type in ("deleted", "destroyed") else "live"
