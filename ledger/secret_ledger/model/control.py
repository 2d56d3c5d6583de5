"""The control stream, folded: the keys of a ledger, and the key that is active at a position.

The stream `$ledger` says which keys and generations the ledger has. Its events are chained and
sealed like all others, and readable without a key. This module checks the chain and the rules,
and folds the stream into a `Control`. A `Control` says under which key the event at a position
must be sealed (the rule of authority). Pure: no I/O, no key.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from secret_ledger.errors import SchemaTooNew, TamperedEvent
from secret_ledger.model.events import (
    CONTROL_STREAM,
    CONTROL_TYPES,
    NO_HASH,
    SECRET_TYPES,
    Event,
    EventType,
)
from secret_ledger.model.format import check_hash, is_purged
from secret_ledger.model.metadata import encode_metadata, parse_metadata
from secret_ledger.model.refusals import printable, tampered

_FLIP: Final = (EventType.GENERATION_OPENED, EventType.GENERATION_CLOSED)

__all__ = [
    "FACTS",
    "Control",
    "ControlKey",
    "abandoned_metadata",
    "check_known",
    "fold_control",
    "generation_metadata",
    "key_metadata",
    "upgrade_metadata",
]

_KEY_ID: Final = re.compile(r"[a-z0-9._:/-]{1,64}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")

FACTS: Final = 2
"""The number of the set of facts that this release seals for readers.

