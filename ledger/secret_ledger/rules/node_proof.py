"""The proof that a holder of a key wrote a node's line in the registry. Pure, no I/O.

A node proves its line with HMAC-SHA256 under the sub-key `node-proof` of the key that the node
seals with (`key_fingerprint`). The message is

    NS ‖ "node-proof" ‖ 00 ‖ format u8 (=1) ‖ ledger_id 16 ‖ epoch u64 ‖ last_seen i64
    ‖ heartbeat u64 ‖ pid u64 ‖ position u64 ‖ key_fingerprint 32
    ‖ lp(node_id) ‖ lp(node) ‖ lp(host) ‖ lp(release) ‖ lp(key_id)
    ‖ lp(pending_id) ‖ lp(pending_fingerprint) ‖ lp(readable) ‖ lp(reason)

`lp(x)` is a u16 length and x; a text is its UTF-8. If no key is pending, `pending_id` and
`pending_fingerprint` are empty. `readable` is the text of its column: a JSON list of pairs, key
id and fingerprint in hex. `heartbeat` is in microseconds, `last_seen` in microseconds since 1970.
`epoch` is the key epoch that the node knows. The column `proof` holds

    format u8 ‖ epoch u64 ‖ HMAC 32

The proof covers no other column (state, refusals, started_at): a refused boot proves nothing.
Nobody without a key can plant or edit a line, bring it from another ledger, or make an old line
look recent. The proof does not show that a line was deleted, or put back unchanged within three
heartbeats. Nor does it show that the author of a line holds a leaked key, until that key is
retired or lost.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from secret_ledger.model.control import Control
from secret_ledger.model.derivation import NAMESPACE
from secret_ledger.model.keys import LedgerKey

__all__ = ["FORMAT", "Announcement", "Judge", "ProofVerdict", "prove"]

FORMAT: Final = 1
_PREFIX: Final = NAMESPACE + b"node-proof\x00"
_NUMBERS: Final = struct.Struct(">B16sQqQQQ")
_PROOF: Final = struct.Struct(">BQ32s")
_LENGTH: Final = struct.Struct(">H")
_TEXT: Final = (str, type(None))
_BYTES: Final = (bytes, type(None))

ProofVerdict = Literal["proven", "stale", "unproven", "unknown"]
"""`proven`: a holder of the line's key wrote it. `stale`: the same, with an epoch that is too old.

`unknown`: the line's key is not in hand. `unproven`: anything else, such as a forged line or a
retired or lost key."""


class Announcement(NamedTuple):
    """The columns of `ledger_node` that a line's proof covers.

    `heartbeat` is in microseconds, `last_seen` in microseconds since 1970.
    """

    node_id: str
    node: str
    host: str
    pid: int
    release: str
    key_id: str
    key_fingerprint: bytes
    pending_id: str | None
    pending_fingerprint: bytes | None
    readable: str
    position: int
    reason: str
    heartbeat: int
    last_seen: int


def prove(ledger_id: bytes, epoch: int, line: Announcement, key: LedgerKey) -> bytes:
    """The proof of a line: 41 bytes. `key` is the key that the line says its node seals with."""
    return _PROOF.pack(FORMAT, epoch, _mac(ledger_id, epoch, line, key))


class Judge(NamedTuple):
    """Judges the proofs of lines with the keys in hand."""

    control: Control
    held: Mapping[bytes, LedgerKey]

    def verdict(self, line: Announcement, proof: object) -> ProofVerdict:
        """The verdict on the proof of a line, whatever the line and the proof hold."""
        if type(proof) is not bytes or len(proof) != _PROOF.size or not _is_whole(line):
            return "unproven"
        form, epoch, mac = _PROOF.unpack(proof)
        owner = self.control.key(line.key_fingerprint)
        if form != FORMAT or owner is None or owner.retired or owner.lost:
            return "unproven"
        key = self.held.get(line.key_fingerprint)
        if key is None:
            return "unknown"
        try:
            authentic = hmac.compare_digest(_mac(self.control.ledger_id, epoch, line, key), mac)
        except (struct.error, ValueError):
            authentic = False  # a field holds a value that no node can have written
        if not authentic:
            return "unproven"
        return "stale" if self._is_stale(line, epoch) else "proven"

    def _is_stale(self, line: Announcement, epoch: int) -> bool:
        """Three heartbeats after a rotation, each live node has had time to follow it."""
        if epoch >= self.control.epoch:
            return False
        begun = self.control.active.activated
        since = next((e.recorded_at for e in self.control.events if e.position == begun), 0)
        return line.last_seen > since + 3 * line.heartbeat


def _is_whole(line: Announcement) -> bool:
    texts = (
        line.node_id, line.node, line.host, line.release, line.key_id, line.readable, line.reason,
    )  # fmt: skip
    numbers = (line.pid, line.position, line.heartbeat, line.last_seen)
    return (
        all(type(text) is str for text in texts)
        and all(type(number) is int for number in numbers)
        and type(line.key_fingerprint) is bytes
        and type(line.pending_id) in _TEXT
        and type(line.pending_fingerprint) in _BYTES
    )


def _mac(ledger_id: bytes, epoch: int, line: Announcement, key: LedgerKey) -> bytes:
    numbers = (line.last_seen, line.heartbeat, line.pid, line.position)
    if len(line.key_fingerprint) != 32:
        raise ValueError
    words = (
        line.node_id.encode(), line.node.encode(), line.host.encode(), line.release.encode(),
        line.key_id.encode(), (line.pending_id or "").encode(), line.pending_fingerprint or b"",
        line.readable.encode(), line.reason.encode(),
    )  # fmt: skip
    told = b"".join(_LENGTH.pack(len(word)) + word for word in words)
    message = b"".join(
        (_PREFIX, _NUMBERS.pack(FORMAT, ledger_id, epoch, *numbers), line.key_fingerprint, told)
    )
    return hmac.digest(key.sub("node-proof"), message, "sha256")
