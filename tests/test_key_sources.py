"""Where a keyring comes from, and how it is refused."""

from __future__ import annotations

import base64
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inside import (
    HOME,
    KEY,
    KEY_ID,
    LEDGER_ID,
    MODE,
    PREVIOUS_KEYS,
    EnvKeyProvider,
    InsecureKeyFile,
    InvalidKey,
    Key,
    Keyring,
    LedgerError,
    NoStableKey,
    keys_from_env,
    pinned_ledger_id,
)
from key_material import (
    BASE64,
    HEX,
    KEYS,
    ROOTS,
    development,
    refused,
    write,
)

# --- the current key ---------------------------------------------------------------


@pytest.mark.parametrize("text", [HEX[0], BASE64[0], KEYS[0].text().reveal_text()])
def test_the_current_key_comes_from_its_variable_or_its_file(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "key", text + "\n")
    assert Keyring.from_env({KEY: text}).keys == (KEYS[0],)
    assert Keyring.from_env({f"{KEY}_FILE": path}).keys == (KEYS[0],)


async def test_the_provider_reads_the_settings_when_it_is_asked_and_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {f"{KEY}_FILE": write(tmp_path / "key", HEX[0])}
    provider = EnvKeyProvider(environ)
    assert (await provider.keyring()).keys == (KEYS[0],)
    write(tmp_path / "key", HEX[1])
    assert (await provider.keyring()).keys == (KEYS[1],)

    threads: list[int] = []
    real = keys_from_env

    def spy(environ: Any) -> Any:
        threads.append(threading.get_ident())
        return real(environ)

    monkeypatch.setattr("secret_ledger.config.providers.keys_from_env", spy)
    await provider.keyring()
    assert threads != [threading.get_ident()]


def test_the_label_of_the_current_key_can_be_set_also_by_file(tmp_path: Path) -> None:
    path = write(tmp_path / "id", "k-2026-10\n", 0o644)
    for environ in ({KEY_ID: "k-2026-10"}, {f"{KEY_ID}_FILE": path}):
        assert Keyring.from_env({KEY: HEX[0], **environ}).current.key_id == "k-2026-10"


def test_a_bad_label_is_refused_by_the_name_of_its_setting_and_a_key_there_is_not_shown() -> None:
    refused({KEY: HEX[0], KEY_ID: "Bad Label"}, InvalidKey, f"{KEY_ID}: a key id takes")
    refused({KEY: HEX[0], KEY_ID: HEX[1]}, InvalidKey, f"{KEY_ID}: .* shape of a key")
    refused({KEY: HEX[0], KEY_ID: BASE64[1]}, InvalidKey, f"{KEY_ID}: a key id takes")


JUNK = {
    "before base64": "junk " + BASE64[0],
    "after base64": BASE64[0] + "junk",
    "inside base64": BASE64[0][:9] + "!" + BASE64[0][9:],
    "quotes": f'"{HEX[0]}"',
    "0x": "0x" + HEX[0],
    "a comment": f"# the key\n{HEX[0]}",
    "too short": HEX[0][:-2],
    "all bytes equal": "ab" * 32,
}


@pytest.mark.parametrize("text", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("value", ["production", "development"])
def test_junk_around_a_key_is_refused_in_every_mode_from_every_source(
    text: str, value: str, tmp_path: Path
) -> None:
    base = {MODE: value, HOME: str(tmp_path / "home")}
    path = write(tmp_path / "os-secret-key", text)
    refused({**base, KEY: text}, InvalidKey, f"{KEY}: ")
    refused({**base, f"{KEY}_FILE": path}, InvalidKey, f"{KEY}_FILE: ")
    refused({**base, "CREDENTIALS_DIRECTORY": str(tmp_path)}, InvalidKey, "os-secret-key")
    refused({**base, KEY: HEX[1], PREVIOUS_KEYS: text}, InvalidKey, "entry 1 of")
    assert not (tmp_path / "home").exists()


# --- no key ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "production", "staging", "test", "Development"])
def test_without_a_key_every_mode_but_development_refuses_and_mints_nothing(
    value: str | None, tmp_path: Path
) -> None:
    environ = {"HOME": str(tmp_path), HOME: str(tmp_path / "home")}
    if value is not None:
        environ[MODE] = value
    error = refused(environ, NoStableKey, "no key was made, and nothing was written")
    for place in (KEY, f"{KEY}_FILE", "$CREDENTIALS_DIRECTORY/os-secret-key"):
        assert place in error.message
    assert len(error.details["looked_at"]) == 3
    assert "export OS_SECRET_KEY=$(secret-ledger keygen)" in error.hint
    assert 'OS_SECRET_KEY_FILE="$PWD/os-secret-key"' in error.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "TESTING", "DEBUG", "ENV", "TOX_ENV_DIR"],
)
def test_the_variables_of_test_runners_mint_no_key(name: str, tmp_path: Path) -> None:
    refused({name: "development", HOME: str(tmp_path / "home")}, NoStableKey)
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_development_on_the_disk_is_no_key_for_production(tmp_path: Path) -> None:
    Keyring.from_env(development(tmp_path / "home"))
    refused({HOME: str(tmp_path / "home")}, NoStableKey)


