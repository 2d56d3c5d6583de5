"""Known answers for the attestation of a verification, made without the library.

From docs/format.md alone: rows for the ledger of `vectors/facts_v2.json`, and rows that nobody
attested. `python tests/attestation_vectors.py` writes `vectors/attestation_v1.json` anew; a test
holds that the file is what this makes, and that the library gives the same bytes.
"""

from __future__ import annotations

import hmac
import json
import struct
from pathlib import Path
from typing import Any

from facts_vectors import LEDGER, ROOTS, fingerprint
from facts_vectors import made as ledger
from independent_fold import CONTROL, NS, derived

FILE = Path(__file__).parent / "vectors" / "attestation_v1.json"
LABEL = "boot-attestation"

Row = dict[str, Any]


def lp(word: bytes) -> bytes:
    return struct.pack(">H", len(word)) + word


def message(row: Row, ledger_id: bytes = LEDGER, label: str = LABEL) -> bytes:
    return (
        NS + label.encode() + b"\0" + bytes([row["format"]]) + ledger_id
        + struct.pack(">IQQ", row["generation"], row["position"], row["heads"])
        + struct.pack(">q", row["verified_at"])
        + b"".join(bytes.fromhex(row[c]) for c in ("event_hash", "control_hash", "key_fingerprint"))
        + b"".join(lp(row[column].encode()) for column in ("level", "release", "key_id"))
        + lp(bytes.fromhex(row["head_keys"]))
    )  # fmt: skip


def mac(row: Row, key_id: str, label: str = LABEL, ledger_id: bytes = LEDGER) -> str:
    key = derived(ROOTS[key_id], label, ledger_id)
    return hmac.digest(key, message(row, ledger_id, label), "sha256").hex()


def attested(
    generation: int, position: int, level: str, heads: int, *keys: str, key_id: str
) -> Row:
    """A row of `ledger_attestation` for the ledger of the facts, without its MAC."""
    rows = ledger()["generations"][generation][:position]
    control = [row for row in rows if row["stream"] == CONTROL]
    return {
        "generation": generation,
        "format": 1,
        "position": position,
        "level": level,
        "heads": heads,
        "event_hash": rows[-1]["event_hash"],
        "control_hash": control[-1]["event_hash"],
        "head_keys": "".join(sorted(fingerprint(key).hex() for key in keys)),
        "verified_at": 1_790_000_000_500_000,
        "release": "1.0.0",
        "key_id": key_id,
        "key_fingerprint": fingerprint(key_id).hex(),
    }


def made() -> dict[str, Any]:
    """The whole vector."""
    first = attested(0, 9, "latest", 3, "k-a", key_id="k-a")
    both = attested(0, 13, "full", 3, "k-b", "k-a", key_id="k-b")
    last = attested(1, 16, "full", 3, "k-b", key_id="k-b")
    whole = [row | {"mac": mac(row, row["key_id"])} for row in (first, both, last)]
    moved = {"level": "lates", "release": "t1.0.0"}
    of_first, of_both, of_last = (row["mac"] for row in whole)
    refused = [
        ("a later position", last | {"position": 17}, of_last),
        ("another level", first | {"level": "full"}, of_first),
        ("a release that took a letter of the level", first | moved, of_first),
        ("more secrets", last | {"heads": 4}, of_last),
        ("another event's hash", last | {"event_hash": first["event_hash"]}, of_last),
        ("a key left out", both | {"head_keys": fingerprint("k-b").hex()}, of_both),
        ("a later time", last | {"verified_at": 1_790_000_000_500_001}, of_last),
        ("the other key's MAC", last, mac(last, "k-a")),
        ("the sub-key of another label", last, mac(last, "k-b", "migration-digest")),
        ("a MAC of another ledger", last, mac(last, "k-b", ledger_id=bytes(16))),
        ("a MAC cut short", last, of_last[:-2]),
    ]
    return {
        "ledger_id": LEDGER.hex(),
        "roots": {name: root.hex() for name, root in ROOTS.items()},
        "attestations": [{"row": row, "message": message(row).hex()} for row in whole],
        "refused": [{"title": title, "row": row | {"mac": mac_}} for title, row, mac_ in refused],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n", "utf-8")
