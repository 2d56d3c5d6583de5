"""`keys rotate` and `keys rekey`, as a shell meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cli_damage import damage_head
from cli_session import KEY, NEW_KEY, OTHER_KEY, Cli
from secret_ledger import Keyring, SecretLedger


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Cli:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    for name in ("a", "b", "c"):
        assert cli("put", name, value=name.encode()).code == 0
    return cli


def beside(cli: Cli, keyring: Keyring, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` while another node has the ledger open."""

    async def run() -> None:
        async with SecretLedger.open(cli.url, keyring, node="other"):
            await work()

    asyncio.run(run())


def test_a_rotation_says_what_changed_and_what_did_not(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    done = cli("keys", "rotate", "--actor", "alice")
    assert done.code == 0
    assert "key_rotated" not in done.err
    rotated, behind = done.rows
    assert (rotated[0], rotated[1], rotated[3], rotated[4], rotated[6]) == (
        "rotated", "k-new", "3", "8", "k-old",
    )  # fmt: skip
    assert (behind[0], behind[1], behind[3]) == ("behind", "k-old", "3")
    again = cli("keys", "rotate")
    assert (again.code, again.rows[0][0]) == (0, "active")
    document = cli("keys", "rotate", "--json").json
    assert (document["changed"], document["key_id"], document["behind"][0]["secrets"]) == (
        False, "k-new", 3,
    )  # fmt: skip


def test_rekey_moves_the_heads_and_then_says_that_none_is_left(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    cli("keys", "rotate")
    (row,) = cli("keys", "rekey").rows
    assert (row[0], row[1], row[3], row[4]) == ("rekeyed", "k-new", "3", "0")
    again = cli("keys", "rekey", "--json")
    assert (again.code, again.json["ok"], again.json["rekeyed"], again.json["already"]) == (
        0, True, 0, 3,
    )  # fmt: skip
    cli.hold(NEW_KEY)
    assert cli("get", "a").raw == b"a"
    assert len(cli("keys", "rotate").rows) == 1


def test_rekey_with_a_damaged_head_is_exit_30_and_names_it(cli: Cli) -> None:
    damage_head(cli, "b")
    cli.hold(NEW_KEY, KEY)
    cli("keys", "rotate")
    done = cli("keys", "rekey")
    assert done.code == 30
    rekeyed, finding = done.rows
    assert (rekeyed[3], rekeyed[5]) == ("2", "1")
    assert (finding[0], finding[2]) == ("finding", "b")
    assert done.remarks("error: 1 secrets still lie under another key")
    assert done.remarks("hint: ")


def test_a_node_without_the_key_is_exit_41_and_named_unless_forced(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)

    async def work() -> None:
        done = await asyncio.to_thread(cli, "keys", "rotate")
        assert done.code == 41
        assert "other (pid " in done.remarks("error: 1 live nodes can't read key k-new")[0]
        forced = await asyncio.to_thread(
            cli, "keys", "rotate", "--force-reason", "decommissioned", "--json"
        )
        assert forced.code == 0
        assert len(forced.json["unready"]) == 1

    beside(cli, Keyring.of(KEY), work)


def test_a_key_that_was_active_before_is_exit_18(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    cli("keys", "rotate")
    cli.hold(KEY, NEW_KEY)
    done = cli("keys", "rotate")
    assert done.code == 18
    assert done.remarks("error: key k-old")
    assert "third key" in done.remarks("hint: ")[0]
    cli.hold(OTHER_KEY, NEW_KEY, KEY)
    assert cli("keys", "rotate").code == 0


def test_rekeyed_secrets_need_the_old_key_no_more_but_their_history_does(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    assert cli("keys", "rotate").code == 0
    done = cli("keys", "rekey")
    assert (done.rows[0][0], done.rows[0][3]) == ("rekeyed", "3")
    cli.hold(NEW_KEY)
    assert cli("get", "a").raw == b"a"
    assert cli("get", "a", "--version", "1").code == 13


def test_a_rotation_without_the_previous_key_says_where_that_one_goes(cli: Cli) -> None:
    cli.hold(NEW_KEY)
    done = cli("keys", "rotate")
    assert done.code == 11
    assert "keep the old key in OS_SECRET_PREVIOUS_KEYS" in done.err


def test_a_key_that_is_due_is_warned_of_and_never_rotated_by_itself(cli: Cli) -> None:
    plain = cli("keys", "status")
    assert not [line for line in plain.remarks("warning:") if "rotate" in line]
    (row,) = plain.rows
    assert (row[0], row[8]) == ("k-old", "6")
    assert 0 <= float(row[9]) < 3600
    old = cli("keys", "status", "--warn-days", "0")
    assert old.remarks("warning: key k-old is 0 days old: rotate to a new key")
    full = cli("keys", "status", "--warn-events", "5", "--json")
    assert full.json["keys"][0]["events"] == 6
    assert "6 events lie under key k-old" in full.err
    assert [row[2] for row in cli("keys", "status").rows] == ["active"]
