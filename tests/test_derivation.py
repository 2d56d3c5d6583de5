"""What is derived from a root, byte for byte, and which texts spell a root."""

from __future__ import annotations

import base64
import json
import re
import string
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inside import (
    NAMESPACE,
    InvalidKey,
    Secret,
    default_key_id,
    derive,
    fingerprint,
    key_text,
    parse_key_text,
    root_problem,
)
from leaks import shown_by

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "event_v1.json").read_text(encoding="utf-8")
)
ROOT = bytes.fromhex(VECTORS["root"])
LEDGER_ID = bytes.fromhex(VECTORS["ledger_id"])

# Holds + and / in base64, so that the two alphabets differ.
OTHER_ROOT = sha256(b"another root 5").digest()
HEX = OTHER_ROOT.hex()
BASE64 = base64.b64encode(OTHER_ROOT).decode()
URL_SAFE = base64.urlsafe_b64encode(OTHER_ROOT).decode()
SLK1 = key_text(OTHER_ROOT)

roots = st.binary(min_size=32, max_size=32).filter(lambda root: not root_problem(root))


def test_the_fingerprint_and_every_sub_key_are_those_of_the_vectors() -> None:
    assert fingerprint(ROOT, LEDGER_ID).hex() == VECTORS["key_fingerprint"]
    assert derive(ROOT, "event-encryption", LEDGER_ID).hex() == VECTORS["event_key"]
    assert len(VECTORS["labels"]) == 4
    for label, expected in VECTORS["labels"].items():
        assert derive(ROOT, label, LEDGER_ID).hex() == expected


def test_the_default_key_id_and_the_text_of_keygen_are_those_of_the_vectors() -> None:
    assert default_key_id(fingerprint(ROOT, LEDGER_ID)) == VECTORS["default_key_id"]
    assert key_text(ROOT) == VECTORS["key_text"]
    assert parse_key_text(VECTORS["key_text"]) == ROOT
    assert NAMESPACE == b"secret-ledger/v1/"


def test_a_root_has_another_fingerprint_in_every_ledger() -> None:
    assert fingerprint(ROOT, LEDGER_ID) != fingerprint(ROOT, bytes(16))


def test_nothing_is_derived_from_a_root_that_is_none_or_for_an_id_that_is_none() -> None:
    for root in (b"", ROOT[:31], ROOT + b"x", bytes(32)):
        with pytest.raises(InvalidKey):
            derive(root, "event-encryption", LEDGER_ID)
    for ledger_id in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match="16 bytes") as caught:
            derive(ROOT, "event-encryption", ledger_id)
        assert repr(ROOT) not in shown_by(caught.value)


def test_the_roots_of_these_tests_tell_the_alphabets_apart() -> None:
    assert {"+", "/"} <= set(BASE64)
    assert {"-", "_"} <= set(URL_SAFE)


