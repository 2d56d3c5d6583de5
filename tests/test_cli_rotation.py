"""`keys rotate` and `keys rekey`: what they say, and what they leave unsaid."""

from __future__ import annotations

import pytest
from cli_session import KEY, NEW_KEY, Cli


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    for name in ("a", "b"):
        assert cli("put", name, value=b"1").code == 0
    return cli


def test_a_rotation_says_what_changed_and_what_did_not_and_nothing_else(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    done = cli("keys", "rotate", "--actor", "alice")
    assert done.code == 0
    rotated, behind = done.rows
    assert rotated[:2] == ["rotated", "k-new"]
    assert (behind[:2], behind[3]) == (["behind", "k-old"], "2")
    assert done.remarks("warning: key_rotated") == []  # the line on stdout is the answer
    assert cli("keys", "rotate").rows[0][0] == "active"


def test_rekeyed_secrets_need_the_old_key_no_more_but_their_history_does(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    assert cli("keys", "rotate").code == 0
    done = cli("keys", "rekey")
    assert (done.rows[0][0], done.rows[0][3]) == ("rekeyed", "2")
    cli.hold(NEW_KEY)
    assert cli("get", "a").raw == b"1"
    assert cli("get", "a", "--version", "1").code == 13


def test_a_rotation_without_the_previous_key_says_where_that_one_goes(cli: Cli) -> None:
    cli.hold(NEW_KEY)
    done = cli("keys", "rotate")
    assert done.code == 11
    assert "keep the old key in OS_SECRET_PREVIOUS_KEYS" in done.err


def test_a_rotation_back_is_refused_and_points_at_a_third_key(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    assert cli("keys", "rotate").code == 0
    cli.hold(KEY, NEW_KEY)
    done = cli("keys", "rotate")
    assert done.code == 18
    assert "third" in done.err
