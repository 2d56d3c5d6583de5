"""Known answers for the facts that events seal for readers, made without the library.

From docs/format.md alone: a ledger with two keys, a lost one, destroyed secrets, and a second
generation. `python tests/facts_vectors.py` writes `vectors/facts_v2.json` anew; a test holds
that the file is what this makes, and that the library reads it as the file says.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from independent_fold import CONTROL, NS, context_of, derived

FILE = Path(__file__).parent / "vectors" / "facts_v2.json"
LEDGER = bytes(range(16))
ROOTS = {name: bytes(range(n, n + 32)) for n, name in enumerate(("k-a", "k-b"))}
NOW = 1_790_000_000_000_000

Row = dict[str, Any]


def fingerprint(key_id: str) -> bytes:
    return derived(ROOTS[key_id], "key-fingerprint", LEDGER)


def about(key_id: str) -> dict[str, Any]:
    return {"key": {"fingerprint": fingerprint(key_id).hex(), "id": key_id}}


def text(ledger: dict[str, Any], **parts: Any) -> str:
    parts = {**parts, "ledger": ledger} if ledger else parts
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(rows: list[Row]) -> dict[str, Any]:
    total = sha256()
    for row in rows:
        total.update(struct.pack(">Q", row["position"]) + bytes.fromhex(row["event_hash"]))
    return {"count": len(rows), "digest": total.hexdigest()}


def leaf(row: Row, sealed: bytes) -> bytes:
    inner = sealed[2:] if sealed[0] == 0 else sha256(sealed).digest()
    context = sha256(context_of(LEDGER, columns(row))).digest()
    return sha256(b"\0" + NS + b"leaf\0" + context + inner).digest()


def columns(row: Row) -> tuple[Any, ...]:
    return (
        row["generation"], row["position"], row["stream"], row["version"], row["event_type"],
        row["key_id"], bytes.fromhex(row["key_fingerprint"]), row["recorded_at"],
        row["metadata"], bytes.fromhex(row["prev_hash"]),
    )  # fmt: skip


@dataclass
class Log:
    """One generation, as it grows."""

    generation: int = 0
    rows: list[Row] = field(default_factory=list)

    def newest(self, stream: str) -> Row | None:
        return next((r for r in reversed(self.rows) if r["stream"] == stream), None)

    def add(
        self, stream: str, event_type: str, key_id: str, ledger: dict[str, Any], data: bytes = b"",
        **parts: Any,
    ) -> Row:  # fmt: skip
        before = self.newest(stream)
        row = {
            "generation": self.generation,
            "position": len(self.rows) + 1,
            "stream": stream,
            "version": before["version"] + 1 if before else 1,
            "event_type": event_type,
            "key_id": key_id,
            "key_fingerprint": fingerprint(key_id).hex(),
            "recorded_at": NOW + len(self.rows),
            "metadata": text(ledger, **parts),
            "prev_hash": before["event_hash"] if before else bytes(32).hex(),
        }
        return self._seal(row, data)

    def copy(self, old: Row, key_id: str, data: bytes | None) -> Row:
        """An event as a migration carries it; purged, under the key that it had, without data."""
        before = self.newest(old["stream"])
        row = {
            **old,
            "generation": self.generation,
            "prev_hash": before["event_hash"] if before else bytes(32).hex(),
        }
        if data is not None:
            row |= {"key_id": key_id, "key_fingerprint": fingerprint(key_id).hex()}
            return self._seal(row, data)
        sealed = bytes.fromhex(old["sealed"])
        remains = b"\0" + sealed[:1] + sha256(sealed).digest()
        row |= {"sealed": remains.hex(), "event_hash": leaf(row, remains).hex()}
        self.rows.append(row)
        return row

    def _seal(self, row: Row, data: bytes) -> Row:
        nonce = sha256(f"{self.generation}/{row['position']}".encode()).digest()[:12]
        frame = struct.pack(">I", len(data)) + data
        frame += bytes(-len(frame) % 64)
        cipher = AESGCM(derived(ROOTS[row["key_id"]], "event-encryption", LEDGER))
        sealed = b"\1" + nonce + cipher.encrypt(nonce, frame, context_of(LEDGER, columns(row)))
        row |= {"sealed": sealed.hex(), "event_hash": leaf(row, sealed).hex()}
        self.rows.append(row)
        return row


def made() -> dict[str, Any]:
    """The whole vector."""
    log, first, second = Log(), {**about("k-a"), "epoch": 1}, {**about("k-b"), "epoch": 3}
    log.add(CONTROL, "key.introduced", "k-a", first)
    log.add(CONTROL, "key.activated", "k-a", first)
    log.add(CONTROL, "ledger.upgraded", "k-a", {"facts": 2})
    log.add("ended", "secret.written", "k-a", {}, b"ended one")
    log.add("ended", "secret.written", "k-a", {}, b"ended two")
    below = [r for r in reversed(log.rows) if r["stream"] == "ended"]
    log.add("ended", "secret.destroyed", "k-a", {"rows": digest(below)}, reason="leaked")
    log.add("ended", "secret.written", "k-a", {"floor": 3}, b"ended four")
    log.add("gone", "secret.written", "k-a", {}, b"gone one")
    log.add("live", "secret.written", "k-a", {}, b"live one")
    log.add(CONTROL, "key.introduced", "k-a", second)
    log.add(CONTROL, "key.activated", "k-b", second)
    for stream, data in (("live", b"live one"), ("ended", b"ended four")):
        before = log.newest(stream)
        assert before is not None
        facts = {"at": before["recorded_at"], "of": before["version"], "state": "live"}
        floor = {"floor": 3} if stream == "ended" else {}
        log.add(stream, "secret.rekeyed", "k-b", {**facts, **floor}, data)
    lost = {"floor": 1, "lost": "k-a", "rows": {"count": 1}, "unopened": True}
    log.add("gone", "secret.destroyed", "k-b", lost, reason="its key is gone")
    under = digest([r for r in log.rows if r["key_id"] == "k-a"])
    log.add(CONTROL, "key.lost", "k-b", {**about("k-a"), "ends": 1, "rows": under})

    new = Log(1)
    held = {"live": b"live one", "ended": b"ended four"}
    for row in list(log.rows):
        has_data = row["event_type"] in ("secret.written", "secret.rekeyed")
        readable = row["key_id"] == "k-b" or not has_data
        data = held.get(row["stream"], b"") if has_data else b""
        new.copy(row, "k-b", data if readable else None)
    flip = {**about("k-b"), "from": 0, "generation": 1}
    log.add(CONTROL, "generation.closed", "k-b", flip)
    left_out = digest([r for r in new.rows if r["key_id"] == "k-a"])
    new.add(CONTROL, "generation.opened", "k-b", {**flip, "purged": left_out})
    return {
        "ledger_id": LEDGER.hex(),
        "roots": {name: root.hex() for name, root in ROOTS.items()},
        "held": ["k-b"],
        "generations": [log.rows, new.rows],
        "answers": [
            {"name": "live", "value": "live one"},
            {"name": "live", "version": 1, "refused": "secret_destroyed"},
            {"name": "ended", "value": "ended four"},
            {"name": "ended", "version": 3, "refused": "secret_destroyed"},
            {"name": "ended", "version": 1, "refused": "secret_destroyed"},
            {"name": "gone", "refused": "secret_destroyed"},
            {"name": "gone", "version": 1, "refused": "secret_destroyed"},
            {"name": "never", "refused": "secret_not_found"},
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n", "utf-8")
