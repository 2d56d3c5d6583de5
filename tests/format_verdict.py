"""Whether an answer is the true one, a typed refusal, or a stated limit; anything else is a hole.

The stated limits, and what they come to here:

* rows cut off at the end of one stream fool a read: true as of the event that is newest then;
* the newest events cut off with the head row: an earlier state of the whole log;
* an event that was sealed and rolled back stands in for the one that took its position;
* newest rows under a key that nobody holds are claims;
* an older release, let write by whoever hides `ledger.upgraded`, seals events without floors.

See `format_model`. No import of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import format_writes as writes
from format_checks import verify_full, verify_latest
from format_histories import SECRETS, World
from format_model import CONTROL, MOST_DAMAGED, Answer, Control, Database, Facts, Refused, Row
from format_reads import Ledger


class Verdict(NamedTuple):
    """An answer that is neither true, nor a refusal, nor a stated limit."""

    question: str
    answer: str


class Judge:
    """Asks an edited database everything."""

    def __init__(self, world: World, database: Database, dropped: frozenset[str]) -> None:
        self.world = world
        self.database = database
        self.dropped = dropped
        self.truth = world.database
        self.generation = max(g for g, h in self.truth.heads.items() if h.state == "active")
        self.wrong: list[Verdict] = []

    def ledger(self, held: frozenset[str] | None = None) -> Ledger:
        return Ledger(
            self.world.vault, self.database, self.world.held if held is None else held,
            self.world.clock + 10, self.dropped,
        )  # fmt: skip

    def writer(self) -> Ledger:
        """A process that writes into a copy."""
        ledger = self.ledger()
        ledger.database = self.database.copy()
        return ledger

    def say(self, question: str, answer: object) -> None:
        self.wrong.append(Verdict(question, str(answer)))

    def all(self) -> list[Verdict]:
        active = self.world.ledger().control.active
        if len(self.world.held) > 1:
            fewer = self.ledger(frozenset([active]))
            if self.answers_at_all(fewer):
                self.reads(fewer)
        ledger = self.ledger()
        if self.answers_at_all(ledger):
            self.reads(ledger)
            self.passes(ledger, verify_latest, "boot latest")
            self.passes(ledger, verify_full, "verify full")
            self.appends()
            self.certificates()
        return self.wrong

    def answers_at_all(self, ledger: Ledger) -> bool:
        try:
            return isinstance(ledger.control, Control)
        except Refused:
            return False

    # --- reads --------------------------------------------------------------------------

    def allowed(self, ledger: Ledger, stream: str) -> dict[object, set[Answer]]:
        """The truth; or, where the newest event is gone, the truth as of the one in its place."""
        world, generation = self.world, self.generation
        honest = self.truth.streams.get((generation, stream), {})
        rows = self.database.streams.get((generation, stream), {})
        newest = honest[max(honest)] if honest else None
        if ledger.generation != generation and not self.opening_stands():
            pass  # the newest generation is cut off, as far as anything proves
        elif newest is None:
            if not rows:
                return world.truths(None, generation, stream)
        elif rows and rows[max(rows)] == newest:
            return world.truths(newest, generation, stream)
        found = ledger.generation
        if found != generation and (self.opening_stands() or self.closing_stands(found)):
            return {}
        rows = self.database.streams.get((found, stream), {})
        if not rows:
            return _absent(world)
        stand_in = rows[max(rows)]
        if stand_in.sealed.number in world.as_of and world.vault.opens(stand_in):
            return world.truths(stand_in, found, stream)
        return {}

    def opening_stands(self) -> bool:
        """Whether the newest generation's opening is in its place."""
        own = [
            r for r in self.truth.streams[self.generation, CONTROL].values()
            if r.type == "opened" and r.facts.generation == self.generation
        ]  # fmt: skip
        return all(self.database.rows.get((r.generation, r.position)) == r for r in own)

    def closing_stands(self, generation: int) -> bool:
        """Whether a generation holds the event that closed it."""
        rows = self.database.streams.get((generation, CONTROL), {}).values()
        return any(row.type == "closed" for row in rows)

    def reads(self, ledger: Ledger) -> None:
        for stream in SECRETS:
            if not any(r.stream == stream for r in self.database.rows.values()) and (
                stream not in self.world.told
            ):
                continue
            allowed = self.allowed(ledger, stream)
            ask: dict[object, Callable[[], Answer]] = {
                "get": partial(ledger.get, stream),
                "restore": partial(ledger.restored, stream),
            }
            for version in range(1, 7):
                ask["version", version] = partial(ledger.get_version, stream, version)
            for time in range(10, self.world.clock + 20, 10):
                ask["at", time] = partial(ledger.get_at, stream, time)
            for question, answer in ask.items():
                self.read(f"{question} of {stream}", allowed.get(question), answer)

    def read(self, question: str, allowed: set[Answer] | None, ask: Callable[[], Answer]) -> None:
        try:
            answer = ask()
        except Refused:
            return
        given_up = [r for r in self.database.rows.values()
                    if r.type == "lost" and r in self.world.attempts]  # fmt: skip
        if given_up and answer.kind == "destroyed":
            return  # an attempt to give a key up stands in
        if allowed is None or answer not in allowed:
            self.say(question, f"{answer.kind} {answer.value} in place of {allowed}")

    # --- boot and full verification -------------------------------------------------------

    def passes(self, ledger: Ledger, check: Callable[[Ledger], None], name: str) -> None:
        try:
            check(ledger)
        except Refused:
            return
        problem = self.not_a_state(ledger, full=check is verify_full)
        if problem:
            self.say(name, f"content, but {problem}")

    def not_a_state(self, ledger: Ledger, *, full: bool) -> str | None:
        """Why what is there is neither the truth nor what a stated limit allows: the newest
        events cut off with the head row, or attempts that stand in."""
        world, rows = self.world, self.database.rows
        generation, end = ledger.generation, ledger.head.position
        if generation != self.generation and (
            self.opening_stands() or self.closing_stands(generation)
        ):
            return f"generation {generation} is in use"
        honest = world.honest(generation, end)
        stand_ins = {
            p for p in range(1, end + 1)
            if rows.get((generation, p)) in world.attempts
        }  # fmt: skip
        newest: dict[str, Row] = {}
        for row in honest.values():
            if row.stream not in newest or row.version > newest[row.stream].version:
                newest[row.stream] = row
        pinned = any(honest[p] not in newest.values() for p in stand_ins if p in honest)
        if pinned and not full:
            return (
                None  # an attempt in the place of an older version: that is for full verification
            )
        for stream, row in newest.items():
            there = self.database.streams.get((generation, stream), {})
            top = there[max(there)] if there else None
            if top != row and top not in world.attempts and row.position not in stand_ins:
                return f"{stream}/v{row.version}@{row.position} is not its newest event"
        if not full:
            return None
        for position, row in honest.items():
            there_now = rows.get((generation, position))
            if not (there_now == row or position in stand_ins or self.given_up(row, there_now)):
                return f"{row.stream}/v{row.version}@{position} is not there"
        return self.not_whole(ledger)

    def given_up(self, row: Row, there: Row | None) -> bool:
        """Whether a row lacks its data only, which nobody reads any more."""
        told = self.world.told.get(row.stream, ())
        floor = max((e.version for e in told if e.type == "destroyed"), default=0)
        return there is not None and there[:9] == row[:9] and row.version <= floor and (
            self.world.vault.hash_of(there) == self.world.vault.hash_of(row)
        )  # fmt: skip

    def not_whole(self, ledger: Ledger) -> str | None:
        """What is wrong with the generations before the one in use."""
        rows, control = self.database.rows, ledger.control
        for number, _ in rows:
            head = self.truth.heads.get(number)
            if number in control.purged and head is not None and head.state == "purged":
                return f"generation {number} was purged, and has rows"
        for number in set(range(ledger.generation)) - control.purged:
            for row in self.truth.generations.get(number, ()):
                there = rows.get((number, row.position))
                if there == row or there in self.world.attempts or row.sealed.purged:
                    continue
                if row.key in self.world.lost:
                    continue  # nobody could read it any more
                if not self.given_up(row, there):
                    return f"generation {number} lacks {row.stream}/v{row.version}"
        return None

    # --- appends ----------------------------------------------------------------------------

    def appends(self) -> None:
        for stream in SECRETS:
            self.append(f"put {stream}", stream, partial(writes.put, stream=stream, value="new"))
        for stream in sorted({r.stream for r in self.database.rows.values()} - {CONTROL}):
            self.append(f"destroy {stream}", stream, partial(writes.destroy, stream=stream))

    def append(self, name: str, stream: str, do: Callable[[Ledger], list[Row]]) -> None:
        world = self.world
        ledger = self.writer()
        hidden = self.truth_has_facts() and self.ledger().control.upgraded is None
        try:
            (new,) = do(ledger)
        except Refused:
            return
        problem = self.badly_sealed(new)
        end = self.truth.heads[self.generation].position
        if any(
            (new.generation, p) not in ledger.database.rows for p in range(end + 1, new.position)
        ):
            problem = "it leaves a gap"
        if problem:
            self.say(name, f"{problem}: {tuple(new[:7])} {_stated(new.facts)}")
            return
        last = self.truth.heads[self.generation].position
        if new.position != last + 1 or new.generation != self.generation:
            return  # on what was cut off, or on what stands in
        if any(r in world.attempts for r in self.database.rows.values()):
            return
        if hidden:
            return  # an older release that was let write; full verification finds what it seals
        # The damage is taken back: what the ledger sealed meanwhile has to fit.
        honest = self.truth.streams.get((self.generation, stream), {})
        if new.version != max(honest, default=0) + 1:
            return
        if new.type == "destroyed" and new.facts.unopened:
            return
        again = self.truth.copy()
        again.rows[new.generation, new.position] = new
        head = ledger.database.heads[self.generation]
        again.heads[self.generation] = head._replace(epoch=self.truth.heads[self.generation].epoch)
        back = Ledger(world.vault, again, world.held, world.clock + 20, frozenset())
        before = Ledger(world.vault, self.truth, world.held, world.clock + 20, frozenset())
        try:
            verify_full(before)
        except Refused:
            return
        try:
            verify_full(back)
        except Refused as refused:
            self.say(name, f"and the damage taken back: {refused}")

    def truth_has_facts(self) -> bool:
        """Whether `ledger.upgraded` is in the control stream, unless somebody hides it."""
        return any(
            r.type == "upgraded" for r in self.truth.streams[self.generation, CONTROL].values()
        )

    def badly_sealed(self, new: Row) -> str | None:
        world, rows = self.world, self.database.rows
        if new.time != world.clock + 10:
            return "its time is an attacker's"
        below = rows.get((new.generation, new.position - 1))
        authentic = below is not None and (below in world.pool and not below.sealed.purged)
        if not authentic and new.type != "destroyed":
            return "its position is an attacker's"
        end = self.truth.heads[self.generation].position
        if new.position > end + 1 + MOST_DAMAGED:
            return "its position is an attacker's"
        if new.generation != self.generation and self.opening_stands():
            return "its generation is an attacker's"
        honest = self.truth.streams.get((self.generation, new.stream), {})
        there = self.database.streams.get((self.generation, new.stream), {})
        if new.generation == self.generation and honest and there:
            newest = honest[max(honest)]
            if there[max(there)] == newest and new.prev != world.vault.hash_of(newest):
                return "it does not follow"
        return None

    # --- certificates --------------------------------------------------------------------------

    def certificates(self) -> None:
        world = self.world
        keys = sorted({row.key for row in self.truth.rows.values()} | {"k1"})
        for key in keys:
            try:
                writes.retire(self.writer(), key)
            except Refused:
                continue
            needed = any(
                r.key == key and not r.sealed.purged for r in self.truth.rows.values()
            ) or any(h.state in ("building", "purging") for h in self.truth.heads.values())
            stand_in = any(r in world.attempts for r in self.database.rows.values())
            if needed and not stand_in:
                self.say(f"retire {key}", "certified, and needed")
        for generation, head in self.database.heads.items():
            if head.state != "closed":
                continue
            try:
                writes.purge(self.writer(), generation)
            except Refused:
                continue
            problem = self.not_a_state(self.ledger(), full=True)
            if problem:
                self.say(f"purge {generation}", f"done, but {problem}")
        self.rekeys()
        self.loses()

    def rekeys(self) -> None:
        ledger = self.writer()
        try:
            done = writes.rekey(ledger)
        except Refused:
            return
        active = self.ledger().control.active
        if active != self.world.ledger().control.active:
            return
        for stream in self.world.told:
            honest = self.truth.streams[self.generation, stream]
            newest = honest[max(honest)]
            there = self.database.rows.get((self.generation, newest.position))
            if newest.key == active or there in self.world.attempts:
                continue
            stand_ins = self.database.streams.get((self.generation, stream), {}).values()
            if any(r in self.world.attempts for r in stand_ins):
                continue
            written = stream in [r.stream for r in done.written]
            if stream in done.already:
                self.say("rekey", f"{stream} counts as already under {active}")
            elif not written and self.database.heads == self.truth.heads:
                self.say("rekey", f"{stream} is passed over")

    def loses(self) -> None:
        world = self.world
        if (
            self.not_a_state(self.ledger(), full=True) is None
            and self.database.heads != self.truth.heads
        ):
            return  # the newest events are cut off together with the head row
        if self.ledger().control.upgraded is None:
            return  # an older ledger seals no ends
        for key in sorted({row.key for row in self.truth.rows.values()}):
            try:
                if key == self.ledger().control.active:
                    continue
                ledger = self.writer()
                ledger.held = ledger.held - {key}
                written = writes.lose(ledger, key)
            except Refused:
                continue
            ended = {r.stream for r in written if r.type == "destroyed"}
            for stream, rows in self.truth.streams.items():
                if stream[0] != self.generation or stream[1] == CONTROL:
                    continue
                newest = rows[max(rows)]
                there = self.database.rows.get((self.generation, newest.position))
                if there in world.attempts:
                    continue
                if stream[1] in ended and newest.key != key:
                    self.say(f"lost {key}", f"{stream[1]} is ended, which lies under {newest.key}")
            if any(h.state == "building" for h in ledger.database.heads.values()):
                self.flipped(ledger, key)
            if self.truth.heads != self.database.heads:
                continue
            if any(r in world.attempts for r in self.database.rows.values()):
                continue
            if any(
                r.key == key and self.database.rows.get(place) != r
                for place, r in self.truth.rows.items()
            ):
                continue  # stated limit: what lies under a key that nobody holds is a claim
            again = self.truth.copy()
            if any(
                r.position in [p for g, p in again.rows if g == self.generation] for r in written
            ):
                continue
            for row in written:
                again.rows[row.generation, row.position] = row
            again.heads[self.generation] = ledger.database.heads[self.generation]
            back = Ledger(world.vault, again, ledger.held, world.clock + 20, frozenset())
            try:
                verify_full(back)
            except Refused as refused:
                if not str(refused).startswith("missing"):
                    self.say(f"lost {key}", f"and the damage taken back: {refused}")

    def flipped(self, ledger: Ledger, key: str) -> None:
        """What was given up while a generation was built is not to be had from it."""
        gone = [r for r in self.truth.generations[self.generation] if r.key == key]
        flipped = writes.fresh(ledger)
        flipped.database = ledger.database.copy()
        try:
            writes.flip(flipped)
            for row in gone:
                if row.stream == CONTROL:
                    continue
                answer = writes.fresh(flipped).get_version(row.stream, row.version)
                if answer.kind == "value":
                    self.say(f"get {row.stream} version {row.version}", f"{answer}: {key} is lost")
        except Refused:
            return


def _stated(facts: Facts) -> dict[str, object]:
    return {k: v for k, v in facts._asdict().items() if v not in (None, False)}


def _absent(world: World) -> dict[object, set[Answer]]:
    return {question: {Answer("absent")} for question in world.truths(None, 0, "no such stream")}
