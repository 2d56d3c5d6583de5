"""Another database put in place under a running node; what a destruction ends of damage."""
# the attacker puts names of tables and columns into his SQL

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from attacker import TABLES, attacking, put_back, saved
from hostile import Victim, change, edits_of_every_column, flipped, gate_of, names_row
from inside import LogHead
from secret_ledger import Key, Keyring, SecretDestroyed, SecretNotFound, TamperedEvent, WrongLedger
from secret_ledger_projections import SysSecret, rebuild
from victim import NEW, OLD, build, ending, opened

# --- what a running node notices --------------------------------------------------------


async def test_a_running_node_notices_an_older_copy_put_in_place(victim: Victim) -> None:
    """The newest events and the head row cut off together: only an outside anchor tells a
    fresh start; a node that has seen them knows."""
    attacker = victim.attacker
    old = await saved(
        attacker, "secret_event", "ledger_head", "secret_current", "projection_checkpoint"
    )
    async with opened(victim.url) as running, opened(victim.url) as other:
        await running.put("alpha", "alpha value 4")
        assert (await other.get("alpha")).value.reveal() == b"alpha value 4"
        await put_back(attacker, old)
        for node in (running, other):
            with pytest.raises(TamperedEvent, match="behind position 26"):
                await node.get("alpha")
            with pytest.raises(TamperedEvent, match="behind position 26"):
                await node.put("alpha", "on an older copy")
    await gate_of(victim)  # the limit that the README states


async def test_a_running_node_notices_a_control_stream_that_got_shorter(victim: Victim) -> None:
    attacker = victim.attacker
    old = await saved(attacker, "secret_event", "ledger_head", "ledger_key")
    third = Key.from_bytes(bytes(range(51, 83)), "k-third")
    keyring = Keyring.of(third, [OLD, NEW])
    async with opened(victim.url, keyring, projections=()) as running:
        await running.rotate(third)
        assert (await running.put("alpha", "under the third")).key_id == "k-third"
        await put_back(attacker, old)
        for work in (running.get("alpha"), running.put("alpha", "x"), running.verify("latest")):
            with pytest.raises(TamperedEvent):
                await work


async def test_another_ledger_put_in_place_is_noticed_while_running(
    victim: Victim, tmp_path: Path
) -> None:
    other_url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    await build(other_url)
    async with attacking(other_url) as theirs:
        copies = await saved(theirs, "ledger_meta", "ledger_head", "ledger_key", "secret_event")
    copies["ledger_head"] = [row[: len(LogHead._fields)] for row in copies["ledger_head"]]
    async with opened(victim.url) as running:
        await put_back(victim.attacker, copies)
        for name in victim.truth.latest:
            assert not isinstance(await ending(running, name), bytes)
        with pytest.raises(WrongLedger):
            await running.verify("latest")


# --- quarantine -------------------------------------------------------------------------

CONTENT = (
    "event_type",
    "key_id",
    "key_fingerprint",
    "recorded_at",
    "metadata",
    "prev_hash",
    "sealed",
)


@pytest.mark.parametrize("name", ["alpha", "batch/3"])
async def test_a_damaged_secret_hides_no_other_and_is_ended_by_destroy(
    victim: Victim, name: str
) -> None:
    kept = await saved(victim.attacker, *TABLES)
    for column in (*CONTENT, "event_hash"):
        await quarantine(victim, name, column)
        await put_back(victim.attacker, kept)


async def test_an_end_beside_a_write_of_the_same_secret_accounts_for_what_lies_deeper_down(
    victim: Victim,
) -> None:
    await change(victim.attacker, victim.event("alpha", 1), "recorded_at", 7)
    async with opened(victim.url, verify="control") as ledger:
        assert not (await ledger.verify("full")).ok
        await asyncio.gather(
            ledger.put("alpha", "one more"),
            ledger.destroy("alpha", reason="damaged"),
            ledger.put("another", "in the same batch"),
        )
        assert await ending(ledger, "alpha") is SecretDestroyed
        await rebuild(ledger.database, SysSecret())
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def quarantine(victim: Victim, name: str, column: str) -> None:
    head = victim.head(name)
    edits = dict(edits_of_every_column(head))
    await change(victim.attacker, head, column, edits[column])
    with pytest.raises(TamperedEvent, match=f"{name} version {head.version}"):
        await gate_of(victim)
    async with opened(victim.url, verify="control") as ledger:
        assert {info.name async for info in ledger.list(deleted=True)} == set(victim.truth.latest)
        assert len([info async for info in ledger.history(name)]) == head.version
        for other, right in victim.truth.latest.items():
            if other != name:
                assert await ending(ledger, other) == right
        if column != "event_hash":
            assert await ending(ledger, name) is TamperedEvent
        with pytest.raises(TamperedEvent, match=f"{name} version {head.version}"):
            await ledger.put(name, "never built on what does not open")
        with pytest.raises(TamperedEvent):
            await ledger.put_many({"fine": "x", name: "y"})
        assert await ending(ledger, "fine") is SecretNotFound
        with pytest.raises(TamperedEvent):
            await ledger.delete(name)
        await ledger.destroy(name, reason="damaged")
        assert await ending(ledger, name) is SecretDestroyed
        # sys_secret is a fold of the log as it stands, damaged metadata included.
        await rebuild(ledger.database, SysSecret())
    async with opened(victim.url) as ledger:
        report = await ledger.verify("full")
        assert report.ok, report.findings
        await ledger.put(name, "a clean start")
        assert (await ledger.verify("full")).ok
    async with opened(victim.url, verify="full") as ledger:
        assert await ending(ledger, name) == b"a clean start"


async def test_what_was_destroyed_damaged_may_not_change_again(victim: Victim) -> None:
    """The end is sealed over the row as it was found."""
    head = victim.head("alpha")
    await change(victim.attacker, head, "sealed", flipped(head.sealed))
    async with opened(victim.url, verify="control") as ledger:
        await ledger.destroy("alpha", reason="damaged")
        assert (await ledger.verify("full")).ok
        await change(victim.attacker, head, "sealed", head.sealed[::-1])
        findings = (await ledger.verify("full")).findings
        assert names_row(findings, ("alpha", 3, head.position))
