"""Short honest histories of a ledger, and what is true after them. No project import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import format_writes as writes
from format_model import (
    CONTROL,
    NO_HASH,
    Answer,
    Database,
    Facts,
    Head,
    Refused,
    Row,
    Seal,
    Vault,
    state_of,
)  # fmt: skip
from format_reads import Ledger

KEYS = ("k1", "k2", "k3", "k4")
SECRETS = ("a", "b")


Truths = dict[object, set[Answer]]


class Entry(NamedTuple):
    """A version, as whoever wrote it knows it."""

    version: int
    type: str
    state: str
    value: object
    time: int


class World:
    """A ledger that only honest processes have touched, everything that was ever sealed for it,
    and the truth of it."""

    def __init__(self, *, facts: bool = True) -> None:
        self.vault = Vault()
        self.database = Database()
        self.held = frozenset(["k1"])
        self.clock = 10
        self.told: dict[str, tuple[Entry, ...]] = {}
        """By stream: the truth."""
        self.as_of: dict[int, tuple[Entry, ...]] = {}
        """By seal: the truth of its stream once it was written."""
        self.pool: dict[Row, None] = {}
        """Every row that ever was."""
        self.committed: set[Row] = set()
        self.attempts: set[Row] = set()
        """Rows that were sealed and rolled back."""
        self.lost: set[str] = set()
        """Keys that were given up."""
        self.lost_in_attempts: set[str] = set()
        self.ops: tuple[str, ...] = ()
        self._attempt = False
        self._truths: dict[object, Truths] = {}
        genesis = ["introduced", "activated", *(["upgraded"] if facts else [])]
        before: Row | None = None
        for position, event in enumerate(genesis, 1):
            about = Facts() if event == "upgraded" else Facts(key="k1")
            prev = self.vault.hash_of(before) if before else NO_HASH
            row = Row(0, position, CONTROL, position, event, "k1", 10, about, prev, Seal(0))
            before = self.vault.seal(row, None)
            self._keep([before])
            self.database.rows[0, position] = before
        self.database.heads[0] = Head(len(genesis), 10, len(genesis) - 1, "active")

    def ledger(
        self, database: Database | None = None, dropped: frozenset[str] = frozenset()
    ) -> Ledger:
        """A process that holds every key but the lost ones."""
        return Ledger(self.vault, database or self.database, self.held, self.clock, dropped)

    def _keep(self, rows: list[Row], *, attempt: bool = False) -> None:
        for row in rows:
            self.pool[row] = None
            (self.attempts if attempt else self.committed).add(row)

    def do(self, op: str) -> None:
        """Raises Refused, and does nothing, where the operation can't be done."""
        self.clock += 10
        attempt = self._attempt = op.startswith("~")
        database = self.database.copy()
        held, told = self.held, dict(self.told)
        try:
            rows = self._do(op.lstrip("~"))
        except Refused:
            self.database, self.held, self.told = database, held, told
            raise
        self._keep(rows, attempt=attempt)
        for row in rows:
            if row.stream != CONTROL and row.sealed.number not in self.as_of:
                self._tell(row)
        if attempt:
            self.database, self.held, self.told = database, held, told
        self.ops += (op,)

    def _tell(self, row: Row) -> None:
        before = self.told.get(row.stream, ())
        if row.sealed.number == 0 or (before and row.version <= before[-1].version):
            return
        value = self.vault.data(row) if state_of(row) == "live" else None
        entry = Entry(row.version, row.type, state_of(row), value, row.time)
        self.told[row.stream] = self.as_of[row.sealed.number] = (*before, entry)

    def _do(self, op: str) -> list[Row]:
        verb, _, name = op.partition(" ")
        ledger = self.ledger()
        match verb:
            case "put":
                return writes.put(ledger, name, f"{name}{self.clock}")
            case "delete":
                return writes.delete(ledger, name)
            case "restore":
                return writes.restore(ledger, name)
            case "destroy":
                return writes.destroy(ledger, name)
            case "rotate":
                if len(ledger.control.activated) == 3:
                    raise Refused("enough keys")
                key = KEYS[len(ledger.control.activated)]
                self.held |= {key}
                return writes.rotate(self.ledger(), key)
            case "rekey":
                rows = writes.rekey(ledger).written
                if not rows:
                    raise Refused("nothing to do")
                return rows
            case "build" | "migrate":
                source = ledger.generation
                rows = writes.build(ledger)
                self._copied(rows, source)
                return rows + (writes.flip(self.ledger()) if verb == "migrate" else [])
            case "flip":
                source = ledger.generation
                rows = writes.flip(ledger)
                self._copied(rows, source)
                return rows
            case "abandon":
                rows = writes.build(ledger)
                self._copied(rows, ledger.generation)
                return rows + writes.abandon(self.ledger())
            case "purge":
                closed = [g for g, h in self.database.heads.items() if h.state == "closed"]
                if not closed:
                    raise Refused("nothing to do")
                return writes.purge(ledger, min(closed))
            case "lost":
                key = self._superseded(ledger)
                self.held -= {key}
                rows = writes.lose(self.ledger(), key)
                (self.lost_in_attempts if self._attempt else self.lost).add(key)
                return rows
            case "retire":
                return writes.retire(ledger, self._superseded(ledger))
            case "heal" | "heal-version":
                return self._heal(name, 2 if verb == "heal-version" else 0)
            case "upgrade":
                return writes.upgrade(ledger)
            case _:
                raise AssertionError(op)

    def _superseded(self, ledger: Ledger) -> str:
        control = ledger.control
        for _, key in control.activated[:-1]:
            if key not in control.lost and key not in control.retired:
                return key
        raise Refused("nothing to do")

    def _copied(self, rows: list[Row], source: int) -> None:
        """What is true as of a row of one generation is true as of its copy."""
        for row in rows:
            original = self.database.rows[source, row.position]
            known = self.as_of.get(original.sealed.number)
            if known is not None and row.generation != source:
                self.as_of[row.sealed.number] = known

    def _heal(self, stream: str, shift: int) -> list[Row]:
        """The newest event of a stream is damaged (its version too, by `shift`), and the stream
        destroyed."""
        ledger = self.ledger()
        newest = ledger.newest(stream)
        if newest is None or ledger.control.upgraded is None:
            raise Refused("nothing to heal")  # an older release seals no census of what it found
        damaged = newest._replace(sealed=Seal(0), version=newest.version + shift)
        place = (newest.generation, newest.position)
        self.database.rows[place] = damaged
        for name in ("streams", "generations"):
            self.database.__dict__.pop(name, None)
        written = writes.destroy(self.ledger(), stream)
        self.committed.discard(newest)
        return [damaged, *written]

    def truths(self, row: Row | None, generation: int, stream: str) -> Truths:
        """What may be answered if `row` is the newest event of the stream, by question."""
        key = (self.ops, row, generation, stream)
        if key not in self._truths:
            self._truths[key] = _truths(self, row, generation, stream)
        return self._truths[key]

    def honest(self, generation: int, end: int) -> dict[int, Row]:
        """The rows that were committed at each position of a generation, up to `end`."""
        return {
            r.position: r
            for r in self.committed
            if r.generation == generation and r.position <= end
        }


