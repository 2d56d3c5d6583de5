"""What a read rests on, by docs/format.md: a row is a claim until a seal or a chain proves it.

See `format_model`. No import of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from format_model import CONTROL, Answer, Control, Database, Head, Refused, Row, Vault, state_of


class Ledger:
    """One process that holds `held` and believes nothing but seals and chains."""

    def __init__(
        self,
        vault: Vault,
        database: Database,
        held: frozenset[str],
        now: int,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self.vault = vault
        self.database = database
        self.held = held
        self.now = now
        self.dropped = dropped

    def demand(self, rule: str, holds: bool, why: str = "") -> None:
        """Refuse unless `holds`; a rule that was dropped refuses nothing."""
        if not holds and rule not in self.dropped:
            raise Refused(f"tampered: {rule} {why}".rstrip())

    # --- which generation, and its control stream ---------------------------------------

    @cached_property
    def generation(self) -> int:
        """The generation in use."""
        heads = self.database.heads
        in_use = [g for g, head in heads.items() if head.state in ("active", "moved")]
        if len(in_use) != 1:
            raise Refused("tampered: not one generation says that it is in use")
        for number in {place[0] for place in self.database.rows} | set(heads):
            if number <= in_use[0]:
                continue
            head = heads.get(number)
            beside = head is not None and head.state in ("building", "purging", "purged")
            self.demand("nothing-above", beside)
            rows = self.database.streams.get((number, CONTROL), {}).values()
            opened = any(r.type == "opened" and r.facts.generation == number for r in rows)
            self.demand("nothing-above", not opened)
        return in_use[0]

    @cached_property
    def head(self) -> Head:
        return self.database.heads[self.generation]

    @cached_property
    def control(self) -> Control:
        control = self.control_of(self.generation)
        if self.generation and control.own is None:
            raise Refused("tampered: this generation was never opened")
        self.demand("not-closed", not control.closed)
        if self.head.epoch != control.epoch:
            raise Refused("tampered: the head row's epoch")
        if control.active not in self.held:
            raise Refused("missing: the active key")
        return control

    def control_of(self, generation: int) -> Control:
        """The control stream of a generation, folded and checked."""
        rows = self.database.streams.get((generation, CONTROL), {})
        ordered = tuple(rows[version] for version in sorted(rows))
        known = self.vault._controls
        key = (ordered, generation, self.held, self.dropped)
        if key not in known:
            try:
                known[key] = self._fold(ordered, generation)
            except Refused as refused:
                known[key] = refused
        found = known[key]
        if isinstance(found, Refused):
            raise found
        return found

    def _rule(self, holds: bool) -> None:
        if not holds:
            raise Refused("tampered: the rules of the control stream")

    def _fold(self, rows: tuple[Row, ...], generation: int) -> Control:
        activated: list[tuple[int, str]] = []
        openings: list[Row] = []
        lost: dict[str, Row] = {}
        numbers: dict[str, set[int]] = {"purged": set(), "abandoned": set()}
        retired: set[str] = set()
        upgraded, closed, own = None, False, None
        before: Row | None = None
        for row in rows:
            self.demand("control-chain", row.version == (before.version + 1 if before else 1))
            self.demand("control-chain", row.prev == (self.vault.hash_of(before) if before else 0))
            if before is not None and before.position >= row.position:
                raise Refused("tampered: positions do not rise")
            introduced = before is not None and before.type == "introduced"
            self._rule((row.type == "activated") == introduced)
            self._rule(not closed)
            about = row.facts.key
            match row.type:
                case "introduced":
                    self._rule(about not in [k for _, k in activated])
                case "activated":
                    self._rule(about not in [k for _, k in activated])
                    activated.append((row.position, str(about)))
                case "upgraded":
                    upgraded = row.position
                case "opened":
                    openings.append(row)
                    own = row if row.facts.generation == generation else own
                case "closed":
                    closed = True
                case "purged" | "abandoned":
                    numbers[row.type].add(row.facts.generation or 0)
                case "lost":
                    lost[str(about)] = row
                case "retired":
                    retired.add(str(about))
                case _:
                    self._rule(False)
            before = row
        if not activated or before is None:
            raise Refused("tampered: no key was ever activated")
        control = Control(
            tuple(activated), tuple(openings), frozenset(numbers["purged"]),
            frozenset(numbers["abandoned"]), lost, frozenset(retired), upgraded, closed, own,
            before.position,
        )  # fmt: skip
        for row in rows:
            self.demand("control-authority", control.authority(row.position) == row.key)
            if row.key in self.held:
                self.demand("control-opens", self.vault.opens(row))
        if before.key not in self.held:
            raise Refused("missing: the key of the newest control event")
        return control

    # --- a stream, from its newest event down ---------------------------------------------

    def newest(self, stream: str) -> Row | None:
        """The newest event of a stream, opened. None if there is no row: that is a claim."""
        rows = self.database.streams.get((self.generation, stream))
        if not rows:
            return None
        row = rows[max(rows)]
        control = self.control
        if row.sealed.purged:
            self.demand("newest-not-purged", False)
            self.demand("purged-only-lost", self.purged_is_accepted(row))
            return row
        self.demand("authority", control.authority(row.position) == row.key)
        if row.key in control.lost:
            self.demand("newest-not-lost", False)
            return row
        self._held(row)
        self.demand("newest-opens", self.vault.opens(row))
        return row

    def _held(self, row: Row) -> None:
        if row.key not in self.held and row.key not in self.control.lost:
            raise Refused(f"missing: {row.key}")

    def floor(self, newest: Row) -> int:
        """f: nothing at or below it is ever read again."""
        if newest.type == "destroyed":
            return newest.version
        if newest.facts.floor is not None and "floor" not in self.dropped:
            return newest.facts.floor
        walked = not self.control.born_upgraded and "floor-walked" not in self.dropped
        if walked:
            for row in self._walk(newest, 0):
                if row.type == "destroyed":
                    return row.version
                if row.facts.floor is not None:
                    return row.facts.floor
        return 0

    def _walk(self, newest: Row, floor: int) -> Iterator[Row]:
        """The rows above `floor`, from the newest down, each one proven by the one above it."""
        rows = self.database.streams[newest.generation, newest.stream]
        row = newest
        yield row
        while row.version - 1 > floor:
            below = rows.get(row.version - 1)
            if below is None:
                self.demand("walk-gap", False)
                lower = [version for version in rows if floor < version < row.version]
                if not lower:
                    return
                below = rows[max(lower)]
            else:
                self.demand("walk-hash", self.vault.hash_of(below) == row.prev)
            if below.position >= row.position:
                raise Refused("tampered: positions do not fall")
            self._proven(below)
            yield below
            row = below

    def _proven(self, row: Row) -> None:
        """What is asked of a row that a hash has reached."""
        control = self.control
        if row.sealed.purged:
            self.demand("purged-only-lost", self.purged_is_accepted(row))
            return
        if control.authority(row.position) != row.key:
            raise Refused("tampered: not under the key of its position")
        if row.key in self.held and row.key not in control.lost and not self.vault.opens(row):
            raise Refused("tampered: a row under a held key does not open")

    def purged_is_accepted(self, row: Row, control: Control | None = None) -> bool:
        """Rule (b): lost before the opening, with authority where its `key.lost` was written."""
        control = control or self.control
        lost = control.lost.get(row.key)
        if lost is None or control.own is None:
            return False
        if row.position > control.own.position or lost.position > control.own.position:
            return False
        written_in = control.generation_at(lost.position)
        owner = control.authority(row.position, written_in)
        return owner == row.key or "purged-authority" in self.dropped

    # --- reads ------------------------------------------------------------------------------

    def _value(self, row: Row) -> Answer:
        """What a row that was reached says, above f."""
        if row.sealed.purged or row.key in self.control.lost:
            return Answer("destroyed")
        self._held(row)
        if not self.vault.opens(row):
            return Answer("garbage")
        state = state_of(row)
        return Answer("value", self.vault.data(row)) if state == "live" else Answer(state)

    def get(self, stream: str) -> Answer:
        newest = self.newest(stream)
        return Answer("absent") if newest is None else self._value(newest)

    def get_version(self, stream: str, version: int) -> Answer:
        newest = self.newest(stream)
        if newest is None or version > newest.version or version < 1:
            return Answer("absent")
        floor = self.floor(newest)
        if version <= floor:
            return Answer("destroyed")
        if "walk" in self.dropped:
            found = self.database.streams[newest.generation, stream].get(version)
            if found is None:
                return Answer("absent")
            self._proven(found)
            return self._value(found)
        for row in self._walk(newest, floor):
            if row.version <= version:
                return self._value(row) if row.version == version else Answer("absent")
        return Answer("absent")

    def get_at(self, stream: str, time: int) -> Answer:
        newest = self.newest(stream)
        if newest is None:
            return Answer("absent")
        floor = self.floor(newest)
        if "walk" in self.dropped:
            rows = self.database.streams[newest.generation, stream].values()
            found = max((r for r in rows if r.time <= time), default=None, key=lambda r: r.version)
            if found is None:
                return Answer("destroyed" if floor else "absent")
            if found.version <= floor:
                return Answer("destroyed")
            self._proven(found)
            return self._value(found)
        for row in self._walk(newest, floor):
            if row.time <= time:
                return self._value(row) if row.version > floor else Answer("destroyed")
        return Answer("destroyed" if floor else "absent")

    def restored(self, stream: str) -> Answer:
        """What a `restore` would write again."""
        newest = self.newest(stream)
        if newest is None:
            return Answer("absent")
        if state_of(newest) != "deleted":
            return Answer("live" if state_of(newest) == "live" else "destroyed")
        for row in self._walk(newest, self.floor(newest)):
            if state_of(row) == "live":
                return self._value(row)
        return Answer("destroyed")
