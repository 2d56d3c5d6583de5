"""Keys show no bytes, and a keyring holds each root once under one label."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
import os
import pickle
import pprint
from pathlib import Path
from typing import Any

import pytest
import rich
import rich.console
from hypothesis import given
from hypothesis import strategies as st

from inside import (
    InvalidKey,
    Key,
    Keyring,
    LedgerKey,
    Secret,
    check_key_id,
    default_key_id,
    fingerprint,
)
from leaks import shown_by

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "event_v1.json").read_text(encoding="utf-8")
)
ROOT = bytes.fromhex(VECTORS["root"])
LEDGER_ID = bytes.fromhex(VECTORS["ledger_id"])
CANARIES = (ROOT.hex(), repr(ROOT[16:28])[2:-1], VECTORS["key_text"], VECTORS["event_key"])


def key(n: int, key_id: str | None = None) -> Key:
    return Key.from_bytes(bytes([n]) + ROOT[1:], key_id)


def shows_key(text: str) -> bool:
    return any(canary in text for canary in CANARIES)


def test_a_parsed_key_is_the_key_of_its_bytes_and_prints_the_keygen_text() -> None:
    parsed = Key.parse(ROOT.hex(), "k-1")
    assert parsed == Key.from_bytes(ROOT, "k-1") == Key.parse(Secret(VECTORS["key_text"]), "k-1")
    assert parsed.text().reveal_text() == VECTORS["key_text"]


def test_generated_keys_differ_and_survive_their_own_text() -> None:
    made = [Key.generate("k") for _ in range(50)]
    assert all(a != b for a, b in itertools.combinations(made, 2))
    assert all(Key.parse(one.text(), "k") == one for one in made)


@pytest.mark.parametrize(
    "bad", [b"", ROOT[:31], ROOT + b"x", bytes(32), b"\xff" * 32, "x" * 31 + "y", None, 32]
)
def test_a_key_is_made_of_32_bytes_that_are_not_all_equal_and_never_of_text(bad: Any) -> None:
    with pytest.raises(InvalidKey):
        Key.from_bytes(bad)


@pytest.mark.parametrize("key_id", ["k", "k-2026-10", "a.b_c:d/e-9", "x" * 64])
def test_a_key_id_takes_the_characters_of_its_grammar(key_id: str) -> None:
    assert check_key_id(key_id) == key_id
    assert key(1, key_id).key_id == key_id


@pytest.mark.parametrize(
    "key_id", ["", "x" * 65, "K", "a b", "a\n", "\u00e9", "a=b", "a,b", "\u0661", 7, b"k"]
)
def test_another_key_id_is_an_invalid_key(key_id: Any) -> None:
    with pytest.raises(InvalidKey, match="a-z 0-9"):
        key(1, key_id)
    with pytest.raises(InvalidKey, match="a-z 0-9"):
        Key.parse(ROOT.hex(), key_id)


def test_a_key_given_as_its_own_id_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidKey, match="shape of a key") as caught:
        check_key_id(ROOT.hex())
    assert not shows_key(shown_by(caught.value))
    with pytest.raises(InvalidKey) as caught:
        check_key_id(VECTORS["key_text"])
    assert not shows_key(shown_by(caught.value))


@given(st.text(max_size=70))
def test_any_text_is_a_key_id_or_an_invalid_key(text: str) -> None:
    try:
        assert check_key_id(text) == text
    except InvalidKey:
        return
    assert 1 <= len(text) <= 64
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789._:/-")


def test_in_a_ledger_a_key_has_the_fingerprint_cipher_and_sub_keys_of_the_vectors() -> None:
    bound = Key.from_bytes(ROOT).for_ledger(LEDGER_ID)
    assert bound.fingerprint.hex() == VECTORS["key_fingerprint"]
    assert (bound.id, bound.labelled) == (VECTORS["default_key_id"], False)
    assert {label: bound.sub(label).hex() for label in VECTORS["labels"]} == VECTORS["labels"]
    for event in VECTORS["events"]:
        sealed = bytes.fromhex(event["sealed"])
        if sealed[0] == 1:
            bound.event_cipher.decrypt(sealed[1:13], sealed[13:], bytes.fromhex(event["context"]))


def test_a_label_stands_in_for_the_default_id() -> None:
    bound = Key.from_bytes(ROOT, "k-2026-10").for_ledger(LEDGER_ID)
    assert (bound.id, bound.labelled) == ("k-2026-10", True)
    assert default_key_id(fingerprint(ROOT, LEDGER_ID)) == VECTORS["default_key_id"]


def test_the_cipher_is_built_once() -> None:
    bound = Key.from_bytes(ROOT).for_ledger(LEDGER_ID)
    assert bound.event_cipher is bound.event_cipher


@pytest.mark.parametrize("label", ["event-encryption", "key-fingerprint", "", "other"])
def test_no_sub_key_is_given_out_under_a_label_that_is_not_reserved_for_it(label: Any) -> None:
    with pytest.raises(ValueError, match="no sub-key"):
        key(1).for_ledger(LEDGER_ID).sub(label)


@pytest.mark.parametrize("ledger_id", [b"", bytes(15), bytes(17)])
def test_a_key_is_bound_to_an_id_of_16_bytes_only(ledger_id: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes") as caught:
        Key.from_bytes(ROOT).for_ledger(ledger_id)
    assert not shows_key(shown_by(caught.value))


def holders() -> list[Any]:
    one = Key.from_bytes(ROOT, "k-1")
    return [one, Key.from_bytes(ROOT), one.for_ledger(LEDGER_ID), Keyring.of(one, [key(9)])]


@pytest.mark.parametrize("holder", holders(), ids=["key", "default", "ledger", "ring"])
def test_nothing_that_holds_a_key_shows_it(holder: Any) -> None:
    out = io.StringIO()
    rich.inspect(holder, console=rich.console.Console(file=out, width=200), all=True)
    attributes = [getattr(holder, name) for name in dir(holder) if not name.startswith("__")]
    shown = [out.getvalue(), repr(holder), str(holder), f"{holder}", pprint.pformat(holder)]
    assert not shows_key("".join(shown) + repr(attributes))
    assert not hasattr(holder, "__dict__")


def test_what_a_key_shows_is_its_id() -> None:
    assert repr(key(1, "k-1")) == "Key(id='k-1')"
    assert repr(key(1)) == "Key(default id)"
    mark = VECTORS["key_fingerprint"][:16]
    expected = f"LedgerKey(id='k-1', fingerprint={mark}...)"
    assert repr(Key.from_bytes(ROOT, "k-1").for_ledger(LEDGER_ID)) == expected


@pytest.mark.parametrize("holder", holders(), ids=["key", "default", "ledger", "ring"])
def test_nothing_that_holds_a_key_can_be_pickled_or_serialised(holder: Any) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(holder)
    with pytest.raises(TypeError):
        json.dumps(holder)


@pytest.mark.parametrize("holder", holders(), ids=["key", "default", "ledger", "ring"])
def test_nothing_that_holds_a_key_can_be_changed(holder: Any) -> None:
    for slot in dataclasses.fields(holder):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(holder, slot.name, None)


def test_a_keyring_can_be_deep_copied_within_the_process() -> None:
    ring = Keyring.of(key(1, "a"), [key(2)])
    assert copy.deepcopy(ring) == ring


def test_an_error_of_parse_holds_no_part_of_the_text_in_its_frames() -> None:
    with pytest.raises(InvalidKey) as caught:
        Key.parse(ROOT.hex() + "!")
    assert not shows_key(shown_by(caught.value))
    with pytest.raises(InvalidKey) as caught:
        Key.parse(VECTORS["key_text"] + "\ud800")
    assert not shows_key(shown_by(caught.value))


def test_a_bound_key_equals_itself_in_the_same_ledger_only() -> None:
    one = Key.from_bytes(ROOT)
    assert one.for_ledger(LEDGER_ID) == one.for_ledger(LEDGER_ID)
    assert len({one.for_ledger(LEDGER_ID), one.for_ledger(LEDGER_ID)}) == 1
    assert one.for_ledger(LEDGER_ID) != one.for_ledger(bytes(16))
    assert isinstance(one.for_ledger(LEDGER_ID), LedgerKey)


def test_a_keyring_gives_the_current_key_first_and_keeps_the_order_of_the_others() -> None:
    ring = Keyring.of(key(3), iter([key(1), key(2)]))
    assert ring.keys == (key(3), key(1), key(2))
    assert (ring.current, ring.previous) == (key(3), (key(1), key(2)))
    assert not ring.is_ephemeral


def test_a_key_that_is_listed_twice_is_held_once() -> None:
    assert Keyring.of(key(1), [key(1), key(2), key(2), key(1)]).keys == (key(1), key(2))
    assert Keyring.of(key(1, "a"), [key(1, "a")]).keys == (key(1, "a"),)


def test_of_a_key_listed_with_and_without_a_label_the_label_stays() -> None:
    assert Keyring.of(key(1, "a"), [key(1)]).keys == (key(1, "a"),)
    assert Keyring.of(key(1), [key(2), key(1, "a")]).keys == (key(1, "a"), key(2))


def test_a_key_under_two_labels_is_refused() -> None:
    for ring in ((key(1, "a"), [key(1, "b")]), (key(9), [key(1, "a"), key(1), key(1, "b")])):
        with pytest.raises(InvalidKey, match="two ids, a and b") as caught:
            Keyring.of(*ring)
        assert not shows_key(shown_by(caught.value))


def test_a_label_for_two_keys_is_refused() -> None:
    for ring in ((key(1, "a"), [key(2, "a")]), (key(9), [key(1, "a"), key(1), key(2, "a")])):
        with pytest.raises(InvalidKey, match=r"two different keys .* have the id a"):
            Keyring.of(*ring)


def test_an_ephemeral_keyring_is_marked_and_new_each_time() -> None:
    assert Keyring.ephemeral().is_ephemeral
    assert Keyring.ephemeral().current != Keyring.ephemeral().current


def test_from_env_reads_the_process_environment_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("OS_SECRET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_SECRET_KEY", ROOT.hex())
    monkeypatch.setenv("OS_SECRET_KEY_ID", "k-1")
    assert Keyring.from_env().keys == (Key.from_bytes(ROOT, "k-1"),)
