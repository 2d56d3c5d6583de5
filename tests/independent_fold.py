"""What a log says, read without the library: from the rows, with docs/format.md in hand.

Nothing of `ledger` does any of the work here (a `Key` only hands out its text): a fault in the
format's code, or in the writer's, can't hide itself. It reads one generation, default the one
in use.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from sqlalchemy.engine import make_url

from secret_ledger import Key

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
    """Empty where it was purged."""
    metadata: dict[str, Any]
    purged: bool = False


async def read_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Rows of one statement, by a plain driver."""
    (rows,) = await read_each(url, query)
    return rows


async def read_each(url: str, *queries: str) -> list[list[tuple[Any, ...]]]:
    """Rows of several statements, on one connection of a plain driver."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        plain = sqlite3.connect(address.database or "", timeout=30)
        try:
            return [plain.execute(query).fetchall() for query in queries]
        finally:
            plain.close()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET search_path TO secret_ledger")
        return [[tuple(row) for row in await connection.fetch(query)] for query in queries]
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


async def fold_log(url: str, keys: Sequence[Key], generation: int | None = None) -> list[Folded]:
    """Every event of a generation in order of position. Asserts all that makes a log one:

    positions and versions without a gap, time that never runs back, every hash, chain and
    seal, one active key at each position, and no event under another than that; in a migrated
    generation the one key that it was opened under up to there, and purged rows only where
    an end or a lost key allows them.
    """
    ((ledger_id,),), heads, rows = await read_each(
        url,
        "SELECT ledger_id FROM ledger_meta",
        "SELECT generation, position, key_epoch, state FROM ledger_head",
        f"SELECT {COLUMNS} FROM secret_event ORDER BY position",  # noqa: S608  # constants
    )
    in_use = [head for head in heads if head[3] in ("active", "moved")]
    ((generation, last, epoch, _),) = (
        in_use if generation is None else [head for head in heads if head[0] == generation]
    )
    rows = [row for row in rows if row[0] == generation]
    roots = [base64.urlsafe_b64decode(k.text().reveal_text()[5:] + "==")[:32] for k in keys]
    ciphers = {
        derived(root, "key-fingerprint", ledger_id): AESGCM(
            derived(root, "event-encryption", ledger_id)
        )
        for root in roots
    }
    assert [row[1] for row in rows] == list(range(1, last + 1))
    opened, opened_under = _opening(rows, generation)
    lost = {_named(json.loads(row[8])) for row in rows if row[4] == "key.lost"}
    ends = {row[2]: row[3] for row in rows if row[4] == "secret.destroyed"}
    newest: dict[str, tuple[int, bytes]] = {}
    active: list[tuple[str, bytes]] = []
    """Label and fingerprint of each key that was activated, in order."""
    latest = upgrades = 0
    folded: list[Folded] = []
    for row in rows:
        position, stream, version, event_type, key_id, mark, at = row[1:8]
        text, prev, sealed, event_hash = row[8:]
        context = context_of(ledger_id, row)
        assert (version - 1, prev) == newest.get(stream, (0, bytes(32)))
        purged = sealed[0] == 0
        digest = sealed[2:] if purged else sha256(sealed).digest()
        leaf = b"\0" + NS + b"leaf\0" + sha256(context).digest() + digest
        assert sha256(leaf).digest() == event_hash
        assert at >= latest
        if purged:
            assert (sealed[1], len(sealed)) == (1, 34)
            assert ends.get(stream, 0) > version or (key_id, mark) in lost
            assert stream != CONTROL
            value = b""
        else:
            assert sealed[0] == 1
            value = b""
            if mark in ciphers:
                value = opened_frame(ciphers[mark].decrypt(sealed[1:13], sealed[13:], context))
            else:
                assert stream == CONTROL or (key_id, mark) in lost, f"no key opens {position}"
        metadata = json.loads(text)
        if stream == CONTROL and event_type == "key.activated":
            named = _named(metadata)
            assert named not in active
            active.append(named)
            assert metadata["ledger"]["epoch"] == len(active) + upgrades
        elif stream == CONTROL and event_type == "ledger.upgraded":
            assert metadata["ledger"] == {"facts": 2}
            upgrades += 1
        elif not active:  # genesis introduces the key that it is sealed under
            assert (position, stream, event_type) == (1, CONTROL, "key.introduced")
        if position <= opened:
            assert purged or (key_id, mark) == opened_under
        elif active:
            assert (key_id, mark) == active[-1], f"position {position} is not under the active key"
        newest[stream], latest = (version, event_hash), at
        folded.append(
            Folded(
                position, stream, version, event_type, key_id, len(active), at, value, metadata,
                purged,
            )
        )  # fmt: skip
    assert epoch == len(active) + upgrades
    return folded


def _named(metadata: Mapping[str, Any]) -> tuple[str, bytes]:
    """The key that a control event is about."""
    key = metadata["ledger"]["key"]
    return key["id"], bytes.fromhex(key["fingerprint"])


def _opening(rows: Sequence[Sequence[Any]], generation: int) -> tuple[int, tuple[str, bytes]]:
    """Where a migrated generation was opened, and the one key that it lies under up to there."""
    said = [
        (row[1], json.loads(row[8]))
        for row in rows
        if (row[2], row[4]) == (CONTROL, "generation.opened")
    ]
    own = [(at, about) for at, about in said if about["ledger"]["generation"] == generation]
    assert len(own) == (1 if generation else 0)
    return (own[0][0], _named(own[0][1])) if own else (0, ("", b""))
