"""One spelling for a name, and a refusal that says what is wrong and where."""

from __future__ import annotations

import contextlib
import enum
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inside import CONTROL_STREAM, MAX_NAME_BYTES, InvalidName, normalise_name, normalise_prefix


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "app/db-password",
        "caf\u00e9/\u5bc6",
        "A b/ c ",
        ".",
        "../x",
        "a/$b",
        "x" * 512,
        "\u00e9" * 256,
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # a joiner is spelling in Persian
    ],
)
def test_a_name_in_normal_form_stays_as_it_is(name: str) -> None:
    assert normalise_name(name) == name


def test_two_spellings_of_a_name_are_one_name() -> None:
    assert normalise_name("cafe\u0301") == normalise_name("caf\u00e9") == "caf\u00e9"


def test_the_bound_of_512_bytes_holds_after_normalisation() -> None:
    assert normalise_name("e\u0301" * 256) == "\u00e9" * 256  # 768 bytes before
    with pytest.raises(InvalidName, match="512 bytes"):
        normalise_name("\u00e9" * 257)
    with pytest.raises(InvalidName, match="512 bytes"):
        normalise_name("a" * 513)
    with pytest.raises(InvalidName, match="512 bytes"):
        normalise_name("\u0344" * 200)  # 400 bytes before, 800 after


def test_an_enormous_name_is_refused_before_it_is_normalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("secret_ledger.model.names.unicodedata", None)
    with pytest.raises(InvalidName, match="512 bytes") as caught:
        normalise_name("a" * 10_000_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "number"), [("/a", 1), ("a/", 2), ("a//b", 2), ("/", 1), ("a/b///c", 3)]
)
def test_an_empty_segment_is_refused_by_its_number(name: str, number: int) -> None:
    with pytest.raises(InvalidName, match=rf"segment {number} .* is empty"):
        normalise_name(name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InvalidName, match="empty"):
        normalise_name("")


CONTROLS = [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))]
REORDERING = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]


@pytest.mark.parametrize(
    "bad", [*CONTROLS, *REORDERING, *"\u2028\u2029\ud800\udbff\udfff"], ids=ascii
)
def test_a_control_character_is_refused_by_its_place_in_names_and_prefixes(bad: str) -> None:
    for check in (normalise_name, normalise_prefix):
        with pytest.raises(InvalidName, match=rf"character 3 .* U\+{ord(bad):04X}") as caught:
            check("ab" + bad + "c")
        str(caught.value).encode()  # a message can always be printed
        assert bad not in str(caught.value)


def test_every_control_character_surrogate_and_separator_of_unicode_is_refused() -> None:
    for c in map(chr, range(0x110000)):
        if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}:
            with pytest.raises(InvalidName):
                normalise_name("a" + c + "b")


@pytest.mark.parametrize("name", [CONTROL_STREAM, "$", "$anything", "$ledger/x"])
def test_a_leading_dollar_is_reserved(name: str) -> None:
    with pytest.raises(InvalidName, match="reserved"):
        normalise_name(name)
    with pytest.raises(InvalidName, match="reserved"):
        normalise_prefix(name)


@pytest.mark.parametrize("name", [None, b"bytes", 7, ["a"]])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    for check in (normalise_name, normalise_prefix):
        with pytest.raises(InvalidName, match=type(name).__name__):
            check(name)


def test_the_result_is_plain_text_also_for_the_member_of_an_enumeration() -> None:
    class Names(str, enum.Enum):  # noqa: UP042 - StrEnum would have an honest __str__
        API = "api/key"

    for check in (normalise_name, normalise_prefix):
        assert type(check(Names.API)) is str
        assert check(Names.API) == "api/key"


@pytest.mark.parametrize("prefix", ["", "a", "a/", "app/db-pass", "app/db/"])
def test_a_prefix_is_empty_or_whole_segments_or_part_of_one(prefix: str) -> None:
    assert normalise_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "a//b", "x" * 513])
def test_a_prefix_that_no_name_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidName):
        normalise_prefix(prefix)


def test_a_prefix_is_normalised_as_names_are() -> None:
    assert normalise_prefix("cafe\u0301/") == "caf\u00e9/"


@given(st.text(st.characters(exclude_categories=()), max_size=600))
def test_any_text_is_a_name_of_the_contract_or_an_invalid_name(text: str) -> None:
    try:
        name = normalise_name(text)
    except InvalidName:
        return
    assert name == normalise_name(name) == unicodedata.normalize("NFC", text)
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert all(name.split("/"))
    assert not name.startswith("$")
    assert not any(unicodedata.category(c) in {"Cc", "Cs"} for c in name)


@given(st.text("ab\u00e9/$. \u5bc6", min_size=1, max_size=20), st.integers(0, 20))
def test_what_a_name_begins_with_is_a_prefix(text: str, length: int) -> None:
    try:
        name = normalise_name(text)
    except InvalidName:
        return
    assert normalise_prefix(name[:length]) == name[:length]


@given(st.text(st.characters(exclude_categories=()), max_size=600))
def test_no_text_makes_a_prefix_fail_untyped(text: str) -> None:
    with contextlib.suppress(InvalidName):
        assert unicodedata.is_normalized("NFC", normalise_prefix(text))
