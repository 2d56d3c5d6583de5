"""What a ledger must be after any sequence of operations, kept in lists and dicts.

The model knows no bytes, no seals and no database. It is told two things: when a write was
recorded, and how far a migration got that did not finish. All else it says by itself: each
version's value, place, actor, metadata and key, what each key is needed for, and the exact
kind of each refusal. Where a method raises, nothing has changed, unless it says so.

A *ring* is what a node holds: the labels of its keys, the current one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from secret_ledger import (
    InvalidValue,
    KeyInUse,
    KeyReused,
    MigrationInProgress,
    MissingKey,
    NodeNotReady,
    SecretDeleted,
    SecretDestroyed,
    SecretInfo,
    SecretNotFound,
    StaleKey,
    UnknownKey,
    VersionConflict,
)

Ring = Sequence[str]


class Shown(NamedTuple):
    """All that a version's metadata view must show."""

    name: str
    version: int
    event_type: str
    state: str
    recorded_at: datetime
    actor: str | None
    metadata: Mapping[str, Any]
    reason: str | None
    key_id: str
    position: int


def shown(info: SecretInfo) -> Shown:
    """What the ledger shows of a version."""
    return Shown(*(getattr(info, name) for name in Shown._fields))


@dataclass(slots=True)
class Version:
    """One version of a secret."""

    name: str
    version: int
    event_type: str
    state: str
    position: int
    key: str
    value: bytes = b""
    actor: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    of: Version | None = None
    """The version that this one seals again."""
    purged: bool = False
    """A migration carried it without its data, under the key that it had."""

    @property
    def base(self) -> Version:
        """The last version that is not a re-encryption."""
        return self.of or self

    @property
    def stored(self) -> bytes:
        """What lies sealed in the log."""
        return b"" if self.purged else self.value


@dataclass(slots=True)
class Building:
    """A generation that a migration left unfinished."""

    generation: int
    position: int = 0
    carried: set[int] = field(default_factory=set)
    """Positions that were copied with their data."""


