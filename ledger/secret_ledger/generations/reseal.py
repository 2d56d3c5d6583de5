"""Seals a generation anew: every event of the history under one key, for the next generation.

Positions, versions, times, metadata and values stay. Keys, seals and chains are new. Nobody may
read the data of a destroyed version or under a lost key any more: such an event is copied without
its data. This purged row keeps its place in the chain, and its key columns. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING

from secret_ledger.model.control import Control
from secret_ledger.model.events import NO_HASH, Event, EventType
from secret_ledger.model.format import hash_of, is_purged, open_event, purge, seal_event
from secret_ledger.model.rows import CheckedRow
from secret_ledger.model.secret import Secret, Values
from secret_ledger.model.versions import state_of
from secret_ledger.rules.authority import SealingKeys
from secret_ledger.rules.findings import Finding, finding_of
from secret_ledger.rules.row_checks import CheckedPage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Copied", "differences", "read_back", "reseal"]


@dataclass(frozen=True, slots=True)
class Copied:
    """A page of the next generation."""

    events: Sequence[Event]
    purged: int
    """Events that were copied without their data."""


def reseal(
    control: Control,
    sealing: SealingKeys,
    generation: int,
    page: CheckedPage,
    before: Mapping[str, bytes],
) -> Copied:
    """The events of a page as they are in the next generation. The page must have no suspects.

    `before`: for each stream of the page that began earlier, the hash of its newest event in the
    next generation.
    """
    ledger_id, cipher = control.ledger_id, sealing.active.event_cipher
    key_id, fingerprint = sealing.active_id, sealing.active.fingerprint
    hashes = dict(before)
    copied: list[Event] = []
    purged = 0
    value_at = page.values.at
    for number, row in enumerate(page.rows):
        event = row.event
        prev_hash = hashes.get(event.stream, NO_HASH)
        if _is_kept(row, page.values, number):
            _, position, stream, version, event_type, _, _, recorded_at, metadata, *_ = event
            new = Event(
                generation, position, stream, version, event_type, key_id, fingerprint,
                recorded_at, metadata, prev_hash, b"", b"",
            )  # fmt: skip
            new = seal_event(cipher, ledger_id, new, Secret(value_at(number) or b""))
        else:
            new = event._replace(
                generation=generation, prev_hash=prev_hash, sealed=_remains(event), event_hash=b""
            )
            new = new._replace(event_hash=hash_of(ledger_id, new))
            purged += 1
        hashes[event.stream] = new.event_hash
        copied.append(new)
    return Copied(copied, purged)


def _is_kept(row: CheckedRow, values: Values, number: int) -> bool:
    """Whether an event is sealed again with its data.

    The data is left out if it was purged, if a later `secret.destroyed` ended it, or if its key is
    lost.
    """
    event, destroyed = row.event, row.destroyed
    if is_purged(event.sealed) or (destroyed is not None and destroyed > event.version):
        return False
    return values.at(number) is not None or is_dataless(event)


def _remains(event: Event) -> bytes:
    return event.sealed if is_purged(event.sealed) else purge(event.sealed)


def is_dataless(event: Event) -> bool:
    """Whether an event of this kind never carries data, and so need not be opened."""
    if event.event_type == EventType.REKEYED:
        return state_of(event) != "live"
    return event.event_type not in (EventType.WRITTEN, EventType.RESTORED)


def read_back(
    ledger_id: bytes,
    cipher: AESGCM,
    old: CheckedPage,
    written: Sequence[Event],
    stored: Sequence[Event],
) -> list[Finding]:
    """Compare stored events with the events that were just written, chain and hash included.

    If they are the same, the stored events are opened and compared with their originals. Returns a
    finding for each difference. Raises TamperedEvent if a stored event does not open.
    """
    known = {event.position: event for event in written}
    found = [
        finding_of(event, "it differs from the event that was written")
        for event in stored
        if event != known.get(event.position)
    ]
    if found:
        return found
    values = Values(
        None if is_purged(event.sealed) else open_event(cipher, ledger_id, event)
        for event in stored
    )
    rows = [CheckedRow(event, None, None, None) for event in stored]
    return differences(old, CheckedPage(rows, values, ()))


def differences(old: CheckedPage, new: CheckedPage) -> list[Finding]:
    """The differences between a page of the old generation and its copy. Both sides are opened.

    The caller has checked the seals and chains of each side; this compares their columns and data.
    """
    found: list[Finding] = []
    there = {row.event.position: n for n, row in enumerate(new.rows)}
    for n, row in enumerate(old.rows):
        event = row.event
        number = there.pop(event.position, None)
        if number is None:
            found.append(finding_of(event, "it is missing from the new generation"))
            continue
        copy = new.rows[number].event
        if _lasting(event) != _lasting(copy):
            found += [
                finding_of(copy, f"its {name} differs from the original's")
                for name in ("stream", "version", "event_type", "recorded_at", "metadata")
                if getattr(event, name) != getattr(copy, name)
            ]
        if not _is_same(old, n, new, number):
            found.append(finding_of(copy, "its data differs from the original's"))
    extra = [new.rows[number].event for number in there.values()]
    return found + [finding_of(event, "it has no original") for event in extra]


def _lasting(event: Event) -> tuple[object, ...]:
    """The columns that a migration keeps as they are."""
    return event.stream, event.version, event.event_type, event.recorded_at, event.metadata


def _is_same(old: CheckedPage, number: int, new: CheckedPage, copied: int) -> bool:
    row, copy = old.rows[number], new.rows[copied].event
    event, kept = row.event, _is_kept(row, old.values, number)
    if is_purged(copy.sealed):
        return (
            not kept
            and copy.sealed == _remains(event)
            and (copy.key_id, copy.key_fingerprint) == (event.key_id, event.key_fingerprint)
        )
    if not kept:  # destroyed since the copy was made: nobody may read either
        return not is_purged(event.sealed) and (row.destroyed or 0) > event.version
    there = new.values.at(copied)
    return there is not None and compare_digest(old.values.at(number) or b"", there)
