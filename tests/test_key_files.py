"""Key files are read with suspicion; a key is minted in development only, and only once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from inside import (
    DEV_MARK,
    HOME,
    KEY,
    KEY_ID,
    LEDGER_ID,
    LEDGER_TARGET_URL,
    LEDGER_URL,
    MAX_FILE_BYTES,
    MODE,
    PREVIOUS_KEYS,
    InsecureKeyFile,
    InvalidKey,
    Key,
    Keyring,
    LocalKeyProvider,
    NoStableKey,
    setting,
)
from key_material import (
    BASE64,
    HEX,
    KEYS,
    assert_shows_no_key,
    development,
    refused,
    without_privileges,
    write,
)
from leaks import shown_by

PRIVATE = [KEY, PREVIOUS_KEYS, LEDGER_URL, LEDGER_TARGET_URL]


# --- key files ---------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o666, 0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
@pytest.mark.parametrize("name", PRIVATE)
def test_a_file_with_a_secret_that_is_open_to_group_or_others_is_refused(
    bits: int, name: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "value", HEX[0], bits)
    with pytest.raises(InsecureKeyFile, match=f"{name}_FILE .*mode {bits:04o}") as caught:
        setting({f"{name}_FILE": path}, name)
    assert caught.value.hint == f'chmod 600 "${name}_FILE"'
    assert_shows_no_key(caught.value)
    Path(path).chmod(0o400)
    assert setting({f"{name}_FILE": path}, name) == HEX[0]


@pytest.mark.parametrize("name", [KEY_ID, LEDGER_ID, MODE, HOME])
def test_a_file_with_no_secret_may_be_open_to_all(name: str, tmp_path: Path) -> None:
    assert setting({f"{name}_FILE": write(tmp_path / "v", "x", 0o666)}, name) == "x"


def test_an_open_key_file_is_accepted_on_a_read_only_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {f"{KEY}_FILE": write(tmp_path / "key", HEX[0], 0o644)}
    for flag, accepted in ((os.ST_RDONLY | os.ST_NOSUID, True), (os.ST_NOSUID, False)):
        status = types.SimpleNamespace(f_flag=flag)
        monkeypatch.setattr(
            "secret_ledger.config.key_files.os.fstatvfs", lambda fd, status=status: status
        )
        if accepted:
            assert Keyring.from_env(environ).keys == (KEYS[0],)
        else:
            refused(environ, InsecureKeyFile)


def test_the_way_to_close_a_key_file_is_one_that_its_reader_can_go(tmp_path: Path) -> None:
    path = write(tmp_path / "key", HEX[0], 0o644)
    error = refused({f"{KEY}_FILE": path}, InsecureKeyFile, "is open to group or others")
    assert error.hint == 'chmod 600 "$OS_SECRET_KEY_FILE"'
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)  # pytest's are closed to others
    with without_privileges():
        own = os.geteuid()
        error = refused({f"{KEY}_FILE": path}, InsecureKeyFile, "is open to group or others")
    assert f"as root, chown {own} " in error.hint


@pytest.mark.parametrize("name", [KEY, PREVIOUS_KEYS, LEDGER_URL, LEDGER_ID, MODE])
def test_a_byte_order_mark_is_named_and_the_way_to_be_rid_of_it(name: str, tmp_path: Path) -> None:
    for encoding, said in (("utf-8-sig", "byte order mark"), ("utf-16", "is UTF-16 text")):
        path = tmp_path / "file"
        path.write_bytes(f"{HEX[0]}\n".encode(encoding))
        path.chmod(0o600)
        with pytest.raises(InvalidKey, match=said) as caught:
            setting({f"{name}_FILE": str(path)}, name)
        assert f"{name}_FILE" in caught.value.message
        assert "UTF-8" in caught.value.hint
        assert HEX[0] not in str(caught.value)
    with pytest.raises(InvalidKey, match="byte order mark"):
        setting({name: f"\ufeff{HEX[0]}"}, name)


def test_a_symbolic_link_to_a_closed_file_is_a_key_file(tmp_path: Path) -> None:
    write(tmp_path / "real", HEX[0])
    (tmp_path / "link").symlink_to("real")
    assert Keyring.from_env({f"{KEY}_FILE": str(tmp_path / "link")}).keys == (KEYS[0],)


def test_a_symbolic_link_is_judged_by_the_file_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "real", HEX[0], 0o644)
    (tmp_path / "link").symlink_to("real")
    refused({f"{KEY}_FILE": str(tmp_path / "link")}, InsecureKeyFile, "open to group")


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "directory", tmp_path / "fifo", Path("/dev/null")):
        refused({f"{KEY}_FILE": str(path)}, InsecureKeyFile, "no regular file")


def test_a_missing_key_file_is_an_error_and_never_no_key(tmp_path: Path) -> None:
    environ = development(tmp_path / "home", **{f"{KEY}_FILE": str(tmp_path / "missing")})
    refused(environ, InsecureKeyFile, f"{KEY}_FILE .* can't be read: No such file")
    assert not (tmp_path / "home").exists()


def test_an_unreadable_key_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "key", HEX[0], 0)
    with without_privileges():
        refused({f"{KEY}_FILE": path}, InsecureKeyFile, "can't be read: Permission denied")


def test_a_key_where_a_path_belongs_is_not_shown(tmp_path: Path) -> None:
    for text in (HEX[0], BASE64[0], "/" + HEX[0], HEX[0] + "\0", HEX[0] * 99):
        for name in (KEY, PREVIOUS_KEYS):
            refused({f"{name}_FILE": text}, InsecureKeyFile, f"{name}_FILE .* can't be read")


def test_a_key_file_of_more_than_64_kib_is_refused(tmp_path: Path) -> None:
    text = " " * (MAX_FILE_BYTES - 64) + HEX[0]
    path = write(tmp_path / "key", text)
    assert Keyring.from_env({f"{KEY}_FILE": path}).keys == (KEYS[0],)
    write(tmp_path / "key", " " + text)
    refused({f"{KEY}_FILE": path}, InvalidKey, "65536 bytes")


# --- development -------------------------------------------------------------------


def test_development_mints_one_key_and_keeps_it(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    first = Keyring.from_env(development(home))
    assert Keyring.from_env(development(home, **{KEY_ID: "dev"})).current.text() == (
        first.current.text()
    )
    assert not first.is_ephemeral
    assert [path.name for path in home.iterdir()] == ["dev-key"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "dev-key").stat().st_mode) == 0o600
    comment, text, end = (home / "dev-key").read_text().split("\n")
    assert comment.startswith(f"{DEV_MARK}: ")
    assert Key.parse(text) == first.current
    assert end == ""


def test_without_a_home_setting_the_key_is_minted_below_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Keyring.from_env({MODE: "development"})
    assert (tmp_path / ".secret-ledger" / "dev-key").exists()


@pytest.mark.parametrize("home", ["", "relative", None])
def test_without_a_home_directory_it_says_how_to_give_one(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user without a name
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    error = refused({MODE: "development"}, NoStableKey, "no home directory")
    assert f"set {HOME}=" in error.hint
    assert list(tmp_path.iterdir()) == []


def test_a_relative_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused({MODE: "development", HOME: "home"}, InvalidKey, "absolute")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_set_wins_over_the_minted_one(tmp_path: Path) -> None:
    assert Keyring.from_env(development(tmp_path / "home", **{KEY: HEX[0]})).keys == (KEYS[0],)
    assert not (tmp_path / "home").exists()


async def test_the_local_provider_mints_in_development_only(tmp_path: Path) -> None:
    for environ in ({}, {MODE: "staging"}, {MODE: "production"}, {"PYTEST_CURRENT_TEST": "x"}):
        with pytest.raises(NoStableKey):
            await LocalKeyProvider(tmp_path / "home", environ).keyring()
    assert list(tmp_path.iterdir()) == []
    ring = await LocalKeyProvider(tmp_path / "home", {MODE: "development"}).keyring()
    assert await LocalKeyProvider(environ=development(tmp_path / "home")).keyring() == ring
    assert Keyring.from_env(development(tmp_path / "home")) == ring


DAMAGED = {
    "empty": "",
    "cut": f"{DEV_MARK}: x\nslk1_AAAA",
    "comment only": f"{DEV_MARK}: x\n",
    "no comment": HEX[0],
    "another comment": f"# my own key\n{HEX[0]}\n",
    "a wrong character": f"{DEV_MARK}: x\n{KEYS[0].text().reveal_text()[:-1]}!",
    "two keys": f"{DEV_MARK}: x\n{HEX[0]}\n{HEX[1]}\n",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_corrupt_development_key_is_an_error_and_never_replaced(
    text: str, tmp_path: Path
) -> None:
    write(tmp_path / "dev-key", text)
    refused(development(tmp_path), InvalidKey, "damaged")
    assert (tmp_path / "dev-key").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["dev-key"]


@pytest.mark.parametrize("bits", [0o666, 0o640, 0o604, 0o660])
def test_a_development_key_that_is_open_to_others_is_an_error_and_never_replaced(
    bits: int, tmp_path: Path
) -> None:
    Keyring.from_env(development(tmp_path))
    before = (tmp_path / "dev-key").read_bytes()
    (tmp_path / "dev-key").chmod(bits)
    error = refused(development(tmp_path), InsecureKeyFile, "open to group or others")
    assert error.hint == f"chmod 600 {tmp_path}/dev-key"
    assert (tmp_path / "dev-key").read_bytes() == before


def test_an_unreadable_development_key_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    Keyring.from_env(development(tmp_path))
    before = (tmp_path / "dev-key").read_bytes()
    (tmp_path / "dev-key").chmod(0)
    with without_privileges():
        refused(development(tmp_path), InsecureKeyFile, "can't be read")
    assert (tmp_path / "dev-key").read_bytes() == before


def test_what_else_stands_in_the_place_of_the_development_key_is_never_replaced(
    tmp_path: Path,
) -> None:
    (tmp_path / "dev-key").symlink_to(tmp_path / "nowhere")
    refused(development(tmp_path), InsecureKeyFile, "No such file")
    assert [path.name for path in tmp_path.iterdir()] == ["dev-key"]
    (tmp_path / "dev-key").unlink()
    (tmp_path / "dev-key").mkdir()
    refused(development(tmp_path), InsecureKeyFile, "no regular file")


def test_no_key_is_minted_into_or_read_from_a_directory_that_others_can_write_to(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o770)
    refused(development(tmp_path), InsecureKeyFile, "group or others can write")
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)
    Keyring.from_env(development(tmp_path))
    tmp_path.chmod(0o702)
    refused(development(tmp_path), InsecureKeyFile, "group or others can write")


def test_a_directory_that_can_not_be_made_or_written_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    refused(development(tmp_path / "file" / "home"), InsecureKeyFile, "Not a directory")
    (tmp_path / "home").mkdir(mode=0o500)
    with without_privileges():
        refused(development(tmp_path / "home"), InsecureKeyFile, "Permission denied|can't be read")


def test_a_failure_while_minting_leaves_no_key_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("fsync", "link"):
        with monkeypatch.context() as patch:

            def fail(*args: object, **kwargs: object) -> None:
                raise OSError(28, "No space left on device", HEX[0])

            patch.setattr(f"secret_ledger.config.key_files.os.{call}", fail)
            refused(development(tmp_path), InsecureKeyFile, "No space left")
        assert list(tmp_path.iterdir()) == []


def test_the_key_is_whole_and_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        steps.append(f"fsync {kind}")
        real_fsync(fd)

    def link(source: Any, target: Any) -> None:
        text = Path(source).read_text()
        Key.parse(text.split("\n")[1])
        assert stat.S_IMODE(Path(source).stat().st_mode) == 0o600
        steps.append("link")
        real_link(source, target)

    monkeypatch.setattr("secret_ledger.config.key_files.os.fsync", fsync)
    monkeypatch.setattr("secret_ledger.config.key_files.os.link", link)
    Keyring.from_env(development(tmp_path))
    assert steps == ["fsync file", "link", "fsync directory"]


RACER = """
import sys
from secret_ledger import Keyring
environ = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("ready", flush=True)
sys.stdin.readline()
print(Keyring.from_env(environ).current.text().reveal_text())
"""


def test_processes_that_race_to_mint_end_with_one_key(tmp_path: Path) -> None:
    arguments = [part for pair in development(tmp_path / "home").items() for part in pair]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8
    assert len(set(outputs)) == 1
    assert outputs[0].startswith("slk1_")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["dev-key"]


def test_a_process_that_loses_the_race_takes_the_key_that_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = f"{DEV_MARK}: x\n{HEX[0]}\n"

    def lose(source: Any, target: Any) -> None:
        write(tmp_path / "dev-key", winner)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr("secret_ledger.config.key_files.os.link", lose)
    assert Keyring.from_env(development(tmp_path)).keys == (KEYS[0],)
    assert (tmp_path / "dev-key").read_text() == winner


@pytest.mark.parametrize("value", [None, "production", "staging"])
def test_a_minted_file_never_satisfies_production_wherever_it_is_named(
    value: str | None, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    minted = Keyring.from_env(development(home)).current
    text = (home / "dev-key").read_text()
    write(tmp_path / "os-secret-key", "\n" + text)
    base = {} if value is None else {MODE: value}
    for environ in (
        {f"{KEY}_FILE": str(home / "dev-key")},
        {KEY: text},
        {"CREDENTIALS_DIRECTORY": str(tmp_path)},
        {KEY: HEX[0], f"{PREVIOUS_KEYS}_FILE": str(home / "dev-key")},
    ):
        error = refused({**base, **environ}, NoStableKey, "minted for development")
        assert minted.text().reveal_text()[5:20] not in shown_by(error)


def test_a_minted_file_is_a_key_file_in_development(tmp_path: Path) -> None:
    minted = Keyring.from_env(development(tmp_path / "a")).current
    file = {f"{KEY}_FILE": str(tmp_path / "a" / "dev-key")}
    assert Keyring.from_env(development(tmp_path / "b", **file)).keys == (minted,)
    assert not (tmp_path / "b").exists()
