"""Each other way in which a command can end: its exit code, its `error:` and its `hint:`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cli_damage import VERBS, WITHOUT_A_KEY, assert_refused, attack, moved
from cli_session import OTHER_KEY, Cli
from inside import secrets
from secret_ledger import Health, SecretLedger


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    assert cli("put", "a", value=b"one").code == 0
    return cli


def test_states_of_the_database_have_their_exit_codes(cli: Cli) -> None:
    attack(cli, "UPDATE ledger_meta SET schema_version = schema_version + 90")
    assert cli("get", "a").code == 15
    assert cli("schema", "upgrade").code == 15
    attack(
        cli,
        "UPDATE ledger_meta SET schema_version = schema_version - 90",
        "UPDATE ledger_head SET state = 'building', generation = 1",
    )
    assert cli("get", "a").code == 30


_READING = (
    ["get", "a"], ["list"], ["history", "a"], ["verify"], ["keys", "status"], ["keys", "history"],
    ["keys", "census"], ["generations", "list"], ["nodes"], ["projections", "check"],
)  # fmt: skip


def test_every_verb_ends_with_42_where_the_ledger_has_moved_away(cli: Cli) -> None:
    moved(cli)
    for words in VERBS:
        assert_refused(cli(*words), 42, words)
    assert ["reason", cli("get", "a").remarks("error:")[0].replace("error:", "ledger_moved:")] in (
        cli("health").rows
    )


def test_what_was_left_of_a_moved_ledger_is_read_where_that_is_asked_for(cli: Cli) -> None:
    moved(cli)
    assert cli("get", "a", "--moved").raw == b"one"
    for words in _READING:
        done = cli(*words, "--moved")
        assert done.code == 0, words
        assert len(done.remarks("warning: this ledger moved to another database")) == 1, words
    assert cli("put", "a", "--moved").code == 2


def test_a_moved_ledger_is_not_shown_without_a_key_either(cli: Cli) -> None:
    moved(cli)
    for key in (None, OTHER_KEY):
        cli.hold(key)
        for words in WITHOUT_A_KEY:
            done = cli(*words)
            assert (done.code, done.raw) == (42, b""), words
            assert "no key in hand proves it" in done.err, words
            assert cli(*words, "--moved").code == 0, words


def test_errors_of_secrets_have_their_exit_codes(cli: Cli) -> None:
    for words, code in (
        (["get", "nope"], 20), (["history", "nope"], 20), (["get", "a", "--version", "7"], 20),
        (["delete", "nope"], 20), (["restore", "a"], 22), (["put", "a", "--expect", "0"], 22),
        (["put", "$reserved"], 23), (["put", "a//b"], 23), (["put", "a", "--expect", "-1"], 23),
        (["destroy", "a", "--yes", "--reason", " "], 23),
    ):  # fmt: skip
        done = cli(*words)
        assert_refused(done, code, words)
        as_json = cli(*words, "--json")
        assert (as_json.code, as_json.error["exit_code"], as_json.raw) == (code, code, b"")
        assert set(as_json.error) == {"error", "message", "hint", "exit_code", "details"}


def test_a_projection_that_differs_is_exit_12_until_it_is_rebuilt(cli: Cli) -> None:
    assert cli("projections", "check").raw == b""
    attack(cli, "UPDATE secret_current SET updated_by = 'mallory' WHERE name = 'a'")
    found = cli("projections", "check", "sys_secret")
    assert found.code == 12
    assert found.rows[0][:3] == ["sys_secret", "a", "updated_by"]
    assert cli("projections", "check", "--json").json["differences"][0]["actual"] == "mallory"
    assert cli("verify", "--level", "full").code == 12
    assert cli("projections", "rebuild", "--json").json["rebuilt"][0]["changed"] == 1
    assert cli("projections", "check", "--json").json["differences"] == []
    assert cli("projections", "check", "nope").code == 2


def test_only_init_and_put_make_a_ledger(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    cli = Cli(monkeypatch, database_url)
    for words in VERBS:
        if words[0] not in ("init", "put"):
            assert_refused(cli(*words), 15, words)
    made = cli("put", "a", value=b"one")
    assert made.code == 0
    (warning,) = [w for w in made.remarks("warning:") if "OS_SECRET_LEDGER_ID" in w]
    again = cli("init")
    assert again.out.strip() in warning
    assert again.remarks("note:") == [
        f"note: ledger {again.out.strip()[-32:]} was there already; nothing was changed"
    ]
    assert cli("init", "--json").json["created"] is False


def test_a_database_out_of_reach_is_exit_40(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for url in (
        f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/x.db",
        "postgresql+asyncpg://user:hunter2@127.0.0.1:1/x",
        "mysql://user:hunter2@host/x",
    ):
        cli = Cli(monkeypatch, url)
        done = cli("init")
        assert done.code == 40, url
        assert "hunter2" not in done.err
        assert cli("health", "--json").json["ready"] is False


def test_a_file_that_is_no_database_is_exit_15(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(b"no database" * 1000)
    cli = Cli(monkeypatch, f"sqlite+aiosqlite:///{file}")
    for words in (["init"], ["get", "a"], ["put", "a"], ["list"]):
        assert cli(*words).code == 15
    assert file.read_bytes() == b"no database" * 1000


def test_a_node_that_is_not_ready_is_exit_41(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = SecretLedger.health

    async def unready(ledger: SecretLedger) -> Health:
        known = await ready(ledger)
        return replace(known, ready=False, state="unready", reasons=["ledger_moved: it moved"])

    assert cli("health").rows[0] == ["ready", "yes"]
    monkeypatch.setattr(SecretLedger, "health", unready)
    done = cli("health")
    assert done.code == 41
    assert ["reason", "ledger_moved: it moved"] in done.rows
    assert done.remarks("error:") == ["error: not ready: ledger_moved: it moved"]


def test_health_says_once_what_refuses_it_and_seconds_as_people_write_them(cli: Cli) -> None:
    seconds = dict(cli("health").rows)["round_trip_seconds"]
    assert re.fullmatch(r"\d+\.\d{3}", seconds)
    cli.hold(None)
    done = cli("health")
    assert done.code == 10
    assert done.remarks("unverified:") == []
    assert len(done.remarks("error:")) == 1
    assert ["verified", "no"] in done.rows


def test_an_unforeseen_error_is_exit_1_and_shows_only_its_type(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(text: str | None) -> None:
        raise ValueError("canary-value-90c1")

    monkeypatch.setattr(secrets, "_metadata", breaks)
    done = cli("put", "a", value=b"x")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "error: internal: ValueError",
        "hint: run it again with --debug to see where, and report it",
    ]
    debug = cli("put", "a", "--debug", value=b"x")
    assert "in breaks" in debug.err
    assert "builtins.ValueError" in debug.err
    assert "canary" not in debug.err.replace('raise ValueError("canary-value-90c1")', "")


def test_debug_shows_where_an_error_of_ours_comes_from(cli: Cli) -> None:
    done = cli("get", "nope", "--debug")
    assert done.code == 20
    assert "reading.py" in done.err
    assert done.err.splitlines()[-2:] == [
        "error: there is no secret nope",
        "hint: `secret-ledger list` shows the names",
    ]
    assert os.sep + "reading.py" not in cli("get", "nope").err
