"""The bytes of an event: the known answers, and that no other bytes ever open."""

from __future__ import annotations

import contextlib
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from inside import (
    NO_HASH,
    Event,
    Secret,
    TamperedEvent,
    context_of,
    derive,
    event_hash,
    fingerprint,
    frame,
    hash_of,
    is_purged,
    open_event,
    open_sealed,
    purge,
    seal,
    seal_event,
    tampered,
    unframe,
)
from leaks import shown_by

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "event_v1.json").read_text(encoding="utf-8")
)
ROOT = bytes.fromhex(VECTORS["root"])
LEDGER = bytes.fromhex(VECTORS["ledger_id"])
FINGERPRINT = bytes.fromhex(VECTORS["key_fingerprint"])
CIPHER = AESGCM(bytes.fromhex(VECTORS["event_key"]))
OTHER_CIPHER = AESGCM(bytes(range(32)))


def event_of(vector: dict[str, Any]) -> Event:
    return Event(
        generation=vector["generation"],
        position=vector["position"],
        stream=vector["stream"],
        version=vector["version"],
        event_type=vector["event_type"],
        key_id=vector["key_id"],
        key_fingerprint=FINGERPRINT,
        recorded_at=vector["recorded_at_us"],
        metadata=vector["metadata"],
        prev_hash=bytes.fromhex(vector["prev_hash"]),
        sealed=bytes.fromhex(vector["sealed"]),
        event_hash=bytes.fromhex(vector["event_hash"]),
    )


EVENTS = [event_of(vector) for vector in VECTORS["events"]]
DATA = [bytes.fromhex(vector["plaintext"]) for vector in VECTORS["events"]]
ONE = EVENTS[2]

each_event = pytest.mark.parametrize(
    "vector", VECTORS["events"], ids=lambda v: f"{v['generation']}/{v['position']}"
)


def test_the_keys_of_the_vectors_are_derived_from_their_root() -> None:
    assert derive(ROOT, "event-encryption", LEDGER) == bytes.fromhex(VECTORS["event_key"])
    assert fingerprint(ROOT, LEDGER) == FINGERPRINT


@each_event
def test_each_known_answer_is_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    event = event_of(vector)
    context = context_of(LEDGER, event)
    assert context.hex() == vector["context"]
    data, nonce = bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["nonce"])
    assert seal(CIPHER, context, data, nonce).hex() == vector["sealed"]
    assert event_hash(context, event.sealed).hex() == vector["event_hash"]
    assert hash_of(LEDGER, event).hex() == vector["event_hash"]


@each_event
def test_each_known_seal_opens(vector: dict[str, Any]) -> None:
    opened = open_event(CIPHER, LEDGER, event_of(vector))
    assert opened.hex() == vector["plaintext"]


def test_the_known_answers_chain_where_they_are_one_stream() -> None:
    chain = [e for e in EVENTS if e.generation == 0 and e.stream == "app/db-password"]
    assert [e.prev_hash for e in chain] == [NO_HASH, *(e.event_hash for e in chain[:-1])]


@pytest.mark.parametrize("refused", VECTORS["refused"], ids=lambda v: v["why"])
def test_each_known_forgery_is_refused(refused: dict[str, str]) -> None:
    context, sealed = bytes.fromhex(refused["context"]), bytes.fromhex(refused["sealed"])
    with pytest.raises(TamperedEvent):
        open_sealed(CIPHER, context, sealed)


def test_two_seals_of_one_value_differ_so_that_equal_values_do_not_show() -> None:
    context = context_of(LEDGER, ONE)
    first, second = seal(CIPHER, context, b"value"), seal(CIPHER, context, b"value")
    assert first[1:13] != second[1:13]
    assert first[13:] != second[13:]


def test_values_of_nearby_lengths_have_seals_of_one_length() -> None:
    context = context_of(LEDGER, ONE)
    assert len({len(seal(CIPHER, context, bytes(n))) for n in range(61)}) == 1
    assert len(seal(CIPHER, context, bytes(61))) == len(seal(CIPHER, context, b"")) + 64


def test_boundaries_between_fields_are_part_of_the_context() -> None:
    a = ONE._replace(stream="a|b", event_type="c")
    b = ONE._replace(stream="a", event_type="b|c")
    c = ONE._replace(event_type="secret.writtenk", key_id="-1")
    d = ONE._replace(event_type="secret.written", key_id="k-1")
    assert len({context_of(LEDGER, e) for e in (a, b, c, d)}) == 4


# --- purged events ------------------------------------------------------------------------


@each_event
def test_a_purged_event_keeps_its_hash_and_no_longer_opens(vector: dict[str, Any]) -> None:
    event = event_of(vector)
    gone = event._replace(sealed=purge(event.sealed))
    assert gone.sealed == b"\x00\x01" + sha256(event.sealed).digest()
    assert is_purged(gone.sealed)
    assert not is_purged(event.sealed)
    assert hash_of(LEDGER, gone) == event.event_hash
    with pytest.raises(TamperedEvent, match="no known suite"):
        open_event(CIPHER, LEDGER, gone)


@pytest.mark.parametrize(
    "remains",
    [
        b"\x00",
        b"\x00\x01",
        b"\x00\x01" + bytes(31),
        b"\x00\x01" + bytes(33),
        b"\x00\x02" + bytes(32),
        b"\x00\x00" + bytes(32),
    ],
    ids=bytes.hex,
)
def test_purged_remains_of_another_shape_are_tampering(remains: bytes) -> None:
    with pytest.raises(TamperedEvent, match="wrong shape"):
        hash_of(LEDGER, ONE._replace(sealed=remains))


