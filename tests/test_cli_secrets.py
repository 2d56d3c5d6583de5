"""The command line writes and reads secrets, on both databases: transcripts."""

from __future__ import annotations

import asyncio
import base64
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attacker import attacking
from cli_session import Cli
from inside import MAX_VALUE

CANARY = b"canary-value-90c1"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    return cli


def test_a_value_comes_back_byte_for_byte(cli: Cli, tmp_path: Path) -> None:
    for value in (b"text", b"", b"line\n", b"\n\n", bytes(range(256)), "h\u00e9 \u2713".encode()):
        assert cli("put", "a/b", "--allow-empty", value=value).code == 0
        assert cli("get", "a/b").raw == value
    file = tmp_path / "value"
    file.write_bytes(b"from a file\n")
    assert cli("put", "a/b", "--file", str(file)).code == 0
    assert cli("get", "a/b").raw == b"from a file\n"


def test_a_life_of_a_secret_as_lines_of_fields(cli: Cli) -> None:
    wrote = cli("put", "db/pw", "--expect", "0", "--actor", "alice", value=b"one")
    assert wrote.rows[0][:4] == ["db/pw", "1", "live", "secret.written"]
    assert wrote.rows[0][5:7] == ["alice", "k-old"]
    assert re.fullmatch(r"[0-9a-f]{64}", wrote.rows[0][7])
    assert cli("put", "db/pw", value=b"two").rows[0][1] == "2"
    assert cli("put", "other", value=b"x").code == 0
    assert [row[0] for row in cli("list").rows] == ["db/pw", "other"]
    assert [row[0] for row in cli("list", "db/").rows] == ["db/pw"]
    assert cli("get", "db/pw", "--version", "1").raw == b"one"

    assert cli("delete", "db/pw", "--expect", "2").rows[0][1:4] == [
        "3",
        "deleted",
        "secret.deleted",
    ]
    assert cli("get", "db/pw").code == 21
    assert [row[0] for row in cli("list").rows] == ["other"]
    assert [row[2] for row in cli("list", "--all").rows] == ["deleted", "live"]
    assert cli("restore", "db/pw", "--version", "1").rows[0][1] == "4"
    assert cli("get", "db/pw").raw == b"one"

    assert cli("destroy", "db/pw", "--reason", "leaked", "--yes").rows[0][2] == "destroyed"
    assert cli("get", "db/pw", "--version", "1").code == 21
    history = cli("history", "db/pw").rows
    assert [row[1] for row in history] == ["1", "2", "3", "4", "5"]
    assert cli("history", "db/pw", "--json").json["versions"][-1]["reason"] == "leaked"


def test_a_secret_is_read_as_of_a_time(cli: Cli) -> None:
    first = cli("put", "a", "--json", value=b"one").json["recorded_at"]
    second = cli("put", "a", "--json", value=b"two").json["recorded_at"]
    assert datetime.fromisoformat(first).tzinfo == UTC
    assert cli("get", "a", "--at", first).raw == b"one"
    assert cli("get", "a", "--at", second).raw == b"two"
    assert cli("get", "a", "--at", "2020-01-01T00:00:00+02:00").code == 20


def test_json_holds_the_value_in_get_alone(cli: Cli) -> None:
    wrote = cli("put", "a", "--metadata", '{"ticket": 7}', "--json", value=CANARY)
    assert wrote.json["metadata"] == {"ticket": 7}
    got = cli("get", "a", "--json").json
    assert got["value"] == CANARY.decode()
    assert "value_base64" not in got
    assert got == {**wrote.json, "value": CANARY.decode()}
    cli("put", "b", value=b"\xff\x00")
    assert base64.b64decode(cli("get", "b", "--json").json["value_base64"]) == b"\xff\x00"


def test_no_command_but_get_ever_shows_a_value(cli: Cli) -> None:
    shown = b""
    for words in (
        ["put", "a"], ["put", "a", "--expect", "0"], ["put", "a", "--debug", "--expect", "9"],
        ["put", "$a"], ["put", "a", "--json"], ["list", "--json"], ["history", "a", "--json"],
        ["verify", "--level", "full", "--json"], ["keys", "status"], ["nodes"], ["health"],
        ["projections", "check"], ["delete", "a"], ["restore", "a"],
        ["destroy", "a", "--reason", "x", "--yes"], ["get", "a", "--debug"],
        ["put", "a", CANARY.decode()], ["put", "a", "--debug", f"--value={CANARY.decode()}"],
        ["put", "a", f"-{CANARY.decode()}", "--json"], ["put", "a", "--file", CANARY.decode()],
        ["put", "a", "--metadata", CANARY.decode()], ["put", "a", "--expect", CANARY.decode()],
        ["put", "a", "--schema", "s", "--schema", CANARY.decode()],
    ):  # fmt: skip
        done = cli(*words, value=CANARY)
        shown += done.raw + done.err.encode()
    assert shown
    for form in (CANARY, CANARY.hex().encode(), base64.b64encode(CANARY)):
        assert form not in shown