ACCEPTED = {
    "hex": HEX,
    "upper-case hex": HEX.upper(),
    "base64": BASE64,
    "base64 without padding": BASE64.rstrip("="),
    "base64url": URL_SAFE,
    "base64url without padding": URL_SAFE.rstrip("="),
    "keygen": SLK1,
    "white space around": f" \t\r\n{HEX}\n\v\f ",
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_a_key_can_be_spelt_as_hex_base64_base64url_or_keygen_prints_it(text: str) -> None:
    assert parse_key_text(text) == OTHER_ROOT
    assert parse_key_text(Secret(text)) == OTHER_ROOT


LOOSE_BITS = BASE64[:42] + chr(ord(BASE64[42]) + 1)  # one bit more after the 32nd byte
BAD_CHECKSUM = SLK1[:-1] + ("A" if SLK1[-1] != "A" else "B")

REFUSED = {
    "blank": ("", "blank"),
    "white space only": (" \n", "blank"),
    "0x before hex": ("0x" + HEX, "0x"),
    "0X before hex": ("0X" + HEX, "0x"),
    "a digit too few": (HEX[:-1], "length"),
    "a digit too many": (HEX + "0", "length"),
    "a byte too few": (base64.b64encode(OTHER_ROOT[:31]).decode(), "length"),
    "a byte too many": (base64.b64encode(OTHER_ROOT + b"x").decode(), "length"),
    "white space inside": (HEX[:32] + " " + HEX[32:], "white space"),
    "a line break inside": (BASE64[:20] + "\n" + BASE64[20:], "white space"),
    "two keys in lines": (HEX + "\n" + HEX, "white space"),
    "a quote before": ('"' + HEX + '"', "neither hex nor base64"),
    "a dollar inside": (BASE64[:20] + "$" + BASE64[20:], "neither hex nor base64"),
    "junk inside base64": (BASE64[:20] + "!" + BASE64[21:], "neither hex nor base64"),
    "junk after base64": (BASE64 + "!", "neither hex nor base64"),
    "a byte order mark": ("\ufeff" + HEX, "neither hex nor base64"),
    "a space that is not ASCII": (HEX + "\u00a0", "neither hex nor base64"),
    "digits of another script": (HEX[:63] + "\u0663", "neither hex nor base64"),
    "a lone surrogate": (HEX[:63] + "\ud800", "neither hex nor base64"),
    "a comment after": (HEX + " # prod", "white space"),
    "padding twice": (BASE64 + "=", "length"),
    "padding inside": ("=" + BASE64[:-1], "before its end"),
    "two keys joined": (BASE64 + BASE64, "before its end"),
    "two alphabets": (BASE64.replace("+", "-").rstrip("="), "mixes"),
    "trailing bits": (LOOSE_BITS, "canonical"),
    "trailing bits and padding": (LOOSE_BITS + "=", "canonical"),
    "a wrong checksum": (BAD_CHECKSUM, "checksum"),
    "a swap in keygen's text": (SLK1[:8] + SLK1[9] + SLK1[8] + SLK1[10:], "checksum"),
    "keygen's text cut": (SLK1[:-1], "slk1_"),
    "keygen's text cut to the length of base64url": (SLK1[:43], "slk1_"),
    "keygen's text padded": (SLK1 + "=", "slk1_"),
    "keygen's text in upper case": (SLK1.upper(), "length"),
    "zero bytes in hex": ("00" * 32, "equal"),
    "equal bytes in hex": ("ab" * 32, "equal"),
    "zero bytes in base64": ("A" * 43, "equal"),
    "equal bytes in keygen's text": (key_text(b"\x07" * 32), "equal"),
    "a passphrase": ("correct horse battery staple", "white space"),
    "an assignment": (f"OS_SECRET_KEY={HEX}", "before its end"),
}


@pytest.mark.parametrize(("text", "rule"), REFUSED.values(), ids=REFUSED)
def test_another_text_is_refused_by_the_rule_it_breaks_and_shown_nowhere(
    text: str, rule: str
) -> None:
    with pytest.raises(InvalidKey, match=re.escape(rule)) as caught:
        parse_key_text(text)
    assert_no_part_of(text, caught.value)


def assert_no_part_of(text: str, error: BaseException) -> None:
    shown = shown_by(error)
    assert error.__context__ is None
    for start in range(len(text) - 12):
        assert text[start : start + 12] not in shown


def test_the_trailing_bits_of_the_test_decode_to_the_same_bytes_for_a_lax_decoder() -> None:
    assert base64.b64decode(LOOSE_BITS + "=") == OTHER_ROOT


def test_a_secret_that_is_no_text_is_an_invalid_key() -> None:
    with pytest.raises(InvalidKey):
        parse_key_text(Secret(b"\xff" * 64))


@pytest.mark.parametrize("text", [None, b"a" * 64, 7])
def test_what_is_neither_text_nor_secret_is_an_invalid_key(text: Any) -> None:
    with pytest.raises(InvalidKey, match=type(text).__name__):
        parse_key_text(text)


@given(roots)
def test_every_root_comes_back_from_each_of_its_spellings(root: bytes) -> None:
    standard, url_safe = base64.b64encode(root).decode(), base64.urlsafe_b64encode(root).decode()
    for text in (root.hex(), standard, standard[:-1], url_safe, url_safe[:-1], key_text(root)):
        assert parse_key_text(text) == root


SPELLING = string.ascii_letters + string.digits + "+/-_= \n"


@given(
    st.text(max_size=80)
    | st.text(st.characters(exclude_categories=()), max_size=80)
    | st.text(SPELLING, min_size=40, max_size=70)
    | st.from_regex(r"(slk1_|0x)?[0-9A-Za-z_-]{43,64}=?", fullmatch=True)
)
@example("slk1_")
@example("=" * 44)
def test_any_text_spells_a_root_canonically_or_is_an_invalid_key(text: str) -> None:
    try:
        root = parse_key_text(text)
    except InvalidKey:
        return
    spelt = text.strip(" \t\r\n\v\f")
    standard, url_safe = base64.b64encode(root).decode(), base64.urlsafe_b64encode(root).decode()
    assert len(root) == 32
    assert spelt in {standard, standard[:-1], url_safe, url_safe[:-1], key_text(root)} or (
        spelt.lower() == root.hex()
    )


@given(roots, st.integers(5, 52), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_no_single_wrong_character_of_keygens_text_goes_unnoticed(
    root: bytes, place: int, wrong: str
) -> None:
    text = key_text(root)
    if text[place] == wrong:
        return
    with pytest.raises(InvalidKey):
        parse_key_text(text[:place] + wrong + text[place + 1 :])
