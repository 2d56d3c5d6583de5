"""What the boot gate and the seals refuse, as the command line says it, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cli_damage import VERBS, WITHOUT_A_KEY, assert_refused, attack, damage_head, rotated
from cli_session import KEY, NEW_KEY, OTHER_KEY, Cli
from secret_ledger import Keyring, SecretLedger


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    assert cli("put", "a", value=b"one").code == 0
    return cli


@pytest.mark.parametrize(
    ("current", "code"), [(OTHER_KEY, 11), (None, 10)], ids=["wrong key", "no key"]
)
def test_every_verb_that_needs_the_key_is_refused_without_the_right_one(
    cli: Cli, current: object, code: int
) -> None:
    cli.hold(OTHER_KEY if current else None)
    for words in VERBS:
        done = cli(*words, value=b"never written")
        if words in WITHOUT_A_KEY:
            assert done.code == 0, words
            assert len(done.remarks("unverified: ")) == 1, words
        else:
            assert_refused(done, code, words)
    cli.hold(KEY)
    assert [row[0] for row in cli("list", "--all").rows] == ["a"]
    assert cli("get", "a").raw == b"one"


def test_an_operator_may_look_at_a_fleet_that_is_refused(cli: Cli) -> None:
    cli.hold(OTHER_KEY)
    assert cli("put", "a", value=b"x").code == 11
    seen = cli("nodes", "--json")
    assert seen.code == 0
    assert seen.json["verified"] is False
    assert [(n["state"], n["reason"]) for n in seen.json["nodes"]] == [
        ("refused", "key_fingerprint_mismatch")
    ]
    for words, field in ((["list"], "secrets"), (["history", "a"], "versions")):
        seen = cli(*words, "--json")
        assert (seen.json["verified"], len(seen.json[field])) == (False, 1)
    status = cli("keys", "status", "--json").json
    assert [(k["key_id"], k["held"]) for k in status["keys"]] == [("k-old", False)]
    health = cli("health", "--json")
    assert (health.code, health.json["ready"], health.json["verified"]) == (11, False, False)
    assert health.error["error"] == "key_fingerprint_mismatch"
    cli.hold(KEY)
    assert cli("list", "--check", "--json").json["verified"] is True


def test_key_settings_that_are_wrong_in_themselves_stay_errors(cli: Cli, tmp_path: Path) -> None:
    cli.set("OS_SECRET_KEY", "not a key")
    for words in VERBS:
        assert_refused(cli(*words), 16, words)
    cli.set("OS_SECRET_KEY", None)
    file = tmp_path / "key"
    file.write_text(KEY.text().reveal_text())
    file.chmod(0o644)
    cli.set("OS_SECRET_KEY_FILE", str(file))
    assert cli("list").remarks("hint:") == ['hint: chmod 600 "$OS_SECRET_KEY_FILE"']
    file.chmod(0o600)
    assert cli("get", "a").raw == b"one"


def test_findings_that_are_left_out_are_counted_by_kind(cli: Cli) -> None:
    async def fill() -> None:
        async with SecretLedger.open(cli.url, Keyring.of(KEY)) as ledger:
            await ledger.put_many({f"old/{n}": "x" for n in range(1005)})

    asyncio.run(fill())
    rotated(cli)
    cli.hold(NEW_KEY, KEY)
    cli("put", "b", value=b"new")
    damage_head(cli, "b")
    cli.hold(NEW_KEY)
    found = cli("verify")
    assert found.code == 12
    assert found.rows[-1] == ["omitted", "missing_key", "6"]
    assert found.remarks("error: 1 damaged: b version 1")
    assert found.remarks("error:")[0].endswith("; 1,006 secrets are under keys that are not held")


def test_damage_is_exit_12_names_the_row_and_hides_no_other_secret(cli: Cli) -> None:
    cli("put", "b", value=b"two")
    damage_head(cli, "a")
    refused = cli("get", "a")
    assert refused.code == 12
    assert "a version 1 at position 4" in refused.err
    assert cli("get", "b").raw == b"two"
    assert len(cli("list").rows) == 2

    for level in ("latest", "full"):
        found = cli("verify", "--level", level)
        assert found.code == 12
        (finding,) = [row for row in found.rows if row[0] == "finding"]
        assert finding[1:5] == ["4", "a", "1", "tampered"]
        report = cli("verify", "--level", level, "--json")
        assert report.json["ok"] is False
        assert report.json["findings"][0]["position"] == 4
        assert report.error["exit_code"] == 12
    assert cli("verify", "--level", "control").code == 0
    assert cli("destroy", "a", "--reason", "damaged", "--yes").code == 0
    assert cli("verify").code == 0


def test_damage_of_the_control_stream_is_reported_and_is_no_wrong_key(cli: Cli) -> None:
    attack(cli, "UPDATE secret_event SET recorded_at = recorded_at + 1 WHERE position = 1")
    for current in (KEY, OTHER_KEY):
        cli.hold(current)
        found = cli("verify", "--json")
        assert found.code == 12
        assert [f["kind"] for f in found.json["findings"]] == ["tampered"]
        assert cli("get", "a").code == 12
    seen = cli("list")
    assert seen.code == 0
    assert seen.remarks("unverified: ")
    assert cli("health").code == 12


def test_a_missing_previous_key_is_exit_13_and_a_missed_rotation_exit_14(cli: Cli) -> None:
    rotated(cli)
    cli.hold(NEW_KEY)
    assert cli("put", "b", value=b"two").code == 0
    assert cli("get", "a").code == 13
    found = cli("verify")
    assert found.code == 13
    assert [row[2:5] for row in found.rows if row[0] == "finding"] == [["a", "1", "missing_key"]]
    assert found.remarks("hint:") == ["hint: add k-old to OS_SECRET_PREVIOUS_KEYS"]

    cli.hold(KEY)
    assert cli("get", "a").code == 14
    assert cli("put", "a", value=b"x").code == 14
    assert cli("list").remarks("unverified: ")

    cli.hold(NEW_KEY, KEY)
    assert cli("verify", "--level", "full").code == 0
    keys = cli("keys", "status").rows
    assert [(k[0], k[2], k[3]) for k in keys] == [
        ("k-old", "superseded", "yes"),
        ("k-new", "active", "yes"),
    ]
    damage_head(cli, "a")
    cli.hold(NEW_KEY)
    cli("put", "c", value=b"3")
    damage_head(cli, "c")
    assert cli("verify").code == 12, "tampered comes before missing"


def test_a_superseded_current_key_is_warned_of_once(cli: Cli) -> None:
    rotated(cli)
    cli.hold(KEY, NEW_KEY)
    done = cli("get", "a")
    assert done.code == 0
    assert len(done.remarks("warning: the current key k-old of the settings was superseded")) == 1


def test_the_pin_holds_also_for_one_who_only_looks(cli: Cli) -> None:
    cli.set("OS_SECRET_LEDGER_ID", "00" * 16)
    for words in VERBS:
        assert_refused(cli(*words), 17, words)
    cli.hold(None)
    assert cli("list").code == 17
