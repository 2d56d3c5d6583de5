"""What listings show without opening a row, and what opening each row marks."""
# ruff: noqa: S608  # the attacker puts names of columns into his SQL

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from attacker import Attacker, attacking, events
from cli_session import Cli
from inside import hash_of
from ledgers import NEW, OLD, opened
from secret_ledger import SecretInfo, SecretLedger, SecretNotFound, open_unverified

MARKS = tuple[str, int, str]


@pytest.fixture
async def filled(database_url: str) -> str:
    async with opened(database_url, OLD) as ledger:
        for name in ("a", "b", "c"):
            await ledger.put(name, "1", actor="alice")
            await ledger.put(name, "2", actor="bob")
    return database_url


async def listed(ledger: SecretLedger, *, check: bool, **options: Any) -> list[SecretInfo]:
    return [info async for info in ledger.list(check=check, **options)]


async def of(ledger: SecretLedger, name: str, *, check: bool = True) -> list[SecretInfo]:
    return [info async for info in ledger.history(name, check=check)]


def marks(infos: Sequence[SecretInfo]) -> list[MARKS]:
    return [(info.name, info.version, info.check) for info in infos]


async def test_a_re_encryption_tells_its_own_author_and_time_beside_those_of_the_value(
    filled: str,
) -> None:
    async with opened(filled, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.rekey(actor="operator")
        _, written, rekeyed = await of(ledger, "a")
        assert (rekeyed.actor, rekeyed.recorded_at) == ("bob", written.recorded_at)
        assert (rekeyed.sealed_by, written.sealed_by) == ("operator", "bob")
        assert rekeyed.sealed_at > written.recorded_at == written.sealed_at
        got = await ledger.get("a")
        assert (got.sealed_by, got.sealed_at) == ("operator", rekeyed.sealed_at)
        (shown, *_) = await listed(ledger, check=False)
        assert (shown.actor, shown.sealed_by) == ("bob", "operator")
        await ledger.migrate()
        *_, copied = await of(ledger, "a")
        assert (copied.sealed_by, copied.sealed_at) == ("operator", rekeyed.sealed_at)


async def test_a_re_encryption_by_nobody_names_nobody(filled: str) -> None:
    async with opened(filled, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.rekey()
        *_, rekeyed = await of(ledger, "a")
        assert (rekeyed.actor, rekeyed.sealed_by) == ("bob", None)


async def test_what_was_not_opened_says_so_and_what_was_read_or_written_is_ok(filled: str) -> None:
    async with opened(filled, OLD) as ledger:
        assert {i.check for i in await listed(ledger, check=False)} == {"unverified"}
        assert {i.check for i in await of(ledger, "a", check=False)} == {"unverified"}
        assert {i.check for i in await listed(ledger, check=True)} == {"ok"}
        assert {i.check for i in await of(ledger, "a")} == {"ok"}
        assert (await ledger.get("a")).check == "ok"
        assert (await ledger.put("a", "3")).check == "ok"
        assert (await ledger.delete("a")).check == "ok"
    async with open_unverified(filled) as look:
        assert {i.check async for i in look.history("a")} == {"unverified"}


FORGERIES = {
    "actor": "metadata = replace(metadata, 'bob', 'eve')",
    "deleted": "event_type = 'secret.deleted'",
    "destroyed": "event_type = 'secret.destroyed'",
    "key": "key_id = 'k-new'",
    "time": "recorded_at = recorded_at - 1",
    "chain": "prev_hash = event_hash",
}


@pytest.mark.parametrize("edit", FORGERIES.values(), ids=FORGERIES)
async def test_a_forged_head_is_listed_marked_and_hides_no_other(filled: str, edit: str) -> None:
    async with opened(filled, OLD) as ledger:
        async with attacking(filled) as attacker:
            await attacker.sql(f"UPDATE secret_event SET {edit} WHERE stream = 'b' AND version = 2")
            await rehash(attacker, ledger.ledger_id)
        expected = [("a", 2, "ok"), ("b", 2, "tampered"), ("c", 2, "ok")]
        found = await listed(ledger, check=True)
        assert marks(found) == expected
        assert [info.problem is None for info in found] == [True, False, True]
        assert marks(await of(ledger, "b"))[-1] == ("b", 2, "tampered")
        assert {m for _, _, m in marks(await of(ledger, "b", check=False))} == {"unverified"}
        assert marks(await of(ledger, "a")) == [("a", 1, "ok"), ("a", 2, "ok")]


async def rehash(attacker: Attacker, ledger_id: str) -> None:
    """Every row's hash from its own columns, as anybody can compute it."""
    for event in await events(attacker):
        await attacker.sql(
            "UPDATE secret_event SET event_hash = $1 WHERE generation = $2 AND position = $3",
            hash_of(bytes.fromhex(ledger_id), event), event.generation, event.position,
        )  # fmt: skip


async def test_a_version_behind_a_gap_is_marked(filled: str) -> None:
    async with opened(filled, OLD) as ledger:
        await ledger.put("a", "3")
        async with attacking(filled) as attacker:
            await attacker.sql("DELETE FROM secret_event WHERE stream = 'a' AND version = 2")
        assert marks(await of(ledger, "a")) == [("a", 1, "ok"), ("a", 3, "tampered")]


async def test_damage_that_a_destruction_has_ended_is_no_failure(filled: str) -> None:
    async with opened(filled, OLD) as ledger:
        async with attacking(filled) as attacker:
            await attacker.sql(
                "UPDATE secret_event SET sealed = event_hash WHERE stream = 'a' AND version = 2"
            )
        assert marks(await of(ledger, "a"))[-1] == ("a", 2, "tampered")
        await ledger.destroy("a", reason="damaged")
        assert {check for _, _, check in marks(await of(ledger, "a"))} == {"ok"}
        await ledger.put("a", "anew")
        assert {check for _, _, check in marks(await of(ledger, "a"))} == {"ok"}


async def test_a_version_under_a_key_that_is_not_held_is_told_apart(filled: str) -> None:
    async with opened(filled, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.rekey()
    async with opened(filled, NEW) as ledger:
        checks = [info.check for info in await of(ledger, "a")]
        assert checks == ["missing_key", "missing_key", "ok"]
        assert {info.check for info in await listed(ledger, check=True)} == {"ok"}


async def test_a_long_history_is_checked_page_by_page(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await asyncio.gather(*(ledger.put("a", str(n)) for n in range(503)))
        found = await of(ledger, "a")
        assert [info.version for info in found] == list(range(1, 504))
        assert {info.check for info in found} == {"ok"}
        async with attacking(database_url) as attacker:
            await attacker.sql("UPDATE secret_event SET metadata = '{}  ' WHERE version = 501")
        failed = [info.version for info in await of(ledger, "a") if info.check != "ok"]
        assert failed == [501]
        with pytest.raises(SecretNotFound):
            await of(ledger, "b")


async def test_a_forged_control_event_marks_its_key_and_the_others_are_shown(filled: str) -> None:
    async with opened(filled, NEW, OLD) as ledger:
        await ledger.rotate(actor="alice")
        assert [key.check for key in await ledger.key_history()] == ["unverified"] * 2
        assert [key.check for key in await ledger.key_history(check=True)] == ["ok"] * 2
        async with attacking(filled) as attacker:
            await attacker.sql(
                "UPDATE secret_event SET metadata = replace(metadata, 'alice', 'eve')"
                " WHERE stream = '$ledger' AND event_type = 'key.activated'"
            )
            await rehash(attacker, ledger.ledger_id)
        old, new = await ledger.key_history(check=True)
        assert (new.activated.actor, new.check) == ("eve", "tampered")
        assert new.problem == "the seal does not authenticate"
        assert old.check == "tampered"  # what superseded it is not what was sealed


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    for name in ("a", "b"):
        assert cli("put", name, "--actor", "alice").code == 0
    return cli


@pytest.mark.parametrize(
    ("words", "field"), [(["list"], "secrets"), (["history", "a"], "versions"),
                         (["keys", "history"], "keys")],
    ids=["list", "history", "keys history"],
)  # fmt: skip
def test_each_output_says_that_nothing_was_opened_or_what_opening_gave(
    cli: Cli, words: list[str], field: str
) -> None:
    shown = cli(*words, "--json").json
    assert (shown["verified"], {row["check"] for row in shown[field]}) == (False, {"unverified"})
    assert {tuple(row[-2:]) for row in cli(*words).rows} == {("unverified", "")}
    checked = cli(*words, "--check", "--json")
    assert (checked.code, checked.json["verified"]) == (0, True)
    assert {row["check"] for row in checked.json[field]} == {"ok"}
    assert {tuple(row[-2:]) for row in cli(*words, "--check").rows} == {("ok", "")}
    cli.hold(None)
    assert cli(*words).code == 0
    assert cli(*words, "--check").code == 10


def test_a_row_that_fails_is_shown_and_the_command_ends_with_12(cli: Cli) -> None:
    async def forge() -> None:
        async with attacking(cli.url) as attacker:
            await attacker.sql(
                "UPDATE secret_event SET metadata = '{\"actor\":\"eve\"}' WHERE stream = 'a'"
            )

    asyncio.run(forge())
    for words in (["list"], ["history", "a"]):
        assert cli(*words).code == 0
        done = cli(*words, "--check")
        assert done.code == 12
        assert done.rows[0][-2] == "tampered"
        assert done.rows[0][-1]
        assert done.remarks("error: 1 of the rows above do not authenticate")
    assert [row[-2] for row in cli("list", "--check").rows] == ["tampered", "ok"]
    assert cli("history", "b", "--check").code == 0
    document = cli("list", "--check", "--json")
    assert (document.code, document.json["secrets"][0]["check"]) == (12, "tampered")