See docs/format.md, "Floor" and "What an end states"."""
GENESIS_UPGRADED: Final = 3
"""Position of `ledger.upgraded` in a ledger that was made with facts."""


@dataclass(frozen=True, slots=True)
class ControlKey:
    """A key as the control stream knows it: label, fingerprint, epoch, and positions in the log."""

    id: str
    fingerprint: bytes
    epoch: int
    """The key epoch that the activation of the key began: 1 for the first key of the ledger."""
    introduced: int
    """Position of the key's `key.introduced`."""
    activated: int
    """Position of the key's `key.activated`. From here on the key was active."""
    retired: int | None = None
    """Position of the key's `key.retired`, if any."""
    lost: int | None = None
    """Position of the key's `key.lost`, if any."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control stream of one generation, checked and folded."""

    ledger_id: bytes
    generation: int
    events: tuple[Event, ...]
    keys: tuple[ControlKey, ...]
    """All keys in order of activation: the last key is active."""
    opened: tuple[int, bytes] | None
    """Position of the `generation.opened` that names this generation, and a key fingerprint.

    Every event up to that position is sealed under that key, purged rows aside. None in
    generation 0, and in a generation that was not opened yet."""
    closed: int | None
    """Position of `generation.closed`, the last event of this generation. None if not closed."""
    openings: tuple[tuple[int, bytes], ...] = ()
    """Position and key fingerprint of each `generation.opened` so far.

    Each opening sealed every event up to its position anew under that key."""
    upgrades: tuple[int, ...] = ()
    """Position of each `ledger.upgraded`. From the first position on, writers seal facts."""
    abandoned: tuple[tuple[int, bytes, int], ...] = ()
    """Generation, key fingerprint and count of events of each `generation.abandoned`.

    The generation was built under that key. At most so many events were sealed in it."""
    unknown: Event | None = None
    """The first event that a later release wrote, if any. Later events were not checked."""

    @property
    def epoch(self) -> int:
        """Number of activations and upgrades so far: the fencing token of every append."""
        return len(self.keys) + len(self.upgrades)

    @property
    def began_with_facts(self) -> bool:
        """Whether writers sealed facts from the first event after the genesis on."""
        return self.upgrades[:1] == (GENESIS_UPGRADED,)

    @property
    def active(self) -> ControlKey:
        """The key that new events are sealed under."""
        return self.keys[-1]

    @property
    def last(self) -> Event:
        """The newest event of the control stream."""
        return self.events[-1]

    def key(self, fingerprint: bytes) -> ControlKey | None:
        """The key with this fingerprint. Returns None if this stream never introduced it."""
        for key in self.keys:
            if key.fingerprint == fingerprint:
                return key
        return None

    def key_of_id(self, key_id: str) -> ControlKey | None:
        """The key with this label. Returns None if this stream never introduced it."""
        return next((k for k in self.keys if k.id == key_id), None)

    def authority(self, position: int) -> ControlKey:
        """The key that the event at `position` must be sealed under."""
        if self.opened is not None and position <= self.opened[0]:
            key = self.key(self.opened[1])
            if key is not None:
                return key
        return self._active_at(position)

    def _active_at(self, position: int) -> ControlKey:
        if position >= self.keys[-1].activated:
            return self.keys[-1]
        # Position 1, the first `key.introduced`, comes before any activation.
        return self.keys[max(0, bisect_right(self.keys, position, key=_activated) - 1)]

    def may_be_under(self, event: Event) -> bool:
        """Whether a row obeys the rule of authority: it lies under the key of its position.

        A purged row keeps the key columns of its event, through migrations too. So up to the
        generation's opening, a purged row may lie under any key of the ledger.
        """
        owner = self.keys[-1]
        if self.opened is not None or event.position < owner.activated:
            owner = self.authority(event.position)
        if owner.fingerprint == event.key_fingerprint and owner.id == event.key_id:
            return True
        if self.opened is None or event.position > self.opened[0] or not is_purged(event.sealed):
            return False
        key = self.key(event.key_fingerprint)
        return key is not None and key.id == event.key_id

    def went_with_its_key(self, event: Event) -> bool:
        """Whether a migration left out the data of a purged row because the row's key was lost.

        If so, the key was lost above the row, and before this generation was opened. In the
        generation that recorded the loss, it was the key of the row's position.
        """
        key = self.key(event.key_fingerprint)
        if (
            key is None
            or key.lost is None
            or self.opened is None
            or not event.position < key.lost < self.opened[0]
        ):
            return False
        before = [opening for opening in self.openings if opening[0] < key.lost]
        if before and event.position <= before[-1][0]:
            return before[-1][1] == key.fingerprint
        return self._active_at(event.position) == key

    def positions_under(self, key: ControlKey, end: int) -> range:
        """The positions whose events lie under `key` if the log ends at position `end`.

        In a migrated generation, purged rows at these positions may name other keys: they keep
        their key columns.
        """
        first, last = key.activated, end
        later = [k.activated for k in self.keys if k.activated > key.activated]
        if key == self.keys[0]:
            first = 1
        if self.opened is not None:
            opened, fingerprint = self.opened
            later = [position for position in later if position > opened]
            if key.fingerprint == fingerprint:
                first = 1
            elif key.activated <= opened:
                return range(0)
        if later:
            last = min(min(later) - 1, end)
        return range(first, last + 1)

    def events_under_active(self, position: int) -> int:
        """How many events lie under the active key if the log ends at `position`."""
        return len(self.positions_under(self.active, position))

    def seals_under_active(self, position: int) -> int:
        """How many events at most were sealed under the active key if the log ends at `position`.

        Appended events count, and so does each copy of the history under that key. Copies that
        were closed, purged or abandoned since count too."""
        key = self.active
        appended = position - (1 if key.epoch == 1 else key.activated) + 1
        # A copy holds each event below its opening. At the opening's position two events are
        # sealed, one in each generation.
        copied = sum(opened for opened, mark in self.openings if mark == key.fingerprint)
        thrown_away = sum(n for _, mark, n in self.abandoned if mark == key.fingerprint)
        return appended + copied + thrown_away

    def extends(self, kept: Control) -> bool:
        """Whether this stream is `kept` or continues it, in all that a migration keeps.

        A `generation.closed` in `kept` may have become a `generation.opened` here."""
        return len(self.events) >= len(kept.events) and all(
            _unchanging(a) == _unchanging(b)
            for a, b in zip(self.events, kept.events, strict=False)
            if (a.event_type, b.event_type) != _FLIP
        )


def _activated(key: ControlKey) -> int:
    return key.activated


def _unchanging(event: Event) -> tuple[object, ...]:
    return event.position, event.version, event.event_type, event.recorded_at, event.metadata


def key_metadata(
    key_id: str,
    fingerprint: bytes,
    epoch: int,
    *,
    actor: str | None = None,
    reason: str | None = None,
) -> str:
    """The metadata of `key.introduced` and `key.activated`: the key, and the epoch it begins."""
    about = {"key": {"id": key_id, "fingerprint": fingerprint.hex()}, "epoch": epoch}
    return encode_metadata(actor=actor, reason=reason, ledger=about)


