"""`migrate`, `generations`, `keys retire|lost|history|census`, as a shell meets them."""

from __future__ import annotations

import csv
import io

import pytest

from cli_damage import damage_head
from cli_session import KEY, NEW_KEY, OTHER_KEY, Cli


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Cli:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    for name in ("db/a", "db/b", "c"):
        assert cli("put", name, value=name.encode()).code == 0
    cli.hold(NEW_KEY, KEY)
    return cli


def test_a_dry_run_says_what_would_happen_and_writes_nothing(cli: Cli) -> None:
    (row,) = cli("migrate", "--dry-run").rows
    assert (row[0], row[1], row[2], row[3], row[5], row[7]) == (
        "would migrate", "1", "0", "k-new", "6", "0",
    )  # fmt: skip
    document = cli("migrate", "--dry-run", "--json").json
    assert (document["dry_run"], document["changed"]) == (True, True)
    assert document["bytes"] > 0
    assert [row[:3] for row in cli("generations", "list").rows] == [["0", "active", "6"]]
    assert cli("keys", "history").rows[-1][0] == "k-old"


def test_the_whole_way_from_a_new_key_to_dropping_the_old_one(cli: Cli) -> None:
    refused = cli("keys", "retire", "k-old")
    assert refused.code == 18
    assert refused.remarks("error: key k-old")[0].endswith("is the active one")
    assert cli("migrate").rows[0][:3] == ["migrated", "1", "0"]
    again = cli("migrate")
    assert (again.code, again.rows[0][0]) == (0, "nothing to do")
    in_use = cli("keys", "retire", "k-old")
    assert in_use.code == 18
    assert "events of generation 0 (closed)" in in_use.err
    assert in_use.remarks("hint:") == ["hint: first: secret-ledger generations purge 0"]
    assert cli("generations", "purge", "0").code == 2  # nobody is there to ask
    assert cli("generations", "purge", "0", "--yes").rows == [["purged", "0", "9"]]
    assert cli("generations", "purge", "0", "--yes").rows[0][0] == "nothing to do"
    assert cli("keys", "retire", "k-old", "--actor", "alice").rows[0][0] == "retired"
    assert cli("keys", "retire", "k-old").rows[0][0] == "was retired"
    cli.hold(NEW_KEY)
    retired = cli("keys", "lost", "k-old", "--reason", "x", "--yes")
    assert (retired.code, "was retired: nothing needs the key" in retired.err) == (18, True)
    assert cli("get", "db/a").raw == b"db/a"
    assert cli("verify", "--level", "full").code == 0
    (old, new) = cli("keys", "history", "--json").json["keys"]
    assert (old["state"], old["retired"]["actor"], old["events"]) == ("retired", "alice", 0)
    assert (new["state"], new["secrets"]) == ("active", 3)


def test_a_damaged_event_stops_a_migration_and_a_dry_run_with_exit_12(cli: Cli) -> None:
    cli.hold(NEW_KEY, KEY)
    damage_head(cli, "c")
    for words in (["migrate", "--dry-run"], ["migrate"]):
        done = cli(*words)
        assert done.code == 12
        assert "c version 1 at position 6" in done.err
    assert cli("destroy", "c", "--reason", "damaged", "--yes").code == 0
    assert cli("migrate").code == 0


def test_generations_that_are_in_use_or_never_were_are_not_purged(cli: Cli) -> None:
    for number, said in (("0", "generation 0 is active"), ("7", "there is no generation 7")):
        done = cli("generations", "purge", number, "--yes")
        assert done.code == 23
        assert said in done.err
    abandoned = cli("migrate", "--abandon")
    assert (abandoned.code, abandoned.rows) == (0, [["nothing to do", "", "0"]])


def test_the_census_says_what_lies_under_which_key(cli: Cli) -> None:
    cli("keys", "rotate")
    cli("put", "db/b", value=b"2")
    rows = cli("keys", "census").rows
    assert [[row[0], row[1], *row[3:]] for row in rows] == [
        ["secrets", "k-new", "1", '{"db": 1}'],
        ["secrets", "k-old", "2", '{"": 1, "db": 1}'],
        ["events", "k-old", "0", "active", "7", "0", "7", "651"],
        ["events", "k-new", "0", "active", "2", "0", "9", "186"],
    ]


def test_a_lost_key_is_given_up_after_saying_what_goes_with_it(cli: Cli) -> None:
    cli("keys", "rotate")
    cli("put", "db/b", value=b"2")
    held = cli("keys", "lost", "k-old", "--reason", "gone", "--yes")
    assert held.code == 18
    assert "is in the keyring" in held.err
    cli.hold(NEW_KEY)
    asked = cli("keys", "lost", "k-old", "--reason", "gone")
    assert asked.code == 2
    assert asked.remarks("With k-old, 2 secrets end")
    assert cli("get", "c").code == 13
    (row,) = cli("keys", "lost", "k-old", "--reason", "gone", "--yes").rows
    assert (row[0], row[1], row[3], row[4]) == ("lost", "k-old", "7", "2")
    assert cli("keys", "lost", "k-old", "--reason", "gone", "--yes").rows[0][0] == "was lost"
    assert cli("get", "c").code == 21
    assert cli("get", "db/b").raw == b"2"
    assert cli("put", "c", value=b"anew").code == 0
    assert cli("verify", "--level", "full").code == 0
    assert cli("keys", "lost", "nobody", "--reason", "x", "--yes").code == 18
    assert cli("keys", "lost", "k-new", "--reason", "x", "--yes").code == 18


def test_the_history_of_the_keys_as_lines_csv_and_at_a_time(cli: Cli) -> None:
    cli("keys", "rotate", "--actor", "alice")
    old, new = cli("keys", "history").rows
    assert (old[0], old[2], old[12], old[16]) == ("k-old", "superseded", "7", "3")
    assert (new[0], new[2], new[6], new[12]) == ("k-new", "active", "alice", "1")
    table = list(csv.DictReader(io.StringIO(cli("keys", "history", "--csv").out)))
    assert [row["key_id"] for row in table] == ["k-old", "k-new"]
    assert table[0]["superseded_at"] == table[1]["activated_at"]
    then = table[0]["activated_at"]
    assert [row[0] for row in cli("keys", "history", "--at", then).rows] == ["k-old"]
    assert cli("keys", "history", "--at", "2100-01-01T00:00Z").rows[0][0] == "k-new"
    before = cli("keys", "history", "--at", "2000-01-01T00:00Z")
    assert (before.code, before.raw) == (18, b"")
    assert cli("keys", "history", "--csv", "--json").code == 2
    assert cli("keys", "history", "--at", "noon").code == 2


def test_the_audit_and_the_generations_are_readable_without_a_key(cli: Cli) -> None:
    cli("migrate")
    cli.hold(OTHER_KEY)
    assert cli("keys", "status").code == 0
    cli("get", "c")
    cli.hold(None)
    for words in (["keys", "history"], ["generations", "list"]):
        done = cli(*words, "--json")
        assert done.code == 0
        assert done.json["verified"] is False