# --- systemd -----------------------------------------------------------------------


def test_a_systemd_credential_is_the_key_when_no_setting_is_whatever_its_mode(
    tmp_path: Path,
) -> None:
    write(tmp_path / "os-secret-key", HEX[0], 0o444)
    write(tmp_path / "key", HEX[1])
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert Keyring.from_env(environ).keys == (KEYS[0],)
    assert Keyring.from_env({**environ, KEY: HEX[1]}).keys == (KEYS[1],)
    assert Keyring.from_env({**environ, f"{KEY}_FILE": str(tmp_path / "key")}).keys == (KEYS[1],)


def test_a_key_file_within_the_credentials_directory_may_have_any_mode(tmp_path: Path) -> None:
    inside, outside = tmp_path / "creds", tmp_path / "creds-not"
    inside.mkdir()
    outside.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(inside)}
    path = write(inside / "key", HEX[0], 0o440)
    assert Keyring.from_env({**environ, f"{KEY}_FILE": path}).keys == (KEYS[0],)
    write(outside / "key", HEX[0], 0o440)
    (inside / "link").symlink_to(outside / "key")
    for escape in (outside / "key", inside / ".." / "creds-not" / "key", inside / "link"):
        refused({**environ, f"{KEY}_FILE": str(escape)}, InsecureKeyFile, "open to group")


def test_a_relative_credentials_directory_exempts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "key", HEX[0], 0o644)
    refused({"CREDENTIALS_DIRECTORY": ".", f"{KEY}_FILE": path}, InsecureKeyFile, "open to group")


def test_a_credential_that_is_blank_or_unreadable_is_an_error_and_never_no_key(
    tmp_path: Path,
) -> None:
    environ = development(tmp_path / "home", CREDENTIALS_DIRECTORY=str(tmp_path))
    write(tmp_path / "os-secret-key", "\n")
    refused(environ, InvalidKey, "blank")
    (tmp_path / "os-secret-key").unlink()
    (tmp_path / "os-secret-key").mkdir()
    refused(environ, InsecureKeyFile, "no regular file")
    assert not (tmp_path / "home").exists()


def test_a_missing_credential_is_named_among_the_places_looked_at(tmp_path: Path) -> None:
    error = refused({"CREDENTIALS_DIRECTORY": str(tmp_path)}, NoStableKey)
    assert f"{tmp_path}/os-secret-key" in error.message


# --- previous keys -----------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "\n", " \r\n"])
def test_an_empty_file_of_previous_keys_holds_none(content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "previous", content)
    environ = {KEY: HEX[0], f"{PREVIOUS_KEYS}_FILE": path}
    assert Keyring.from_env(environ).keys == (KEYS[0],)
    write(tmp_path / "previous", HEX[1])  # filled at the first rotation, without a restart
    assert Keyring.from_env(environ).keys == (KEYS[0], KEYS[1])
    refused({KEY: HEX[0], PREVIOUS_KEYS: content}, InvalidKey, "blank")
    refused({KEY: HEX[0], f"{PREVIOUS_KEYS}_FILE": content}, InvalidKey, "blank")
    refused({KEY: HEX[0], f"{KEY}_ID_FILE": write(tmp_path / "id", content)}, InvalidKey, "blank")


@pytest.mark.parametrize(
    "text",
    [
        f"{HEX[1]},{HEX[2]}",
        f"{HEX[1]}\n{HEX[2]}\n",
        f"  {HEX[1]} ,\r\n\r\n {HEX[2]}  \r\n",
        f"{BASE64[1]},{BASE64[2]}",
        f"{BASE64[1]}\n{BASE64[2].rstrip('=')}",
    ],
)
def test_previous_keys_are_separated_by_commas_or_newlines(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "keys", text)
    for environ in ({PREVIOUS_KEYS: text}, {f"{PREVIOUS_KEYS}_FILE": path}):
        assert Keyring.from_env({KEY: HEX[0], **environ}).previous == (KEYS[1], KEYS[2])


