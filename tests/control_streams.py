"""Control streams in memory, for tests of the rules: no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inside import (
    CONTROL_STREAM,
    NO_HASH,
    Control,
    Event,
    EventType,
    Key,
    LedgerKey,
    encode_metadata,
    fold_control,
    genesis,
    hash_of,
    key_metadata,
    purge,
    seal_event,
)

LEDGER = bytes(range(16))
NOW = 1_790_000_000_000_000
A, B, C, D = (
    Key.from_bytes(bytes(range(n, n + 32)), f"k-{name}").for_ledger(LEDGER)
    for n, name in enumerate("abcd")
)
WITH_FACTS = genesis(A, LEDGER, NOW)
"""How a ledger begins: its third event says which facts are sealed from there on."""
GENESIS = WITH_FACTS[:2]
"""How a ledger of an older release began."""

Stream = tuple[Event, ...]


def about(key: LedgerKey, **more: object) -> dict[str, Any]:
    return {"key": {"id": key.id, "fingerprint": key.fingerprint.hex()}, **more}


def added(
    events: Stream,
    event_type: str,
    facts: Mapping[str, Any] | str,
    key: LedgerKey,
    position: int | None = None,
) -> Stream:
    """One more event, sealed under `key`, at the next position unless one is given."""
    last = events[-1] if events else None
    event = Event(
        generation=last.generation if last else 0,
        position=position or (last.position + 1 if last else 1),
        stream=CONTROL_STREAM,
        version=len(events) + 1,
        event_type=event_type,
        key_id=key.id,
        key_fingerprint=key.fingerprint,
        recorded_at=last.recorded_at + 1 if last else NOW,
        metadata=facts if isinstance(facts, str) else encode_metadata(ledger=facts),
        prev_hash=last.event_hash if last else NO_HASH,
        sealed=b"",
        event_hash=b"",
    )
    return (*events, seal_event(key.event_cipher, LEDGER, event, b""))


def rotated(
    events: Stream, old: LedgerKey, new: LedgerKey, epoch: int, position: int | None = None
) -> Stream:
    """The pair of events that makes `new` the active key."""
    facts = key_metadata(new.id, new.fingerprint, epoch)
    events = added(events, EventType.KEY_INTRODUCED, facts, old, position)
    return added(events, EventType.KEY_ACTIVATED, facts, new)


def migrated(events: Stream, key: LedgerKey, position: int) -> Stream:
    """The same stream in the next generation under `key`, opened at `position`."""
    generation = events[0].generation + 1
    copied: list[Event] = []
    for event in events:
        bare = event._replace(
            generation=generation,
            key_id=key.id,
            key_fingerprint=key.fingerprint,
            prev_hash=copied[-1].event_hash if copied else NO_HASH,
            sealed=b"",
            event_hash=b"",
        )
        copied.append(seal_event(key.event_cipher, LEDGER, bare, b""))
    facts = about(key, generation=generation, **{"from": generation - 1})
    return added(tuple(copied), EventType.GENERATION_OPENED, facts, key, position)


def rehashed(events: Sequence[Event]) -> Stream:
    """The events with hashes and links that agree again: what somebody without a key can do."""
    done: list[Event] = []
    for event in events:
        linked = event._replace(prev_hash=done[-1].event_hash if done else NO_HASH)
        done.append(linked._replace(event_hash=hash_of(LEDGER, linked)))
    return tuple(done)


def changed(events: Stream, index: int, **fields: Any) -> Stream:
    """One event with other fields, all hashes made to fit."""
    return rehashed([*events[:index], events[index]._replace(**fields), *events[index + 1 :]])


def folded(events: Stream) -> Control:
    return fold_control(LEDGER, events[0].generation if events else 0, events)


def row(position: int, key: LedgerKey, *, purged: bool = False, generation: int = 0) -> Event:
    """A secret's event at `position` under `key`."""
    bare = Event(
        generation, position, "s", 1, EventType.WRITTEN, key.id, key.fingerprint,
        NOW, "{}", NO_HASH, b"", b"",
    )  # fmt: skip
    event = seal_event(key.event_cipher, LEDGER, bare, b"value")
    return event._replace(sealed=purge(event.sealed)) if purged else event


ROTATED = rotated(GENESIS, A, B, 2, position=10)
"""A to position 10, B from 11 on."""
TWICE = rotated(ROTATED, B, C, 3, position=20)
MIGRATED = migrated(TWICE, C, 31)
"""Generation 1: everything to position 31 under C."""
AGAIN = migrated(rotated(MIGRATED, C, D, 4, position=40), D, 51)
"""Generation 2: everything to position 51 under D."""
