"""Every setting by variable or by file, never both, never blank, never shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from inside import (
    HOME,
    KEY,
    KEY_ID,
    LEDGER_ID,
    LEDGER_SCHEMA,
    LEDGER_TARGET_URL,
    LEDGER_URL,
    MODE,
    PREVIOUS_KEYS,
    Environment,
    EnvKeyProvider,
    InvalidKey,
    Keyring,
    LedgerError,
    Secret,
    keys_from_env,
    mode,
    parse_ledger_id,
    pinned_ledger_id,
    setting,
)
from key_material import (
    HEX,
    assert_shows_no_key,
    development,
    refused,
    write,
)

SETTINGS = [
    KEY, KEY_ID, PREVIOUS_KEYS, LEDGER_ID, LEDGER_URL, LEDGER_TARGET_URL, LEDGER_SCHEMA, MODE, HOME,
]  # fmt: skip
LEDGER_HEX = "000102030405060708090a0b0c0d0e0f"


# --- settings ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_given_by_variable_or_by_file(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "value", "some-value\n")
    assert setting({}, name) is None
    assert setting({name: " some-value\r\n"}, name) == "some-value"
    assert setting({f"{name}_FILE": path}, name) == "some-value"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_variable_beside_its_file_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "value", "hunter2")
    with pytest.raises(InvalidKey, match=f"both {name} and {name}_FILE are set") as caught:
        setting({name: "hunter2", f"{name}_FILE": path}, name)
    assert_shows_no_key(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("blank", ["", " ", "\n", "\t\r\n"])
def test_a_setting_that_is_set_but_blank_is_refused(name: str, blank: str, tmp_path: Path) -> None:
    path = write(tmp_path / "value", blank)
    for environ in ({name: blank}, {f"{name}_FILE": blank}, {f"{name}_FILE": path}):
        with pytest.raises(InvalidKey, match=f"{name}(_FILE)? is set but blank"):
            setting(environ, name)


@pytest.mark.parametrize("name", [KEY, PREVIOUS_KEYS, KEY_ID, MODE])
def test_a_blank_setting_is_not_taken_for_unset_by_the_keyring(name: str, tmp_path: Path) -> None:
    refused({KEY: HEX[0], name: ""}, InvalidKey, "blank")
    if name != MODE:
        refused(development(tmp_path / "home", **{name: ""}), InvalidKey, "blank")
        assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_no_text_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "value", b"hunter2\xff")
    for environ in ({name: "hunter2\udcff"}, {f"{name}_FILE": path}):
        with pytest.raises(InvalidKey, match="UTF-8") as caught:
            setting(environ, name)
        assert_shows_no_key(caught.value)


def test_an_environment_shows_no_value_in_its_repr_or_its_attributes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "hunter2")
    for environment in (Environment(os.environ), EnvKeyProvider()._settings):
        attributes = [getattr(environment, n) for n in dir(environment) if not n.startswith("__")]
        assert environment.get(KEY) == Secret("hunter2")
        assert "hunter2" not in repr(environment) + repr(attributes)


def test_no_function_that_is_handed_the_environment_shows_it_in_its_frame() -> None:
    environ = {"OTHER": "hunter2", KEY: "x", LEDGER_ID: "x", f"{MODE}_FILE": "/nowhere"}
    for call in (keys_from_env, Keyring.from_env, pinned_ledger_id, mode):
        with pytest.raises(LedgerError) as caught:
            call(environ)
        assert_shows_no_key(caught.value)


@pytest.mark.parametrize(
    "value", ["production", "staging", "test", "Development", "DEVELOPMENT", "dev", "1", "local"]
)
def test_any_mode_but_development_is_production(value: str) -> None:
    assert mode({MODE: value}) == mode({}) == "production"
    assert mode({MODE: "development"}) == mode({MODE: " development\n"}) == "development"


def test_the_mode_can_come_from_a_file_that_everybody_may_read(tmp_path: Path) -> None:
    assert mode({f"{MODE}_FILE": write(tmp_path / "m", "development\n", 0o644)}) == "development"


# --- the ledger id -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [LEDGER_HEX, LEDGER_HEX.upper(), "00010203-0405-0607-0809-0a0b0c0d0e0f", f" {LEDGER_HEX}\n"],
)
def test_the_pinned_ledger_id_is_hex_or_a_uuid_also_from_a_file(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "id", text, 0o644)
    expected = bytes.fromhex(LEDGER_HEX)
    assert pinned_ledger_id({}) is None
    assert pinned_ledger_id({LEDGER_ID: text}) == expected
    assert pinned_ledger_id({f"{LEDGER_ID}_FILE": path}) == expected


@pytest.mark.parametrize(
    "text",
    [
        LEDGER_HEX[:-1],
        LEDGER_HEX + "0",
        f"{{{LEDGER_HEX}}}",
        f"urn:uuid:{LEDGER_HEX}",
        "0001-02030405060708090a0b0c0d0e0f",
        LEDGER_HEX[:31] + "\u0661",
        LEDGER_HEX[:31] + "g",
        HEX[0],
    ],
)
def test_another_ledger_id_is_refused_with_the_way_out_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidKey, match="32 hex digits") as caught:
        pinned_ledger_id({LEDGER_ID: text})
    assert "init" in caught.value.hint
    assert_shows_no_key(caught.value)
    with pytest.raises(InvalidKey):
        parse_ledger_id(text)


def test_every_message_of_a_refusal_names_the_setting_it_is_about() -> None:
    for environ, name in (
        ({KEY: "x"}, KEY),
        ({KEY: HEX[0], PREVIOUS_KEYS: "x"}, PREVIOUS_KEYS),
        ({KEY: HEX[0], f"{KEY_ID}_FILE": "/nowhere"}, f"{KEY_ID}_FILE"),
        ({f"{MODE}_FILE": "/nowhere"}, f"{MODE}_FILE"),
    ):
        assert re.search(rf"\b{name}\b", refused(environ, LedgerError).message)
