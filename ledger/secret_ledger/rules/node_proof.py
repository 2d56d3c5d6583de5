"""What proves that a node's line in the registry is that of a holder of a key. Pure, no I/O.

A node proves its line with HMAC-SHA256 under the sub-key `node-proof` of the key that it seals
with (`key_fingerprint`), over

    NS ‖ "node-proof" ‖ 00 ‖ format u8 (=1) ‖ ledger_id 16 ‖ epoch u64 ‖ last_seen i64
    ‖ heartbeat u64 ‖ pid u64 ‖ position u64 ‖ key_fingerprint 32
    ‖ lp(node_id) ‖ lp(node) ‖ lp(host) ‖ lp(release) ‖ lp(key_id)
    ‖ lp(pending_id) ‖ lp(pending_fingerprint) ‖ lp(readable) ‖ lp(reason)

`lp(x)` is a u16 length and x; a text is its UTF-8. What is pending is empty if nothing is.
`readable` is the text of its column: a JSON list of pairs, key id and fingerprint in hex. Times
are microseconds, `last_seen` since 1970. `epoch` is the key epoch that the node knows. The column
`proof` holds

    format u8 ‖ epoch u64 ‖ HMAC 32

All other columns (state, refusals, started_at) are not covered: a refused boot proves nothing.
Nobody without a key can plant or edit a line, bring it from another ledger, or make an old line
young. A line that was deleted, or put back as it was within three heartbeats, can't be told. Nor
can a line be told whose author holds a key that leaked, until that key is retired or lost.
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
"""`stale`: proven, and of an epoch that its author should have left long ago. `unproven`: no
holder of a key wrote the line as it is. `unknown`: the key that would tell is not in hand."""


class Announcement(NamedTuple):
    """What a line's proof covers; the columns of `ledger_node` of these names."""

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
    """The proof of a line, under the key that it says its node seals with."""
    return _PROOF.pack(FORMAT, epoch, _mac(ledger_id, epoch, line, key))


class Judge(NamedTuple):
    """Tells what a line's proof is worth, with the keys in hand."""

    control: Control
    held: Mapping[bytes, LedgerKey]

    def verdict(self, line: Announcement, proof: object) -> ProofVerdict:
        """What the proof of a line says, whatever the line holds."""
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
            authentic = False  # a field holds what no node can have written
        if not authentic:
            return "unproven"
        return "stale" if self._is_stale(line, epoch) else "proven"

    def _is_stale(self, line: Announcement, epoch: int) -> bool:
        """Whether its author still states an epoch after it had time to follow a rotation."""
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
