"""Attestations of earlier verifications: what authenticates, and nothing else. No database."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from typing import Any

import pytest

import attestation_vectors
from control_streams import GENESIS, LEDGER, A, B, C, Stream, about, added, rotated
from inside import (
    Attestation,
    Control,
    EventType,
    Key,
    LedgerKey,
    attest,
    fold_control,
    verdict_on,
)

VECTORS = json.loads(attestation_vectors.FILE.read_text("utf-8"))
HELD = {key.fingerprint: key for key in (A, B)}
ROTATED = rotated(GENESIS, A, B, 2, position=10)
"""A is active up to position 10, B from position 11 on."""


def control(events: Stream = ROTATED) -> Control:
    return fold_control(LEDGER, 0, events)


def attested(key: LedgerKey = B, position: int = 20, ledger_id: bytes = LEDGER) -> Attestation:
    proof = Attestation(
        generation=0,
        format=1,
        position=position,
        level="latest",
        heads=7,
        event_hash=bytes([1]) * 32,
        control_hash=bytes([2]) * 32,
        head_keys=b"".join(sorted((A.fingerprint, B.fingerprint))),
        verified_at=1_790_000_000_000_000,
    )
    return attest(proof, ledger_id, key, key_id=key.id, release="1.0")


def test_what_the_active_key_attested_is_authentic() -> None:
    assert verdict_on(control(), HELD, attested()) == "authentic"
    assert attested().fingerprints == {A.fingerprint, B.fingerprint}


def test_it_is_authenticated_over_the_documented_bytes() -> None:
    def lp(word: bytes) -> bytes:
        return struct.pack(">H", len(word)) + word

    root = bytes(range(1, 33))  # B's
    namespace = b"secret-ledger/v1/"
    info = namespace + b"boot-attestation\x00" + LEDGER
    key = hmac.digest(root, info + b"\x01", "sha256")  # HKDF-Expand, its first block
    message = (
        namespace + b"boot-attestation\x00\x01" + LEDGER
        + struct.pack(">IQQq", 0, 20, 7, 1_790_000_000_000_000)
        + bytes([1]) * 32 + bytes([2]) * 32 + B.fingerprint
        + lp(b"latest") + lp(b"1.0") + lp(b"k-b")
        + lp(b"".join(sorted((A.fingerprint, B.fingerprint))))
    )  # fmt: skip
    assert attested().mac == hmac.new(key, message, hashlib.sha256).digest()


def row_of(vector: dict[str, Any]) -> Attestation:
    hashes = ("event_hash", "control_hash", "head_keys", "key_fingerprint", "mac")
    row = dict(vector["row"])
    return Attestation(**row | {column: bytes.fromhex(row[column]) for column in hashes})


def attested_anew(row: Attestation) -> Attestation:
    root = bytes.fromhex(VECTORS["roots"][row.key_id])
    key = Key.from_bytes(root, row.key_id).for_ledger(bytes.fromhex(VECTORS["ledger_id"]))
    proof = row._replace(release="", key_id="", key_fingerprint=b"", mac=b"")
    ledger_id = bytes.fromhex(VECTORS["ledger_id"])
    return attest(proof, ledger_id, key, key_id=row.key_id, release=row.release)


def test_the_vector_is_what_its_maker_makes() -> None:
    assert attestation_vectors.made() == VECTORS


@pytest.mark.parametrize("vector", VECTORS["attestations"], ids=lambda v: v["row"]["position"])
def test_each_known_answer_is_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    row = row_of(vector)
    assert attested_anew(row) == row


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["title"])
def test_no_row_of_the_refused_has_the_mac_of_what_it_says(vector: dict[str, Any]) -> None:
    row = row_of(vector)
    assert attested_anew(row).mac != row.mac


EDITS: list[dict[str, Any]] = [
    {"generation": 1},
    {"position": 21},
    {"position": 12},
    {"position": 0},
    {"position": -1},
    {"position": 2**63},
    {"level": "full"},
    {"heads": 8},
    {"event_hash": bytes(32)},
    {"event_hash": bytes(31)},
    {"control_hash": bytes(32)},
    {"head_keys": B.fingerprint},
    {"head_keys": b""},
    {"head_keys": A.fingerprint + B.fingerprint[:5]},
    {"verified_at": 1_790_000_000_000_001},
    {"release": "1.1"},
    {"release": "\udcff"},
    {"key_id": "k-a"},
    {"key_fingerprint": A.fingerprint},
    {"key_fingerprint": C.fingerprint},
    {"mac": bytes(32)},
    {"mac": b""},
    # The words pushed together differently: the encoding is injective.
    {"level": "latest1", "release": ".0"},
    {"release": "1.0k-", "key_id": "b"},
    {"event_hash": bytes([1]) * 31, "control_hash": bytes([1]) + bytes([2]) * 32},
    # What no column of these types can hold.
    {"position": "20"},
    {"position": 20.0},
    {"mac": "text"},
    {"key_fingerprint": None},
    {"format": "1"},
]


@pytest.mark.parametrize("edit", EDITS, ids=repr)
def test_an_edited_one_is_forged(edit: dict[str, Any]) -> None:
    assert verdict_on(control(), HELD, attested()._replace(**edit)) == "forged"


def test_one_of_another_ledger_is_forged_under_the_same_root_key_too() -> None:
    root = Key.from_bytes(bytes(range(1, 33)), "k-b")
    elsewhere = bytes(16)
    theirs = attested(root.for_ledger(elsewhere), ledger_id=elsewhere)
    assert verdict_on(control(), HELD, theirs) == "forged"
    disguised = theirs._replace(key_fingerprint=B.fingerprint)
    assert verdict_on(control(), HELD, disguised) == "forged"


def test_an_authentic_one_of_another_generation_is_forged_here() -> None:
    proof = Attestation(1, 1, 20, "latest", 0, bytes(32), bytes(32), b"", 0)
    theirs = attest(proof, LEDGER, B, key_id="k-b", release="1.0")
    assert verdict_on(control(), HELD, theirs) == "forged"


def test_an_old_key_attests_its_own_time_and_nothing_later() -> None:
    assert verdict_on(control(), HELD, attested(A, position=10)) == "authentic"
    assert verdict_on(control(), HELD, attested(A, position=11)) == "forged"
    assert verdict_on(control(), HELD, attested(B, position=11)) == "authentic"
    assert verdict_on(control(), HELD, attested(B, position=10)) == "forged"


def test_a_key_that_the_ledger_does_not_know_attests_nothing() -> None:
    held = {**HELD, C.fingerprint: C}
    assert verdict_on(control(), held, attested(C)) == "forged"


def test_one_under_a_key_that_is_not_held_can_t_be_told() -> None:
    only_new = {B.fingerprint: B}
    assert verdict_on(control(), only_new, attested(A, position=10)) == "unknown"


@pytest.mark.parametrize("end", [EventType.KEY_RETIRED, EventType.KEY_LOST])
def test_a_key_that_was_given_up_attests_nothing(end: str) -> None:
    events = added(ROTATED, end, about(A, counts={}), B)
    assert verdict_on(control(events), HELD, attested(A, position=10)) == "unknown"


def test_one_in_a_format_of_another_release_is_left_alone() -> None:
    assert verdict_on(control(), HELD, attested()._replace(format=2)) == "unknown"