def test_a_value_at_the_bound_fits_and_one_byte_more_does_not(cli: Cli) -> None:
    assert cli("put", "a", value=bytes(MAX_VALUE)).code == 0
    over = cli("put", "a", value=bytes(MAX_VALUE + 1))
    assert over.code == 23
    assert over.remarks("error:") == ["error: the value of a has more than 1,048,576 bytes"]
    assert cli("get", "a").raw == bytes(MAX_VALUE)


def test_an_empty_value_replaces_nothing_unless_it_is_allowed(cli: Cli, tmp_path: Path) -> None:
    cli("put", "a", value=b"one")
    empty, line = tmp_path / "empty", tmp_path / "line"
    empty.write_bytes(b"")
    line.write_bytes(b"\r\n")
    for words, value in (
        (["put", "a"], b""), (["put", "a"], b"\n"), (["put", "a"], b"\n\r\n"),
        (["put", "new", "--json"], b""),
        (["put", "a", "--file", str(empty)], b"x"), (["put", "a", "--file", str(line)], b"x"),
    ):  # fmt: skip
        refused = cli(*words, value=value)
        assert (refused.code, refused.raw) == (2, b""), words
        assert "nothing was written" in refused.err
        assert "--allow-empty" in refused.err
    assert [row[:2] for row in cli("list").rows] == [["a", "1"]]
    assert cli("put", "a", "--allow-empty", "--file", str(empty)).code == 0
    assert cli("get", "a").raw == b""
    assert cli("put", "a", value=b" ").code == 0


def test_a_line_break_that_echo_adds_is_kept_and_remarked(cli: Cli) -> None:
    assert len(cli("put", "a", value=b"typed\n").remarks("note: the value ends")) == 1
    assert not cli("put", "a", value=b"several\nlines\n").remarks("note: the value ends")
    assert not cli("put", "a", value=b"plain").remarks("note: the value ends")


def test_the_actor_is_the_user_unless_another_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    assert cli("put", "a", value=b"1").rows[0][5] == "carol"
    assert cli("put", "a", "--actor", "ci", value=b"1").rows[0][5] == "ci"
    assert cli("put", "a", "--actor", "", "--json", value=b"1").json["actor"] is None


def test_no_text_of_the_database_breaks_a_line_or_moves_a_cursor(cli: Cli) -> None:
    cli("put", "tab name", "--actor", "a\tb\n\x1b[2J\\", value=b"1")
    (row,) = cli("list").rows
    assert row[5] == "a\\tb\\n\\u001b[2J\\\\"
    assert cli("list", "--json").json["secrets"][0]["actor"] == "a\tb\n\x1b[2J\\"


def test_a_name_in_another_normal_form_is_the_same_secret(cli: Cli) -> None:
    cli("put", "cafe\u0301", value=b"1")
    assert cli("get", "caf\u00e9").raw == b"1"


def test_destroy_asks_and_without_a_terminal_needs_yes(cli: Cli) -> None:
    cli("put", "a", value=b"1")
    refused = cli("destroy", "a", "--reason", "x", value=b"a\n")
    assert refused.code == 2
    assert refused.remarks("error:", "hint:") == [
        "error: destroy can't be undone, and stdin is no terminal to ask on",
        "hint: give --yes, or run it on a terminal",
    ]
    assert cli("get", "a").raw == b"1"


async def _damage_newest(url: str) -> None:
    async with attacking(url) as attacker:
        await attacker.sql(
            "UPDATE secret_event SET metadata = '{}x' WHERE version = 2 AND stream = 'a'"
        )


def test_below_an_event_that_does_not_open_an_earlier_version_is_read_on_demand_and_said_unproven(
    cli: Cli, database_url: str
) -> None:
    for value in (b"one", b"two"):
        assert cli("put", "a", value=value).code == 0
    assert cli("get", "a", "--version", "1", "--unproven", "--json").json.get("proven") is None
    asyncio.run(_damage_newest(database_url))
    for words in (("get", "a"), ("get", "a", "--version", "1")):
        assert cli(*words).code == 12
    read = cli("get", "a", "--version", "1", "--unproven")
    assert (read.code, read.raw) == (0, b"one")
    assert "version 1 is unproven" in read.err
    assert cli("get", "a", "--version", "1", "--unproven", "--json").json["proven"] is False
    assert cli("get", "a", "--unproven").code == 2