OPS = (
    "put a", "put b", "delete a", "restore a", "destroy a", "rotate", "rekey", "migrate",
    "purge", "lost", "retire",
)  # fmt: skip
MORE = (
    "abandon",
    "build",
    "heal a",
    "heal-version a",
    "~put a",
    "~destroy a",
    "~rotate",
    "~lost",
    "~purge",
)


def play(ops: tuple[str, ...], *, facts: bool = True) -> World:
    """A world after these operations. Raises Refused where one of them can't be done."""
    world = World(facts=facts)
    for op in ops:
        world.do(op)
    return world


def histories(most: int, ops: tuple[str, ...] = OPS, *, facts: bool = True) -> Iterator[World]:
    """All that can be done in up to `most` operations, shortest first."""
    level: list[tuple[str, ...]] = [()]
    for _ in range(most):
        following = []
        for before in level:
            for op in ops:
                if op == "put b" and "put a" not in before:
                    continue  # the secrets are alike
                try:
                    world = play((*before, op), facts=facts)
                except Refused:
                    continue
                following.append(world.ops)
                yield world
        level = following


def _truths(world: World, row: Row | None, generation: int, stream: str) -> Truths:
    """What may be answered if `row` is the newest event of the stream: every question's answers."""
    entries = world.told.get(stream, ()) if row is None else world.as_of.get(row.sealed.number, ())
    gone = {
        (r.version, r.time)
        for r in world.pool
        if r.generation == generation and r.stream == stream and r.key in world.lost
    }
    floor = max((e.version for e in entries if e.type == "destroyed"), default=0)

    def of(entry: Entry | None) -> Answer:
        if entry is None:
            return Answer("destroyed" if floor else "absent")
        if entry.version <= floor or (entry.version, entry.time) in gone:
            return Answer("destroyed")
        return Answer("value", entry.value) if entry.state == "live" else Answer(entry.state)

    answers: dict[object, set[Answer]] = {}
    last = entries[-1] if entries else None
    answers["get"] = {of(last) if last else Answer("absent")}
    for version in range(1, 9):
        known = [e for e in entries if e.version == version]
        there = Answer("destroyed" if version <= floor else "absent")
        answers["version", version] = {of(known[0]) if known else there}
    for time in range(0, world.clock + 20, 10):
        before = [e for e in entries if e.time <= time]
        at = of(before[-1] if before else None)
        answers["at", time] = {at if entries else Answer("absent")}
    if last is None:
        answers["restore"] = {Answer("absent")}
    elif last.state != "deleted":
        answers["restore"] = {Answer("live" if last.state == "live" else "destroyed")}
    else:
        live = [e for e in entries if e.state == "live" and e.version > floor]
        answers["restore"] = {of(live[-1]) if live else Answer("destroyed")}
    return answers