def generation_metadata(
    generation: int,
    source: int,
    key_id: str,
    fingerprint: bytes,
    *,
    actor: str | None = None,
    move: Mapping[str, str] | None = None,
    purged: Mapping[str, Any] | None = None,
) -> str:
    """The metadata of `generation.closed` and `generation.opened`.

    generation: the new generation, a copy of generation `source`.
    key_id: the label of the key that all of the new generation lies under.
    fingerprint: the fingerprint of that key.
    move: of a move, its id and the address of the other side.
    purged: count and digest of the rows of the new generation whose keys were lost before."""
    about: dict[str, Any] = {
        "generation": generation,
        "from": source,
        "key": {"id": key_id, "fingerprint": fingerprint.hex()},
    }
    if move is not None:
        about["move"] = dict(move)
    if purged is not None:
        about["purged"] = dict(purged)
    return encode_metadata(actor=actor, ledger=about)


def upgrade_metadata(*, actor: str | None = None) -> str:
    """The metadata of `ledger.upgraded`: the facts that are sealed from this event on."""
    return encode_metadata(actor=actor, ledger={"facts": FACTS})


def abandoned_metadata(control: Control, generation: int, count: int) -> str:
    """The metadata of `generation.abandoned`, for a generation that was given up.

    count: how many events at most were sealed in that generation, under the active key."""
    key = control.active
    about = {
        "generation": generation,
        "key": {"id": key.id, "fingerprint": key.fingerprint.hex()},
        "count": count,
    }
    return encode_metadata(ledger=about)


def fold_control(
    ledger_id: bytes, generation: int, events: Iterable[Event], kept: Control | None = None
) -> Control:
    """Check the hashes, the chain and the rules of a control stream, without any key.

    If `kept` is given, `events` are the events after `kept` in the same generation. The fold ends
    at the first event that a later release wrote, which becomes `Control.unknown`. Raises
    TamperedEvent for the first event that breaks a rule, or if no key was ever activated.
    """
    control = kept or Control(ledger_id, generation, (), (), None, None)
    introduced: ControlKey | None = None
    fold: list[Event] = list(control.events)
    for event in events:
        _check_link(control, fold, event)
        fold.append(event)
        if _is_unknown(event):
            return replace(control, events=tuple(fold), unknown=event)
        facts = parse_metadata(event.metadata)
        if facts.malformed:
            raise tampered(event, "its metadata is not readable")
        about = facts.ledger
        if introduced is not None and event.event_type != EventType.KEY_ACTIVATED:
            raise tampered(event, "a key was introduced and not activated at once")
        match event.event_type:
            case EventType.KEY_INTRODUCED:
                introduced = _introduce(control, event, about)
            case EventType.KEY_ACTIVATED:
                control = _activate(control, introduced, event, about)
                introduced = None
            case EventType.KEY_RETIRED | EventType.KEY_LOST:
                control = _end_key(control, event, about)
            case EventType.GENERATION_OPENED:
                control = _open_generation(control, event, about)
            case EventType.GENERATION_CLOSED:
                control = replace(control, closed=event.position)
            case EventType.GENERATION_ABANDONED:
                control = _abandon_generation(control, event, about)
            case EventType.LEDGER_UPGRADED:
                control = _upgrade(control, event, about)
            case _ if event.event_type in SECRET_TYPES:
                raise tampered(event, f"{event.event_type!r} is no event of the control stream")
            case _:
                pass  # it does not change which key an event must lie under
    if introduced is not None:
        raise tampered(fold[-1], "a key was introduced and not activated at once")
    if not control.keys:
        raise TamperedEvent(
            "the control stream is empty: no key was ever activated",
            hint="this database was a ledger once; restore it from a backup",
        )
    return replace(control, events=tuple(fold))


def _check_link(control: Control, before: Sequence[Event], event: Event) -> None:
    last = before[-1] if before else None
    if event.stream != CONTROL_STREAM or event.generation != control.generation:
        raise tampered(event, "it is not an event of this control stream")
    if event.version != len(before) + 1:
        raise tampered(event, f"version {len(before) + 1} is missing before it")
    if event.prev_hash != (last.event_hash if last else NO_HASH):
        raise tampered(event, "it does not follow the event before it")
    if last and (event.position <= last.position or event.recorded_at < last.recorded_at):
        raise tampered(event, "it lies before its predecessor")
    check_hash(control.ledger_id, event)
    if control.closed is not None:
        raise tampered(event, "it was written after the generation was closed")


def _is_unknown(event: Event) -> bool:
    """A later release wrote the event if this release does not know its type or its facts."""
    if event.event_type not in CONTROL_TYPES:
        return event.event_type not in SECRET_TYPES
    if event.event_type != EventType.LEDGER_UPGRADED:
        return False
    facts = parse_metadata(event.metadata).ledger.get("facts")
    return type(facts) is int and facts > FACTS


