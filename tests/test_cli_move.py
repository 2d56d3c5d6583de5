"""`migrate --to`, as a shell meets it: a session from one database into another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cli_session import KEY, NEW_KEY, Cli
from commits import Killed, killed_before_commit
from ledgers import file_of
from postgresql_server import PASSWORD
from secret_ledger import Keyring, SecretLedger


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Cli:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    for name in ("db/a", "db/b", "c"):
        assert cli("put", name, value=name.encode()).code == 0
    return cli


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/new.db"


def interrupt(source: str, target: str, commit: int) -> None:
    """Another run of it, killed before that commit."""

    async def run() -> None:
        async with SecretLedger.open(source, Keyring.of(KEY), heartbeat=3600) as ledger:
            with killed_before_commit(commit):
                await ledger.migrate(target)

    with pytest.raises(Killed):
        asyncio.run(run())


def test_a_ledger_moves_to_postgresql_by_a_setting_and_its_nodes_are_told(
    cli: Cli, postgres_url: str, tmp_path: Path
) -> None:
    cli.hold(NEW_KEY, KEY)
    file = tmp_path / "target"
    file.write_text(f"{postgres_url}\n")
    file.chmod(0o600)
    cli.set("OS_SECRET_LEDGER_TARGET_URL_FILE", str(file))
    place = postgres_url.replace("+asyncpg", "").replace(f"ledger:{PASSWORD}@", "")
    (would,) = cli("migrate", "--dry-run").rows
    assert (would[0], would[1], would[3], would[-1]) == ("would move", "1", "k-new", place)
    moved = cli("migrate", "--actor", "alice")
    assert moved.code == 0
    (row,) = moved.rows
    assert (row[:4], row[5], row[-1]) == (["moved", "1", "0", "k-new"], "9", place)
    assert moved.remarks("note:") == [
        f"note: the ledger is at {place} now; set OS_SECRET_LEDGER_URL to that database on every"
        " node; the ledger here can only be read, and still needs its keys"
    ]
    assert PASSWORD not in moved.out + moved.err
    left = cli("put", "c", value=b"lost?")
    assert left.code == 42
    assert left.remarks("error:") == [
        f"error: this ledger moved to {place}; the ledger here stays as it was at the move, and can"
        " only be read"
    ]
    assert "OS_SECRET_LEDGER_URL" in left.remarks("hint:")[0]
    assert (cli("get", "c").code, cli("get", "c", "--moved").raw) == (42, b"c")
    again = cli("migrate")
    assert (again.code, again.rows[0][0], again.rows[0][-1]) == (0, "nothing to do", place)
    assert cli("migrate", "--abandon").code == 42
    cli.set("OS_SECRET_LEDGER_TARGET_URL_FILE", None)
    assert cli("migrate").code == 42
    cli.set("OS_SECRET_LEDGER_URL", postgres_url)
    cli.hold(NEW_KEY)
    assert cli("put", "c", value=b"here").code == 0
    assert cli("verify", "--level", "full").code == 0
    assert cli("generations", "list").rows[0][:2] == ["1", "active"]
    itself = cli("migrate", "--to", postgres_url)
    assert (itself.code, itself.remarks("error:")[0].endswith("of this move")) == (17, True)


def test_interrupted_after_the_hand_over_the_same_command_finishes_it(
    cli: Cli, target: str
) -> None:
    interrupt(cli.url, target, 5)
    nowhere = [cli("put", "c", value=b"1").code, cli("put", "c", "--url", target, value=b"1").code]
    assert nowhere == [42, 30]
    assert "run the same `secret-ledger migrate --to` again" in cli("put", "c", value=b"1").err
    done = cli("migrate", "--to", target, "--json")
    assert (done.code, done.json["changed"], done.json["copied"]) == (0, True, 0)
    assert done.json["moved_to"] == f"sqlite:{file_of(target)}"
    assert cli("put", "c", "--url", target, value=b"1").code == 0


def test_given_up_it_says_what_is_left_and_clears_it(cli: Cli, target: str) -> None:
    interrupt(cli.url, target, 4)
    rotated = cli("keys", "rotate")
    assert rotated.code == 0  # the key is active: nothing to rotate
    cli.hold(NEW_KEY, KEY)
    rotated = cli("keys", "rotate")
    assert rotated.code == 30
    assert rotated.remarks("error:") == [
        f"error: the ledger is being moved to sqlite:{file_of(target)}"
    ]
    given_up = cli("migrate", "--abandon")
    assert (given_up.code, given_up.rows) == (0, [["abandoned", "1", "0"]])
    assert given_up.remarks("note:") == [
        f"note: the unfinished copy at sqlite:{file_of(target)} is still there; to delete it:"
        " secret-ledger migrate --abandon --to URL, with the URL of that database"
    ]
    cleared = cli("migrate", "--abandon", "--to", target)
    assert (cleared.code, cleared.rows, cleared.err) == (0, [["abandoned", "", "6"]], cleared.err)
    assert not cleared.remarks("note:")
    assert cli("migrate", "--abandon", "--to", target).rows[0][0] == "nothing to do"
    assert cli("keys", "rotate").code == 0
    assert cli("migrate", "--to", target).rows[0][:2] == ["moved", "2"]


def test_usage(cli: Cli, target: str) -> None:
    assert cli("migrate", "--dry-run", "--abandon", "--to", target).code == 2
    assert cli("migrate", "--to", "").code == 2
    assert cli("migrate", "--to", "nonsense").code == 40
    cli.set("OS_SECRET_LEDGER_TARGET_URL", " ")
    assert cli("migrate").code == 16
    assert "OS_SECRET_LEDGER_TARGET_URL" in cli("migrate", "--help").out
