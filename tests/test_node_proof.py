"""What proves a node's line, and what doesn't. No database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control_streams import GENESIS, LEDGER, A, B, C, Stream, about, added, rotated
from inside import Announcement, EventType, Judge, Key, LedgerKey, ProofVerdict, fold_control, prove

VECTORS = json.loads((Path(__file__).parent / "vectors/node_proof_v1.json").read_text())
VECTOR_LEDGER = bytes.fromhex(VECTORS["ledger_id"])
ROTATED = rotated(GENESIS, A, B, 2, position=10)
LINE = Announcement(
    "id", "web-1", "host", 7, "1.0", "k-b", B.fingerprint, None, None, "[]", 20, "", 10_000_000, 0
)


def line_of(vector: dict[str, Any]) -> Announcement:
    line = dict(vector["line"])
    for column in ("key_fingerprint", "pending_fingerprint"):
        line[column] = None if line[column] is None else bytes.fromhex(line[column])
    return Announcement(**line)


def vector_key() -> LedgerKey:
    return Key.from_bytes(bytes.fromhex(VECTORS["root"]), "k-a").for_ledger(VECTOR_LEDGER)


def verdict(
    proof: object,
    line: Announcement = LINE,
    *held: LedgerKey,
    events: Stream = ROTATED,
) -> ProofVerdict:
    keys = {key.fingerprint: key for key in held or (A, B)}
    return Judge(fold_control(LEDGER, 0, events), keys).verdict(line, proof)


@pytest.mark.parametrize("vector", VECTORS["proofs"], ids=lambda v: v["title"])
def test_a_proof_is_made_over_the_documented_bytes(vector: dict[str, Any]) -> None:
    key = vector_key()
    assert key.sub("node-proof").hex() == VECTORS["sub_key"]
    assert prove(VECTOR_LEDGER, vector["epoch"], line_of(vector), key).hex() == vector["proof"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["title"])
def test_what_no_holder_of_the_key_wrote_so_is_not_proven(vector: dict[str, Any]) -> None:
    line, given = line_of(vector), bytes.fromhex(vector["proof"])
    epoch = int.from_bytes(given[1:9], "big") if len(given) == 41 else 1
    assert prove(VECTOR_LEDGER, epoch, line, vector_key()) != given


def test_a_line_is_proven_by_the_key_that_it_says_it_seals_with() -> None:
    assert verdict(prove(LEDGER, 2, LINE, B)) == "proven"
    assert verdict(prove(LEDGER, 2, LINE, A)) == "unproven"
    assert verdict(None) == "unproven"


EDITS: list[dict[str, Any]] = [
    {"node_id": "other"}, {"node": "web-2"}, {"host": "h"}, {"pid": 8}, {"release": "1.1"},
    {"key_id": "k-a"}, {"key_fingerprint": A.fingerprint}, {"pending_id": "k-c"},
    {"pending_fingerprint": C.fingerprint}, {"readable": "[[]]"}, {"position": 21},
    {"reason": "stale_key"}, {"heartbeat": 60_000_000}, {"last_seen": 1}, {"node": 5},
    {"node": None}, {"pid": "7"}, {"pid": -1}, {"pid": 2**64}, {"last_seen": 2**63},
    {"key_fingerprint": b"short"}, {"key_fingerprint": None}, {"node": "\udcff"},
    {"node": "x" * 70_000}, {"node_id": "idw", "node": "eb-1"}, {"pending_fingerprint": 5},
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: repr(edit)[:60])
def test_an_edited_line_is_unproven(edit: dict[str, Any]) -> None:
    assert verdict(prove(LEDGER, 2, LINE, B), LINE._replace(**edit)) == "unproven"


def test_a_line_of_another_ledger_is_unproven_under_the_same_root_key_too() -> None:
    elsewhere = bytes(16)
    key = Key.from_bytes(bytes(range(1, 33)), "k-b").for_ledger(elsewhere)
    assert verdict(prove(elsewhere, 2, LINE, key)) == "unproven"


def test_a_line_under_a_key_that_is_not_held_can_t_be_told() -> None:
    assert verdict(prove(LEDGER, 2, LINE, B), LINE, A) == "unknown"


def test_a_key_that_the_ledger_does_not_know_proves_nothing() -> None:
    stranger = LINE._replace(key_fingerprint=C.fingerprint)
    assert verdict(prove(LEDGER, 2, stranger, C), stranger, A, B, C) == "unproven"


@pytest.mark.parametrize("end", [EventType.KEY_RETIRED, EventType.KEY_LOST])
def test_a_key_that_has_ended_proves_nothing(end: str) -> None:
    line = LINE._replace(key_fingerprint=A.fingerprint, key_id="k-a")
    proof = prove(LEDGER, 2, line, A)
    assert verdict(proof, line) == "proven"
    ended = added(ROTATED, end, about(A), position=13, key=B)
    assert verdict(proof, line, events=ended) == "unproven"


def test_an_epoch_that_a_node_should_have_left_long_ago_makes_its_line_stale() -> None:
    activated = next(e for e in ROTATED if e.position == 11).recorded_at
    patience = 3 * LINE.heartbeat
    for last_seen, expected in (
        (activated + patience, "proven"),
        (activated + patience + 1, "stale"),
    ):
        line = LINE._replace(last_seen=last_seen, key_fingerprint=A.fingerprint, key_id="k-a")
        assert verdict(prove(LEDGER, 1, line, A), line) == expected
        assert verdict(prove(LEDGER, 2, line, A), line) == "proven"
