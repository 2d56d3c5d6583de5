"""What a log says, read without the library: from the rows, with FORMAT.md in hand.

Nothing of `ledger` does any of the work here (a `Key` only hands out its text): a fault in the
format's code, or in the writer's, can't hide itself. It reads a ledger of one generation.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from sqlalchemy.engine import make_url

from ledger import Key

NS = b"secret-ledger/v1/"
COLUMNS = (
    "generation, position, stream, version, event_type, key_id, key_fingerprint, recorded_at,"
    " metadata, prev_hash, sealed, event_hash"
)
CONTROL = "$ledger"


@dataclass(frozen=True, slots=True)
class Folded:
    """One event that has opened, and stands where it must stand."""

    position: int
    stream: str
    version: int
    event_type: str
    key_id: str
    epoch: int
    """That of the key it is under."""
    recorded_at: int
    value: bytes
    metadata: dict[str, Any]


async def read_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Rows of one statement, by a plain driver."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        plain = sqlite3.connect(address.database or "", timeout=30)
        try:
            return plain.execute(query).fetchall()
        finally:
            plain.close()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET search_path TO secret_ledger")
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def derived(root: bytes, label: str, ledger_id: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, NS + label.encode() + b"\0" + ledger_id).derive(root)


def context_of(ledger_id: bytes, row: Sequence[Any]) -> bytes:
    generation, position, stream, version, event_type, key_id, mark, at, metadata, prev, *_ = row

    def lp(text: str) -> bytes:
        return struct.pack(">H", len(text.encode())) + text.encode()

    return b"".join(
        (
            NS, b"event\0\x01", ledger_id, struct.pack(">IQ", generation, position), lp(stream),
            struct.pack(">Q", version), lp(event_type), lp(key_id), mark, struct.pack(">q", at),
            sha256(metadata.encode()).digest(), prev,
        )
    )  # fmt: skip


def opened_frame(frame: bytes) -> bytes:
    (size,) = struct.unpack(">I", frame[:4])
    assert len(frame) % 64 == 0
    assert len(frame) - 4 - size < 64
    assert not any(frame[4 + size :])
    return frame[4 : 4 + size]


async def fold_log(url: str, keys: Sequence[Key]) -> list[Folded]:
    """Every event in order of position. Asserts all that makes a log one:

    positions and versions without a gap, time that never runs back, every hash, chain and
    seal, one active key at each position, and no event under another than that.
    """
    ((ledger_id,),) = await read_rows(url, "SELECT ledger_id FROM ledger_meta")
    ((generation, last, epoch),) = await read_rows(
        url, "SELECT generation, position, key_epoch FROM ledger_head"
    )
    rows = await read_rows(url, f"SELECT {COLUMNS} FROM secret_event ORDER BY position")  # noqa: S608  # constants
    roots = [base64.urlsafe_b64decode(k.text().reveal_text()[5:] + "==")[:32] for k in keys]
    ciphers = {
        derived(root, "key-fingerprint", ledger_id): AESGCM(
            derived(root, "event-encryption", ledger_id)
        )
        for root in roots
    }
    assert [row[1] for row in rows] == list(range(1, last + 1))
    newest: dict[str, tuple[int, bytes]] = {}
    active: list[tuple[str, bytes]] = []
    """Label and fingerprint of each key that was activated, in order."""
    latest = 0
    folded: list[Folded] = []
    for row in rows:
        of_generation, position, stream, version, event_type, key_id, mark, at = row[:8]
        text, prev, sealed, event_hash = row[8:]
        context = context_of(ledger_id, row)
        assert of_generation == generation
        assert (version - 1, prev) == newest.get(stream, (0, bytes(32)))
        leaf = b"\0" + NS + b"leaf\0" + sha256(context).digest() + sha256(sealed).digest()
        assert sha256(leaf).digest() == event_hash
        assert at >= latest
        assert sealed[0] == 1
        value = opened_frame(ciphers[mark].decrypt(sealed[1:13], sealed[13:], context))
        metadata = json.loads(text)
        about = metadata.get("ledger", {})
        if stream == CONTROL and event_type == "key.activated":
            named = (about["key"]["id"], bytes.fromhex(about["key"]["fingerprint"]))
            assert named not in active
            active.append(named)
            assert about["epoch"] == len(active)
        elif not active:  # genesis introduces the key that it is sealed under
            assert (position, stream, event_type) == (1, CONTROL, "key.introduced")
        if active:
            assert (key_id, mark) == active[-1], f"position {position} is not under the active key"
        newest[stream], latest = (version, event_hash), at
        folded.append(
            Folded(position, stream, version, event_type, key_id, len(active), at, value, metadata)
        )
    assert epoch == len(active)
    return folded
