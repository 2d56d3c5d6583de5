"""A generation sealed anew: every event of the history under one key, in the next generation.

Positions, versions, times, metadata and values stay as they are; keys, seals and chains are
new. What nobody may read any more (a destroyed version, data under a lost key) is carried
without its data: a purged row, which keeps its place in the chain. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.authority import HeldKeys
from ledger.checking import CheckedPage
from ledger.control import Control
from ledger.events import NO_HASH, Event, EventType
from ledger.findings import Finding, finding_of
from ledger.format import hash_of, is_purged, purge, seal_event
from ledger.secret import Secret
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
    page: CheckedPage,
    newest: Mapping[str, bytes],
) -> Copied:
    """The events of a page without suspects, as they are in the next generation.

    `newest`: the hash of the newest event of each of their streams there.
    """
    key_id, fingerprint = held.active_id, held.active.fingerprint
    cipher = held.active.event_cipher
    hashes = dict(newest)
    copied: list[Event] = []
    purged = 0
    for row, opened in zip(page.rows, page.opened, strict=True):
        event = row.event
        data = _data(row, opened)
        prev_hash = hashes.get(event.stream, NO_HASH)
        if data is None:
            new = event._replace(
                generation=generation, prev_hash=prev_hash, sealed=_remains(event), event_hash=b""
            )
            new = new._replace(event_hash=hash_of(control.ledger_id, new))
            purged += 1
        else:
            _, position, stream, version, event_type, _, _, recorded_at, metadata, *_ = event
            new = Event(
                generation, position, stream, version, event_type, key_id, fingerprint,
                recorded_at, metadata, prev_hash, b"", b"",
            )  # fmt: skip
            new = seal_event(cipher, control.ledger_id, new, data.reveal())
        hashes[event.stream] = new.event_hash
        copied.append(new)
    return Copied(copied, purged)


def _data(row: CheckedRow, opened: Secret | None) -> Secret | None:
    """What an event is sealed again with; None where nobody may read it any more: it was
    purged, or lies below a `secret.destroyed`, or its data went with its key."""
    if is_purged(row.event.sealed) or (row.destroyed or 0) > row.event.version:
        return None
    return Secret(b"") if opened is None and is_dataless(row.event) else opened


def _remains(event: Event) -> bytes:
    return event.sealed if is_purged(event.sealed) else purge(event.sealed)


def is_dataless(event: Event) -> bool:
    """Whether an event of this kind never carries data: then there is nothing to open."""
    if event.event_type == EventType.REKEYED:
        return state_of(event) != "live"
    return event.event_type not in (EventType.WRITTEN, EventType.RESTORED)


def differences(old: CheckedPage, new: CheckedPage) -> list[Finding]:
    """Where the next generation is not the old one under the new key: both sides opened.

    The seals and chains of each side were checked before; this compares what they say.
    """
    found: list[Finding] = []
    there = {row.event.position: n for n, row in enumerate(new.rows)}
    for row, opened in zip(old.rows, old.opened, strict=True):
        event = row.event
        number = there.pop(event.position, None)
        if number is None:
            found.append(finding_of(event, "it is missing from the new generation"))
            continue
        copy = new.rows[number].event
        if _kept(event) != _kept(copy):
            found += [
                finding_of(copy, f"its {name} is not that of the original")
                for name in ("stream", "version", "event_type", "recorded_at", "metadata")
                if getattr(event, name) != getattr(copy, name)
            ]
        if not _is_same(row, opened, copy, new.opened[number]):
            found.append(finding_of(copy, "its data is not that of the original"))
    extra = [new.rows[number].event for number in there.values()]
    return found + [finding_of(event, "there is no original of it") for event in extra]


def _kept(event: Event) -> tuple[object, ...]:
    return event.stream, event.version, event.event_type, event.recorded_at, event.metadata


def _is_same(row: CheckedRow, opened: Secret | None, copy: Event, copied: Secret | None) -> bool:
    event, data = row.event, _data(row, opened)
    if is_purged(copy.sealed):
        return (
            data is None
            and copy.sealed == _remains(event)
            and (copy.key_id, copy.key_fingerprint) == (event.key_id, event.key_fingerprint)
        )
    if data is None:  # destroyed since it was copied: nobody may read either
        return not is_purged(event.sealed) and (row.destroyed or 0) > event.version
    return data == copied