def check_known(control: Control) -> None:
    """Raises SchemaTooNew if a later release wrote to the control stream.

    The caller opens the seals of the control stream first, so that damage is TamperedEvent.
    """
    event = control.unknown
    if event is None:
        return
    raise SchemaTooNew(
        f"the control stream holds {printable(event.event_type)} at position {event.position},"
        " which a later release wrote",
        hint="run the release that wrote it, or a newer one; nothing was changed",
    )


def _about_key(event: Event, about: Mapping[str, Any]) -> tuple[str, bytes]:
    key = about.get("key")
    if isinstance(key, dict):
        key_id, fingerprint = key.get("id"), key.get("fingerprint")
        if (
            isinstance(key_id, str)
            and isinstance(fingerprint, str)
            and _KEY_ID.fullmatch(key_id)
            and _FINGERPRINT.fullmatch(fingerprint)
        ):
            return key_id, bytes.fromhex(fingerprint)
    raise tampered(event, "its metadata names no key")


def _introduce(control: Control, event: Event, about: Mapping[str, Any]) -> ControlKey:
    key_id, fingerprint = _about_key(event, about)
    if control.key_of_id(key_id) or control.key(fingerprint):
        raise tampered(event, f"key {key_id} was introduced before")
    if about.get("epoch") != control.epoch + 1:
        raise tampered(event, f"it should begin epoch {control.epoch + 1}")
    # In a migrated generation, position 1 lies under another key; see `authority`.
    own = control.generation > 0 or event.key_fingerprint == fingerprint
    if not control.keys and not (event.position == 1 and own):
        raise tampered(event, "the ledger does not begin with its own first key")
    return ControlKey(key_id, fingerprint, control.epoch + 1, event.position, 0)


def _activate(
    control: Control, introduced: ControlKey | None, event: Event, about: Mapping[str, Any]
) -> Control:
    key_id, fingerprint = _about_key(event, about)
    if (
        introduced is None
        or (introduced.id, introduced.fingerprint) != (key_id, fingerprint)
        or introduced.epoch != about.get("epoch")
        or event.position != introduced.introduced + 1
    ):
        raise tampered(event, f"key {key_id} is activated without its introduction")
    key = replace(introduced, activated=event.position)
    return replace(control, keys=(*control.keys, key))


def _end_key(control: Control, event: Event, about: Mapping[str, Any]) -> Control:
    key_id, fingerprint = _about_key(event, about)
    key = control.key(fingerprint)
    if key is None or key.id != key_id:
        raise tampered(event, f"key {key_id} was never introduced")
    if key == control.active:
        raise tampered(event, f"key {key_id} is the active one")
    retired, lost = key.retired, key.lost
    if event.event_type == EventType.KEY_RETIRED:
        retired = event.position
    else:
        lost = event.position
    ended = replace(key, retired=retired, lost=lost)
    return replace(control, keys=tuple(ended if k == key else k for k in control.keys))


def _upgrade(control: Control, event: Event, about: Mapping[str, Any]) -> Control:
    facts = about.get("facts")
    if type(facts) is not int or facts != FACTS or control.upgrades:
        raise tampered(event, "this ledger can't have had such an upgrade")
    return replace(control, upgrades=(event.position,))


def _abandon_generation(control: Control, event: Event, about: Mapping[str, Any]) -> Control:
    _, fingerprint = _about_key(event, about)
    number, count = about.get("generation"), about.get("count")
    if not isinstance(number, int) or not isinstance(count, int) or count < 0:
        raise tampered(event, "it does not say what was abandoned")
    return replace(control, abandoned=(*control.abandoned, (number, fingerprint, count)))


def _open_generation(control: Control, event: Event, about: Mapping[str, Any]) -> Control:
    key_id, fingerprint = _about_key(event, about)
    key = control.key(fingerprint)
    if key is None or key.id != key_id:
        raise tampered(event, f"key {key_id} was never introduced")
    number = about.get("generation")
    if not isinstance(number, int) or number < 1 or number > control.generation:
        raise tampered(event, "it opens no generation up to this one")
    opening = (event.position, fingerprint)
    opened = replace(control, openings=(*control.openings, opening))
    if number != control.generation:
        return opened  # copied from the generation that this generation was made of
    if control.opened is not None:
        raise tampered(event, "the generation is opened twice")
    return replace(opened, opened=opening)
