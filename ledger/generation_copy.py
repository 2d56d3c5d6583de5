"""A generation sealed anew: every event of the history under one key, in the next generation.

Positions, versions, times, metadata and values stay as they are; keys, seals and chains are
new. What nobody may read any more (a destroyed version, data under a lost key) is carried
without its data: a purged row, which keeps its place in the chain. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ledger.authority import HeldKeys, read_event
from ledger.control import Control
from ledger.errors import LedgerError, MissingKey, SecretDestroyed
from ledger.events import CONTROL_STREAM, NO_HASH, Event, EventType
from ledger.findings import Finding, finding_of
from ledger.format import hash_of, is_purged, purge, seal_event
from ledger.keys import LedgerKey
from ledger.state import CheckedRow
from ledger.versions import state_of

__all__ = ["Copied", "differences", "reseal"]


@dataclass(frozen=True, slots=True)
class Copied:
    """A page of the next generation."""

    events: Sequence[Event]
    purged: int
    """How many were carried without their data."""


def reseal(
    control: Control,
    held: HeldKeys,
    generation: int,
    rows: Iterable[CheckedRow],
    newest: Mapping[str, bytes],
) -> Copied:
    """The events of a page, which were checked, as they are in the next generation.

    `newest`: the hash of the newest event of each of their streams there. Raises what keeps
    an event from being opened.
    """
    hashes = dict(newest)
    copied: list[Event] = []
    purged = 0
    for row in rows:
        event = row.event
        bare = event._replace(
            generation=generation, prev_hash=hashes.get(event.stream, NO_HASH), event_hash=b""
        )
        data = None if _is_ended(row) else _data_of(control, held.by_fingerprint, event)
        if data is None:
            bare = bare._replace(sealed=_remains(event))
            new = bare._replace(event_hash=hash_of(control.ledger_id, bare))
            purged += 1
        else:
            new = seal_event(
                held.active.event_cipher,
                control.ledger_id,
                bare._replace(
                    key_id=held.active_id, key_fingerprint=held.active.fingerprint, sealed=b""
                ),
                data,
            )
        hashes[event.stream] = new.event_hash
        copied.append(new)
    return Copied(copied, purged)


def _is_ended(row: CheckedRow) -> bool:
    """Whether nobody may read it any more: purged, or below a `secret.destroyed`."""
    return is_purged(row.event.sealed) or (row.destroyed or 0) > row.event.version


def _remains(event: Event) -> bytes:
    return event.sealed if is_purged(event.sealed) else purge(event.sealed)


def _data_of(control: Control, keys: Mapping[bytes, LedgerKey], event: Event) -> bytes | None:
    """What is sealed into an event, also where its key can't open it and it can hold nothing;
    None where it went with its key."""
    try:
        return read_event(control, keys, event)
    except SecretDestroyed:
        return b"" if is_dataless(event) else None
    except MissingKey:
        # Its hash is part of a chain whose end is sealed under a key in hand.
        if event.stream == CONTROL_STREAM:
            return b""
        raise


def is_dataless(event: Event) -> bool:
    """Whether an event of this kind never carries data: then there is nothing to open."""
    if event.event_type == EventType.REKEYED:
        return state_of(event) != "live"
    return event.event_type not in (EventType.WRITTEN, EventType.RESTORED)


def differences(
    before: Control,
    after: Control,
    keys: Mapping[bytes, LedgerKey],
    old: Sequence[CheckedRow],
    new: Sequence[CheckedRow],
) -> list[Finding]:
    """Where the next generation is not the old one under the new key: both sides opened.

    The seals and chains of each side were checked before; this compares what they say.
    """
    found: list[Finding] = []
    there = {row.event.position: row for row in new}
    for row in old:
        event = row.event
        copy = there.pop(event.position, None)
        if copy is None:
            found.append(finding_of(event, "it is missing from the new generation"))
            continue
        found += [
            finding_of(copy.event, f"its {name} is not that of the original")
            for name in ("stream", "version", "event_type", "recorded_at", "metadata")
            if getattr(event, name) != getattr(copy.event, name)
        ]
        try:
            same = _is_same(before, after, keys, row, copy.event)
        except LedgerError as error:
            found.append(finding_of(copy.event, error))
            continue
        if not same:
            found.append(finding_of(copy.event, "its data is not that of the original"))
    found += [finding_of(row.event, "there is no original of it") for row in there.values()]
    return found


def _is_same(
    before: Control,
    after: Control,
    keys: Mapping[bytes, LedgerKey],
    row: CheckedRow,
    copy: Event,
) -> bool:
    event = row.event
    if not is_purged(copy.sealed):
        if is_purged(event.sealed):
            return False
        # A version that was destroyed since it was copied is compared like any other.
        return _data_of(before, keys, event) == _data_of(after, keys, copy)
    return (
        (_is_ended(row) or _data_of(before, keys, event) is None)
        and copy.sealed == _remains(event)
        and (copy.key_id, copy.key_fingerprint) == (event.key_id, event.key_fingerprint)
    )