def test_a_previous_key_can_have_an_id_that_base64_padding_does_not_confuse() -> None:
    slk1 = KEYS[3].text().reveal_text()
    text = f"old={BASE64[1]},{BASE64[2]},k/3={slk1}"
    assert Keyring.from_env({KEY: HEX[0], PREVIOUS_KEYS: text}).previous == (
        Key.from_bytes(ROOTS[1], "old"),
        Key.from_bytes(ROOTS[2]),
        Key.from_bytes(ROOTS[3], "k/3"),
    )


@given(
    st.lists(
        st.tuples(
            st.none() | st.from_regex(r"[a-z0-9._:/-]{1,40}", fullmatch=True),
            st.binary(min_size=32, max_size=32).filter(lambda root: len(set(root)) > 1),
            st.sampled_from(["hex", "base64", "bare", "slk1"]),
        ),
        min_size=1,
        max_size=4,
        unique_by=(lambda e: e[0] or e[1], lambda e: e[1]),
    )
)
def test_previous_keys_in_any_spelling_come_back_with_their_ids(entries: list[Any]) -> None:
    def spell(root: bytes, how: str) -> str:
        text = base64.urlsafe_b64encode(root).decode()
        return {
            "hex": root.hex(),
            "base64": text,
            "bare": text.rstrip("="),
            "slk1": Key.from_bytes(root).text().reveal_text(),
        }[how]

    text = ",".join((f"{i}=" if i else "") + spell(root, how) for i, root, how in entries)
    ring = Keyring.from_env({KEY: Key.generate().text().reveal_text(), PREVIOUS_KEYS: text})
    assert ring.previous == tuple(Key.from_bytes(root, i) for i, root, _ in entries)


@given(st.text(st.characters(exclude_categories=()), max_size=120))
def test_no_text_in_any_setting_fails_untyped(text: str) -> None:
    for name in (KEY, KEY_ID, PREVIOUS_KEYS, MODE, f"{KEY}_FILE", f"{PREVIOUS_KEYS}_FILE"):
        with contextlib.suppress(LedgerError):
            Keyring.from_env({KEY: HEX[0], name: text})
    for name in (LEDGER_ID, f"{LEDGER_ID}_FILE"):
        with contextlib.suppress(LedgerError):
            pinned_ledger_id({name: text})


@pytest.mark.parametrize(
    "text", [f"{HEX[1]},", f",{HEX[1]}", f"{HEX[1]},,{HEX[2]}", f"{HEX[1]}, \n ,{HEX[2]}", ","]
)
def test_a_blank_between_commas_is_a_failed_substitution_and_refused(text: str) -> None:
    refused({KEY: HEX[0], PREVIOUS_KEYS: text}, InvalidKey, r"entry \d of .* blank")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{HEX[1]},junk", "entry 2 of .*length"),
        (f"{HEX[1]}\n# old\n{HEX[2]}", "entry 2 of .*white space"),
        (f"Old={HEX[1]}", "entry 1 of .*key id"),
        (f"={HEX[1]}", "entry 1 of .*key id"),
        (f"{HEX[2]}={HEX[1]}", "entry 1 of .*shape of a key"),
        (f"{BASE64[2]}{BASE64[1]}", "entry 1 of .*key id"),
        (f"{HEX[1]} {HEX[2]}", "entry 1 of .*white space"),
        (f"{HEX[1]};{HEX[2]}", "entry 1 of .*neither hex nor base64"),
        ("old=short", "entry 1 of "),
        (f"a={HEX[1]},a={HEX[2]}", "two different keys"),
        (f"a={HEX[1]},b={HEX[1]}", "two ids"),
    ],
)
def test_a_bad_entry_of_the_previous_keys_is_refused_by_its_number(text: str, rule: str) -> None:
    refused({KEY: HEX[0], PREVIOUS_KEYS: text}, InvalidKey, rule)


def test_the_current_key_among_the_previous_ones_is_held_once() -> None:
    environ = {KEY: HEX[0], KEY_ID: "now", PREVIOUS_KEYS: f"{BASE64[0]},{HEX[1]}"}
    assert Keyring.from_env(environ).keys == (Key.from_bytes(ROOTS[0], "now"), KEYS[1])


@pytest.mark.parametrize("value", ["production", "development"])
def test_previous_keys_without_a_current_one_are_refused_and_nothing_is_minted(
    value: str, tmp_path: Path
) -> None:
    environ = {MODE: value, HOME: str(tmp_path / "home"), PREVIOUS_KEYS: HEX[1]}
    refused(environ, NoStableKey, "no current key")
    assert not (tmp_path / "home").exists()
