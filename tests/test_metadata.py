"""The readable part of an event: canonical bytes, bounds, and typed refusals."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inside import (
    MAX_METADATA,
    InvalidValue,
    LedgerError,
    Metadata,
    ValueTooLarge,
    encode_metadata,
    parse_metadata,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "event_v1.json").read_text(encoding="utf-8")
)
STORED = sorted({event["metadata"] for event in VECTORS["events"]})

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("stored", STORED)
def test_the_known_answers_are_encoded_byte_for_byte(stored: str) -> None:
    read = parse_metadata(stored)
    assert not read.malformed
    again = encode_metadata(
        actor=read.actor, reason=read.reason, user=read.user, ledger=read.ledger
    )
    assert again == stored


def test_keys_are_sorted_at_every_depth_and_no_white_space_is_stored() -> None:
    text = encode_metadata(
        actor="é", reason="r", user={"b": {"z": 1, "a": [1, 2]}, "a": None}, ledger={"y": 1}
    )
    assert text == (
        '{"actor":"é","ledger":{"y":1},"reason":"r","user":{"a":null,"b":{"a":[1,2],"z":1}}}'
    )


def test_empty_parts_are_left_out() -> None:
    assert encode_metadata() == "{}"
    assert encode_metadata(actor="", reason="", user={}, ledger={}) == "{}"


def test_the_caller_s_part_can_t_pose_as_the_ledger_s() -> None:
    text = encode_metadata(user={"ledger": {"state": "live"}, "actor": "mallory"})
    read = parse_metadata(text)
    assert read.ledger == {}
    assert read.actor is None
    assert read.user == {"ledger": {"state": "live"}, "actor": "mallory"}


def test_any_mapping_is_taken_and_tuples_become_lists() -> None:
    user = MappingProxyType({"a": OrderedDict(b=(1, 2))})
    assert encode_metadata(user=user) == '{"user":{"a":{"b":[1,2]}}}'


@given(st.dictionaries(st.text(max_size=5), plain_json), st.text(max_size=9) | st.none())
def test_what_was_encoded_reads_the_same(user: dict[str, Any], actor: str | None) -> None:
    read = parse_metadata(encode_metadata(actor=actor, user=user))
    assert read.user == user
    assert read.actor == (actor or None)


@given(
    st.dictionaries(
        st.text(max_size=5) | st.integers() | st.binary(max_size=3),
        st.recursive(
            st.floats() | st.binary(max_size=3) | st.characters(codec=None) | st.none(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(), inner),
        ),
        max_size=4,
    )
)
def test_anything_else_is_refused_with_a_typed_error(user: dict[Any, Any]) -> None:
    try:
        text = encode_metadata(user=user)
    except LedgerError:
        return
    assert parse_metadata(text).user == user


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for number in range(depth):
        value = {"k": value} if number % 2 else [value]
    return {"k": value}


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


@pytest.mark.parametrize(
    "user",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {1: "a"},
        {"a": {None: 1}},
        {"a": [{True: 1}]},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {"a": object()},
        {"a": "\ud800"},
        {"\udcff": 1},
        {"a": 10**5000},
        {"a": MappingProxyType({})},
        nested(40),
        nested(100_000),
        endless(),
        ["a"],
        "text",
    ],
    ids=lambda user: str(type(user)),
)
def test_what_is_not_plain_json_is_an_invalid_value(user: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode_metadata(user=user)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("value", [1, b"alice", ["alice"], "\ud800"])
def test_actor_and_reason_are_text(value: Any) -> None:
    with pytest.raises(InvalidValue):
        encode_metadata(actor=value)
    with pytest.raises(InvalidValue):
        encode_metadata(reason=value)


def test_the_bound_of_4_kib_is_on_the_bytes_of_the_caller_s_parts() -> None:
    overhead = len('{"user":{"n":""}}')
    fits = "x" * (MAX_METADATA - overhead)
    ledger = {"counts": "y" * 1000}  # the library's own part is not the caller's to pay for
    assert len(encode_metadata(user={"n": fits})) == MAX_METADATA
    assert len(encode_metadata(user={"n": fits}, ledger=ledger)) > MAX_METADATA
    with pytest.raises(ValueTooLarge):
        encode_metadata(user={"n": fits + "x"})
    with pytest.raises(ValueTooLarge):
        encode_metadata(user={"n": "é" * (len(fits) // 2 + 1)})
    with pytest.raises(ValueTooLarge):
        encode_metadata(actor="x" * MAX_METADATA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        '{"actor":1}',
        '{"reason":[]}',
        '{"ledger":"x"}',
        '{"user":[]}',
        '{"user":null}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"user":{"n":' + "9" * 5000 + "}}",
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_stored_text_that_is_no_metadata_reads_as_malformed_and_empty(text: str) -> None:
    assert parse_metadata(text) == Metadata(None, None, {}, {}, malformed=True)


@given(st.text() | st.binary() | st.integers() | st.none())
def test_reading_metadata_never_raises(text: Any) -> None:
    assert isinstance(parse_metadata(text), Metadata)