class Model:
    """A ledger, founded under one key."""

    def __init__(self, key: str) -> None:
        self.secrets: dict[str, list[Version]] = {}
        self.times: dict[int, datetime] = {}
        """When the write at a position was recorded, as it was told."""
        self.position = 3
        self.keys = [key]
        """In order of activation."""
        self.retired: set[str] = set()
        self.control = [key, key, key]
        """The key that each control event lies under."""
        self.generation = 0
        self.left: dict[int, set[str]] = {}
        """Of each generation that is not in use any more, the keys that it needs."""
        self.left_open: dict[int, set[str]] = {}
        """The same, but for keys that only values need that were ended."""
        self.building: Building | None = None

    @property
    def active(self) -> str:
        return self.keys[-1]

    def kept_keys(self) -> list[str]:
        """What a careful operator holds: all but what was certified to be needed no more."""
        return [key for key in reversed(self.keys) if key not in self.retired]

    def least_keys(self) -> list[str]:
        """What no boot can do without: the active key, and those of the latest versions."""
        heads = {self.head(name).key for name in self.secrets}
        return [self.active, *sorted(heads - {self.active})]

    # --- writing ---------------------------------------------------------------------

    def put(
        self, ring: Ring, items: Iterable[tuple[str, bytes, int | None]], **said: Any
    ) -> list[Version]:
        items = list(items)
        self._check_current(ring)
        for name, _, expect in items:
            self._check_expected(name, expect)
        return [
            self._add(name, "secret.written", "live", value=value, **said)
            for name, value, _ in items
        ]

    def delete(self, ring: Ring, name: str, expect: int | None, **said: Any) -> list[Version]:
        self._check_current(ring)
        self._check_expected(name, expect)
        if (head := self.head(name)).state == "deleted":
            raise SecretDeleted("")
        if head.state == "destroyed":
            raise SecretDestroyed("")
        return [self._add(name, "secret.deleted", "deleted", **said)]

    def restore(
        self, ring: Ring, name: str, version: int | None, expect: int | None, **said: Any
    ) -> list[Version]:
        self._check_current(ring)
        self._check_expected(name, expect)
        head = self.head(name)
        if head.state == "destroyed":
            raise SecretDestroyed("")
        if head.state == "live":
            raise VersionConflict("")
        if version is None:
            version = max(v.version for v in self.secrets[name] if v.state == "live")
        elif not 0 < version < head.version:
            raise SecretNotFound("")
        wanted = self.secrets[name][version - 1]
        if self._is_ended(wanted) or wanted.event_type == "secret.destroyed":
            raise SecretDestroyed("")
        if wanted.state != "live":
            raise SecretNotFound("")
        if wanted.key not in ring:
            raise MissingKey("")
        return [self._add(name, "secret.restored", "live", value=wanted.value, **said)]

    def destroy(self, ring: Ring, name: str, **said: Any) -> list[Version]:
        self._check_current(ring)
        if self.head(name).state == "destroyed":
            raise SecretDestroyed("")
        return [self._add(name, "secret.destroyed", "destroyed", **said)]

    def told(self, position: int, at: datetime) -> None:
        """When the write at `position` was recorded."""
        assert at >= max(self.times.values(), default=at), "time ran back"
        self.times[position] = at

    def _add(self, name: str, event_type: str, state: str, **facts: Any) -> Version:
        versions = self.secrets.setdefault(name, [])
        self.position += 1
        new = Version(
            name, len(versions) + 1, event_type, state, self.position, self.active, **facts
        )
        versions.append(new)
        return new

    def _check_current(self, ring: Ring) -> None:
        if self.active not in ring:
            raise StaleKey("")

    def _check_expected(self, name: str, expect: int | None) -> None:
        versions = self.secrets.get(name)
        first, last = (versions[-1].base.version, len(versions)) if versions else (0, 0)
        if expect is not None and not first <= expect <= last:
            raise VersionConflict("")

    # --- reading ---------------------------------------------------------------------

    def head(self, name: str) -> Version:
        """The latest version of a secret, whatever its state."""
        if name not in self.secrets:
            raise SecretNotFound("")
        return self.secrets[name][-1]

    def read(
        self, ring: Ring, name: str, *, version: int | None = None, at: datetime | None = None
    ) -> Version:
        """The version that a read gives, or why it gives none."""
        versions = self.secrets.get(name, [])
        if not versions:
            raise SecretNotFound("")
        if versions[-1].key not in ring:  # whatever is asked, the newest event has to open
            raise MissingKey("")
        ends = [v.version for v in versions if v.event_type == "secret.destroyed"]
        if version is not None:
            found = [v for v in versions if v.version == version]
        elif at is not None:
            end = max((p for p, time in self.times.items() if time <= at), default=0)
            found = [v for v in versions if v.position <= end]
            if not found and ends:  # its past is not told any more
                raise SecretDestroyed("")
        else:
            found = versions
        if not found:
            raise SecretNotFound("")
        answer = found[-1]
        if answer.state == "destroyed" or self._is_ended(answer):
            raise SecretDestroyed("")  # the newest event says so, whatever that key is
        if answer.key not in ring:
            raise MissingKey("")
        if answer.state == "deleted":
            raise SecretDeleted("")
        return answer

    def show(self, version: Version) -> Shown:
        """What the ledger must show of a version."""
        return Shown(
            version.name,
            version.version,
            version.event_type,
            version.state,
            self.times[version.base.position],
            version.actor,
            version.metadata,
            version.reason,
            version.key,
            version.position,
        )

    def missing(self, ring: Ring) -> bool:
        """Whether there are versions that could be read, but for a key that is not held."""
        return any(v.key not in ring and not self._is_ended(v) for v in self.versions())

    def current(self) -> list[tuple[Any, ...]]:
        """What `sys_secret` must hold."""
        return [
            (
                name,
                versions[-1].version,
                versions[-1].position,
                versions[-1].state,
                versions[-1].key,
                self.times[versions[0].position],
                versions[0].actor,
                self.times[versions[-1].base.position],
                versions[-1].actor,
            )
            for name, versions in self.secrets.items()
        ]

    def versions(self) -> list[Version]:
        """Every version of every secret, by position."""
        every = [version for versions in self.secrets.values() for version in versions]
        return sorted(every, key=lambda version: version.position)

    def _is_ended(self, version: Version) -> bool:
        """Whether it was destroyed later."""
        return any(
            later.event_type == "secret.destroyed"
            for later in self.secrets[version.name][version.version :]
        )

    # --- keys over time --------------------------------------------------------------

    def rotate(self, ring: Ring, others: Iterable[Ring], *, force: bool = False) -> bool:
        """Make the ring's current key the active one; whether it was not. `others`: what the
        other live nodes say that they hold."""
        self._check_current(ring)
        if ring[0] == self.active:
            return False
        if ring[0] in self.keys:
            raise KeyReused("")
        if self.building is not None:
            raise MigrationInProgress("")
        if not force and any(ring[0] not in other for other in others):
            raise NodeNotReady("")
        self._control(self.active, ring[0])
        self.keys.append(ring[0])
        return True

    def rekey(self, ring: Ring) -> int:
        """Seal each head again that is not under the active key; how many."""
        behind = [
            self.head(name) for name in sorted(self.secrets, key=str.encode)
            if self.head(name).key != self.active
        ]  # fmt: skip
        if behind:
            self._check_current(ring)
        for old in behind:
            self._add(
                old.name,
                "secret.rekeyed",
                old.state,
                value=old.value,
                actor=old.actor,
                metadata=old.metadata,
                reason=old.reason,
                of=old.base,
            )
        return len(behind)

    def begin_migration(self, ring: Ring, others: Iterable[Ring]) -> bool:
        """What comes before the copying: a pending key is rotated to, also where it goes no
        further. Whether there is anything to build."""
        others = list(others)
        if ring[0] not in self.keys:
            if self._is_overtaken(ring, others):
                return True
            self.rotate(ring, others)
        if ring[0] != self.active:
            raise KeyReused("")
        if self.building is None and self._needed() != {self.active}:
            self.building = Building(max([self.generation, *self.left]) + 1)
        return self.building is not None

    def copied(self, position: int) -> None:
        """How far an unfinished migration got."""
        assert self.building is not None
        reached = range(self.building.position + 1, position + 1)
        self.building.carried |= {
            v.position for v in self.versions() if v.position in reached and not self._is_ended(v)
        }
        self.building.position = position

    def migrate(self, ring: Ring, others: Iterable[Ring]) -> bool:
        """Whether there was anything to migrate. Where a version can't be opened for want of
        its key, the generation stays unfinished."""
        others = list(others)
        if self._is_overtaken(ring, others):
            self._finish(ring)  # under the active key; then the one that came meanwhile
        if not self.begin_migration(ring, others):
            return False
        self._finish(ring)
        return True

    def _is_overtaken(self, ring: Ring, others: Iterable[Ring]) -> bool:
        """Whether something is being built and another key is pending. The other nodes must be
        able to read that key."""
        if self.building is None or ring[0] in self.keys:
            return False
        self._check_current(ring)
        if any(ring[0] not in other for other in others):
            raise NodeNotReady("")
        return True

    def _finish(self, ring: Ring) -> None:
        if self.missing(ring):
            raise MissingKey("")
        assert self.building is not None
        self.left[self.generation] = self._needed() | {self.active}
        self.left_open[self.generation] = {v.key for v in self.versions() if not self._is_ended(v)}
        for version in self.versions():
            if version.purged:
                continue
            if self._is_ended(version) and version.position not in self.building.carried:
                version.purged = True
            else:
                version.key = self.active
        self._control(self.active)
        self.control = [self.active] * len(self.control)
        self.generation = self.building.generation
        self.building = None

    def abandon(self, ring: Ring) -> bool:
        if self.building is None:
            return False
        self._check_current(ring)
        self.left[self.building.generation] = set()
        self.building = None
        self._control(self.active)  # generation.abandoned
        return True

    def purge(self, ring: Ring, generation: int) -> bool:
        if self.building is not None and generation == self.building.generation:
            raise MigrationInProgress("")
        if generation not in self.left:
            raise InvalidValue("")
        if not self.left[generation]:
            return False
        self._check_current(ring)
        if self.missing(ring):
            raise MissingKey("")  # what stays is not proven
        self.left[generation] = set()
        self.left_open.pop(generation, None)
        self._control(self.active)
        return True

    def retire(self, ring: Ring, key: str) -> bool:
        if key not in self.keys:
            raise UnknownKey("")
        if key == self.active:
            raise KeyInUse("")
        if key in self.retired:
            return False
        if key in self._needed().union(*self.left.values()):
            raise KeyInUse("")
        self._check_current(ring)
        if self.missing(ring) or set().union(*self.left_open.values()) - set(ring):
            raise MissingKey("")  # what lies there may be this key's
        self.retired.add(key)
        self._control(self.active)
        return True

    def generations(self) -> dict[int, str]:
        """The state of each generation that there ever was."""
        states = {n: "closed" if needed else "purged" for n, needed in self.left.items()}
        states[self.generation] = "active"
        if self.building is not None:
            states[self.building.generation] = "building"
        return states

    def _needed(self) -> set[str]:
        """The keys that anything in the generation in use lies under."""
        return {v.key for v in self.versions() if not v.purged} | set(self.control)

    def _control(self, *keys: str) -> None:
        self.control += keys
        self.position += len(keys)