# --- any bytes ----------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_what_was_framed_comes_back_and_frames_are_multiples_of_64(data: bytes) -> None:
    framed = frame(data)
    assert len(framed) % 64 == 0
    assert len(framed) - len(data) - 4 < 64
    assert unframe(framed) == data


@given(st.binary(max_size=200) | st.binary(max_size=124).map(lambda b: b + bytes(-len(b) % 64)))
def test_only_what_frame_gives_is_a_frame(framed: bytes) -> None:
    try:
        data = unframe(framed)
    except ValueError:
        return
    assert frame(data) == framed


@given(st.binary(max_size=2000))
def test_whatever_was_sealed_opens_to_the_same_bytes(data: bytes) -> None:
    event = seal_event(CIPHER, LEDGER, ONE._replace(sealed=b"", event_hash=b""), data)
    assert open_event(CIPHER, LEDGER, event) == data
    assert hash_of(LEDGER, event) == event.event_hash


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"\x01" + b))
def test_no_sealed_bytes_but_the_sealed_ones_open(sealed: bytes) -> None:
    with pytest.raises(TamperedEvent):
        open_event(CIPHER, LEDGER, ONE._replace(sealed=sealed))


@given(st.data())
def test_a_seal_with_any_change_in_it_does_not_open(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(ONE.sealed) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(ONE.sealed)
    changed[index] ^= change
    with pytest.raises(TamperedEvent):
        open_event(CIPHER, LEDGER, ONE._replace(sealed=bytes(changed)))
    length = data.draw(st.integers(0, len(ONE.sealed) - 1))
    for cut in (ONE.sealed[:length], ONE.sealed + ONE.sealed[:length] + b"\x00"):
        with pytest.raises(TamperedEvent):
            open_event(CIPHER, LEDGER, ONE._replace(sealed=cut))


@given(st.data())
def test_a_seal_does_not_open_under_any_other_context(data: st.DataObject) -> None:
    context = context_of(LEDGER, ONE)
    changed = bytearray(context)
    changed[data.draw(st.integers(0, len(context) - 1))] ^= data.draw(st.integers(1, 255))
    other = data.draw(st.sampled_from([bytes(changed), context[:-1], context + b"\x00", b""]))
    with pytest.raises(TamperedEvent):
        open_sealed(CIPHER, other, ONE.sealed)


def test_a_seal_does_not_open_under_another_key_or_in_another_ledger() -> None:
    with pytest.raises(TamperedEvent):
        open_event(OTHER_CIPHER, LEDGER, ONE)
    with pytest.raises(TamperedEvent):
        open_event(CIPHER, bytes(16), ONE)


# --- any row ------------------------------------------------------------------------------

# What a column can hold once somebody has taken the types off the table.
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**32, 2**63, 2**64, 10**5000, -(10**5000)]),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["\ud800", "x" * 65536, "\x00", "$ledger"]),
    st.binary(max_size=40),
    st.sampled_from([bytes(31), bytes(32), bytes(33), b"\x00\x01" + bytes(32), b"\x01" * 200]),
    st.lists(st.integers(0, 255), max_size=40),
)


@given(st.fixed_dictionaries(dict.fromkeys(Event._fields, anything)))
def test_a_row_of_any_content_is_tampered_and_never_another_error(row: dict[str, Any]) -> None:
    event = Event(**row)
    with pytest.raises(TamperedEvent):
        open_event(CIPHER, LEDGER, event)
    with contextlib.suppress(TamperedEvent):
        assert len(hash_of(LEDGER, event)) == 32


@given(st.sampled_from(Event._fields[:-1]), anything)
def test_one_field_of_any_content_keeps_the_row_from_opening(name: str, value: Any) -> None:
    event = ONE._replace(**{name: value})
    # A bool is the number that it equals: the row of a database holds numbers.
    if event == ONE:
        return
    with pytest.raises(TamperedEvent):
        open_event(CIPHER, LEDGER, event)
    with contextlib.suppress(TamperedEvent):
        assert hash_of(LEDGER, event) != ONE.event_hash


@given(anything, anything, anything)
def test_the_message_about_a_row_can_be_shown_whatever_the_row_holds(
    stream: Any, version: Any, position: Any
) -> None:
    row = ONE._replace(stream=stream, version=version, position=position)
    error = tampered(row, "damaged")
    assert str(error).isprintable()
    assert len(str(error)) < 8000
    str(error).encode()


class _OutOfMemory:
    """A cipher for which memory runs out."""

    def encrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
        raise MemoryError

    def decrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
        raise MemoryError


def test_where_memory_runs_out_no_frame_holds_the_value() -> None:
    cipher = cast(AESGCM, _OutOfMemory())
    sealed = seal(CIPHER, b"context", b"")
    for call in (
        lambda: seal(cipher, b"context", Secret("hunter2-canary")),
        lambda: seal_event(cipher, LEDGER, ONE, Secret("hunter2-canary")),
        lambda: open_sealed(cipher, b"context", sealed),
    ):
        with pytest.raises(MemoryError) as caught:
            call()
        assert caught.value.__context__ is None
        assert "hunter2-canary" not in shown_by(caught.value)
