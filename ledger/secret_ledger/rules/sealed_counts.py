"""Compares rows with the counts and digests that the control stream has sealed. Pure.

`key.lost` states the rows under the lost key. `generation.opened` states the rows below itself
whose keys were lost before. So no such row can come or go unseen. A digest is SHA-256 over
position (u64) and event hash (32 bytes) of each row, in order of position (docs/format.md, "The
control stream").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from secret_ledger.model.control import Control
from secret_ledger.model.events import Event, EventType
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.rows import CheckedRow
from secret_ledger.rules.findings import Finding, finding_of

__all__ = ["RowDigest", "SealedCounts"]

_ROW: Final = struct.Struct(">Q32s")


class RowDigest:
    """Counts rows, and makes a digest of them in the order in which they are added."""

    __slots__ = ("_hash", "count")

    def __init__(self) -> None:
        self.count = 0
        self._hash = sha256()

    def add(self, event: Event) -> None:
        """Add a row whose hash the caller has checked."""
        self.count += 1
        self._hash.update(_ROW.pack(event.position, event.event_hash))

    def add_found(self, position: int, event_hash: bytes) -> None:
        """Add a row whose columns may hold anything. The position counts modulo 2^64."""
        self.count += 1
        self._hash.update(_ROW.pack(position % 2**64, event_hash))

    def add_stated(self, stated: bytes) -> None:
        """Add the stated hash of the row that was added last, if that is not the computed hash."""
        self._hash.update(sha256(stated).digest())

    def copy(self) -> RowDigest:
        """An independent copy of the count and the digest so far."""
        twin = RowDigest()
        twin.count, twin._hash = self.count, self._hash.copy()
        return twin

    def facts(self) -> Mapping[str, Any]:
        """The facts that a sealed event states of these rows: the count, and the digest in hex."""
        return {"count": self.count, "digest": self._hash.hexdigest()}


class SealedCounts:
    """The rows of one generation, counted as its control stream has sealed them."""

    def __init__(self, control: Control) -> None:
        self._control = control
        opened = control.opened[0] if control.opened else 0
        self._opened = opened
        self._under = {k.fingerprint: RowDigest() for k in control.keys if (k.lost or 0) > opened}
        """By fingerprint: the digest of the rows under each key lost in this generation."""
        self._before = {k.fingerprint for k in control.keys if 0 < (k.lost or 0) < opened}
        """Fingerprints of the keys that were lost before this generation was opened."""
        self._left_out = RowDigest()

    @property
    def watches(self) -> bool:
        """Whether any key of the ledger is lost."""
        return bool(self._under or self._before)

    def add(self, rows: Iterable[CheckedRow]) -> None:
        """Add checked rows, in order of position."""
        if not self.watches:
            return
        for row in rows:
            event = row.event
            if len(event.event_hash) != 32 or not 0 < event.position < 2**63:
                continue  # already a finding
            if event.key_fingerprint in self._under:
                self._under[event.key_fingerprint].add(event)
            elif event.position < self._opened and event.key_fingerprint in self._before:
                self._left_out.add(event)

    def differences(self) -> Iterator[Finding]:
        """Yields a finding for each sealed count or digest that the rows don't give."""
        control = self._control
        for event in control.events:
            facts = parse_metadata(event.metadata).ledger
            stated: object = None
            found: RowDigest | None = None
            if event.event_type == EventType.KEY_LOST and event.position > self._opened:
                stated, key = facts.get("rows"), facts.get("key")
                mark = key.get("fingerprint") if isinstance(key, dict) else None
                found = self._under.get(bytes.fromhex(mark)) if isinstance(mark, str) else None
            elif event.position == self._opened:
                stated, found = facts.get("purged"), self._left_out
            if found is None or not self._must_state(event):
                continue
            if stated != found.facts():
                yield finding_of(
                    event,
                    f"{found.count} rows lie under lost keys: the event states other rows",
                )

    def _must_state(self, event: Event) -> bool:
        upgrades = self._control.upgrades
        return bool(upgrades) and event.position > upgrades[0]
