"""Rotation: who may take over, who is in the way, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from attacker import attacking
from inside import CONTROL_STREAM, EventType, parse_metadata, stream_page
from ledgers import NEW, OLD, STRANGER, THIRD, opened, refused
from log_builder import building
from secret_ledger import (
    Key,
    KeyFingerprintMismatch,
    KeyReused,
    Keyring,
    LedgerUnavailable,
    MigrationInProgress,
    NodeNotReady,
    StaleKey,
    open_unverified,
)


async def test_a_rotation_activates_the_pending_key_and_says_what_it_left(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({"a": "1", "b": "2", "c": "3"})
        await ledger.delete("c")
    async with opened(database_url, NEW, OLD) as ledger:
        done = await ledger.rotate(actor="alice")
        assert (done.changed, done.key_id, done.replaced, done.epoch) == (
            True, "k-new", "k-old", 3,
        )  # fmt: skip
        assert done.position == ledger.position == 9
        assert [(c.key_id, c.secrets) for c in done.behind] == [("k-old", 3)]
        written = await ledger.put("a", "4")
        assert (written.key_id, written.position) == ("k-new", 10)
        assert (await ledger.get("b")).value.reveal() == b"2"
        assert (await ledger.verify("full")).ok
        states = {s.key_id: s.state for s in await ledger.key_status()}
        assert states == {"k-old": "superseded", "k-new": "active"}
    async with opened(database_url, NEW, OLD, verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal() == b"4"


async def test_both_control_events_say_who_and_why_and_are_sealed_as_the_contract_says(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, node="stale"),
        opened(database_url, NEW, OLD) as ledger,
    ):
        await ledger.rotate(actor="alice", force_reason="the old key leaked")
        events = await ledger.database.run(
            lambda c: stream_page(c, ledger.database, 0, CONTROL_STREAM, 3), "statement"
        )
    assert [(e.event_type, e.key_id, e.version) for e in events] == [
        (EventType.KEY_INTRODUCED, "k-old", 4),
        (EventType.KEY_ACTIVATED, "k-new", 5),
    ]
    for event in events:
        facts = parse_metadata(event.metadata)
        assert (facts.actor, facts.reason) == ("alice", "the old key leaked")
        assert facts.ledger["epoch"] == 3
        assert facts.ledger["key"]["id"] == "k-new"


async def test_rotating_again_says_that_there_is_nothing_to_do(database_url: str) -> None:
    async with opened(database_url, NEW, OLD) as ledger:
        assert not (await ledger.rotate()).changed  # the first key of a new ledger
        before = ledger.position
        done = await ledger.rotate(OLD)
        assert done.changed
        again = await ledger.rotate()
        assert (again.changed, again.key_id, again.position) == (False, "k-old", before + 2)
        assert ledger.position == before + 2


async def test_a_key_that_was_active_before_is_not_activated_again(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.rotate(NEW)
        with pytest.raises(KeyReused, match="was active before") as caught:
            await ledger.rotate(OLD)
        assert "third" in caught.value.hint
        assert (await ledger.rotate(THIRD)).epoch == 4
        await ledger.put("a", "1")
        assert (await ledger.verify("full")).ok


async def test_a_retired_or_lost_key_is_not_activated_again(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
        await log.rotate(THIRD)
        await log.retire(OLD)
        await log.lose(NEW)
    async with opened(database_url, OLD, NEW, THIRD) as ledger:
        with pytest.raises(KeyReused, match="was retired"):
            await ledger.rotate()
    async with opened(database_url, NEW, OLD, THIRD) as ledger:
        with pytest.raises(KeyReused, match="is lost"):
            await ledger.rotate()


async def test_a_label_that_is_bound_to_other_material_is_refused(database_url: str) -> None:
    same_label = Key.from_bytes(bytes(range(40, 72)), "k-old")
    async with opened(database_url, OLD) as ledger:
        await ledger.rotate(NEW)
    async with opened(database_url, NEW) as ledger:
        position = ledger.position
        with pytest.raises(KeyFingerprintMismatch):
            await ledger.rotate(same_label)
        assert ledger.position == position
        assert (await ledger.put("a", "1")).key_id == "k-new"


async def test_a_live_node_without_the_key_is_in_the_way_and_named(database_url: str) -> None:
    async with (
        opened(database_url, OLD, node="behind") as behind,
        opened(database_url, NEW, OLD, node="ahead"),
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        position = here.position
        with pytest.raises(NodeNotReady, match="1 live nodes") as caught:
            await here.rotate()
        assert caught.value.details["key_id"] == "k-new"
        assert "behind (pid" in caught.value.message
        assert "ahead" not in caught.value.message
        assert here.position == position
        done = await here.rotate(force_reason="it is gone for good")
        (unready,) = done.unready
        assert unready.startswith("behind ")
        with pytest.raises(StaleKey):
            await behind.put("a", "1")
        await here.put("a", "2")


async def test_a_node_that_is_gone_or_closed_is_not_in_the_way(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, NEW, OLD) as here:
        async with opened(database_url, OLD, node="closed"):
            pass
        async with opened(database_url, OLD, node="dead"):
            await log.execute(
                "UPDATE {s}ledger_node SET last_seen = last_seen - (3 * heartbeat) - 1000000"
                " WHERE node = 'dead'"
            )
            assert (await here.rotate()).changed


async def test_no_rotation_while_a_generation_is_being_built(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.execute(
            "INSERT INTO {s}ledger_head (generation, position, recorded_at, key_epoch, state)"
            " VALUES (1, 0, 0, 1, 'building')"
        )
    async with opened(database_url, NEW, OLD) as ledger:
        with pytest.raises(MigrationInProgress, match="generation 1"):
            await ledger.rotate()
        assert (await ledger.put("a", "2")).key_id == "k-old"


async def test_a_stale_node_and_a_read_only_one_rotate_nothing(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as stale:
        await log.rotate(NEW)
        with pytest.raises(StaleKey):
            await stale.rotate(THIRD)
    async with opened(database_url, NEW, read_only=True) as reader:
        with pytest.raises(LedgerUnavailable, match="read-only"):
            await reader.rotate(THIRD)


async def test_a_node_that_missed_a_rotation_is_not_told_that_its_old_key_is_active(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as stale, building(database_url, OLD) as log:
        await log.rotate(NEW)
        with pytest.raises(StaleKey):
            await stale.rotate()


async def test_a_key_that_a_refused_rotation_was_given_is_announced_all_the_same(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, node="one") as one,
        opened(database_url, OLD, node="two") as two,
    ):
        with pytest.raises(NodeNotReady, match="two"):
            await one.rotate(NEW)
        assert (await two.rotate(NEW)).changed  # for `one` can read it by now


async def test_of_two_rotations_at_once_one_is_told_that_it_is_done(database_url: str) -> None:
    async with opened(database_url, OLD):
        pass
    async with (
        opened(database_url, NEW, OLD, node="one") as one,
        opened(database_url, NEW, OLD, node="two") as two,
    ):
        done = await asyncio.gather(one.rotate(), two.rotate())
        assert sorted(d.changed for d in done) == [False, True]
        assert {(d.epoch, d.key_id) for d in done} == {(3, "k-new")}
        assert (await one.verify("full")).ok


async def test_a_rotation_follows_a_control_event_that_it_had_not_seen(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
        async with opened(database_url, NEW, OLD) as ledger:
            await log.retire(OLD)  # the epoch stays, the control stream grows
            assert (await ledger.rotate(THIRD)).epoch == 4
            assert (await ledger.verify("full")).ok


async def test_the_audit_says_how_many_secrets_lie_under_each_of_many_keys(
    database_url: str,
) -> None:
    keys = [Key.generate(f"k-{n}") for n in range(7)]
    expected: dict[str, int] = {}
    async with opened(database_url, keys[0]) as ledger:
        for number, key in enumerate(keys):
            await ledger.put_many({f"{key.key_id}/{n}": "x" for n in range(number + 1)})
            expected[f"k-{number}"] = number + 1
            if number:  # one of them is written again under each new key
                expected[f"k-{number - 1}"] -= 1
                expected[f"k-{number}"] += 1
                await ledger.put(f"k-{number - 1}/0", "again")
            history = await ledger.key_history()
            assert {key.key_id: key.secrets for key in history} == expected
            assert sum(expected.values()) == len([info async for info in ledger.list()])
            if number < 6:
                await ledger.rotate(keys[number + 1])
        await ledger.rekey()
        history = await ledger.key_history()
        assert [key.secrets for key in history] == [0] * 6 + [sum(expected.values())]


async def test_a_planted_line_is_named_and_holds_no_rotation_up(database_url: str) -> None:
    async with (
        opened(database_url, OLD, node="honest") as honest,
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        async with attacking(database_url) as attacker:
            columns = await attacker.columns("ledger_node")
            copied = ", ".join("'planted' || node_id" if c == "node_id" else c for c in columns)
            await attacker.sql(
                f"INSERT INTO ledger_node SELECT {copied} FROM ledger_node"  # noqa: S608
                " WHERE node = 'honest'"
            )
            await attacker.sql("UPDATE ledger_node SET node = 'planted' WHERE node_id LIKE 'pl%'")
        assert {n.node: n.proof for n in await here.nodes()} == {
            "honest": "proven", "here": "proven", "planted": "unproven",
        }  # fmt: skip
        with pytest.raises(NodeNotReady, match="1 live nodes") as caught:
            await here.rotate()
        assert "honest" in caught.value.message
        await honest.reload_keys(Keyring.of(NEW, [OLD]))
        done = await here.rotate()
        assert done.changed
        assert done.unready == []
        (named,) = done.unproven
        assert named.startswith("planted (pid ")


@pytest.mark.parametrize(
    "edit", ["readable = '[]'", "proof = NULL", "pid = pid + 1", "last_seen = last_seen + 1"]
)
async def test_a_line_that_somebody_edited_is_unproven_until_its_node_renews_it(
    database_url: str, edit: str
) -> None:
    async with (
        opened(database_url, OLD, node="other") as other,
        opened(database_url, NEW, OLD, node="ready") as ready,
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        async with attacking(database_url) as attacker:
            await attacker.sql(f"UPDATE ledger_node SET {edit} WHERE node <> 'here'")  # noqa: S608
        proofs = {n.node: n.proof for n in await here.nodes()}
        assert proofs == {"ready": "unproven", "other": "unproven", "here": "proven"}
        await other._session.announce()
        await ready._session.announce()
        assert {n.proof for n in await here.nodes()} == {"proven"}
        with pytest.raises(NodeNotReady, match="1 live nodes can't read key k-new"):
            await here.rotate()


async def test_a_line_that_was_deleted_holds_nothing_up_which_is_a_stated_limit(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, node="other"),
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        async with attacking(database_url) as attacker:
            await attacker.sql("DELETE FROM ledger_node WHERE node = 'other'")
        assert (await here.rotate()).changed


async def test_the_line_of_a_node_that_follows_a_rotation_stays_proven(database_url: str) -> None:
    async with (
        opened(database_url, OLD, node="fenced") as fenced,
        opened(database_url, NEW, OLD, node="follows") as follows,
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        await here.rotate(force_reason="the fenced one is being replaced")
        assert {n.proof for n in await here.nodes()} == {"proven"}
        await follows._session.announce()
        await fenced._session.announce()
        found = {n.node: (n.proof, n.key_id, n.reason) for n in await here.nodes()}
        assert found == {
            "follows": ("proven", "k-new", ""),
            "fenced": ("proven", "k-old", "stale_key"),
            "here": ("proven", "k-new", ""),
        }
        assert {n.proof for n in await fenced.nodes()} == {"proven", "unknown"}
    async with open_unverified(database_url) as look:
        assert {n.proof for n in await look.nodes()} <= {"unknown"}


async def test_the_line_of_a_refused_boot_proves_nothing(database_url: str) -> None:
    async with opened(database_url, OLD, node="here") as here:
        await refused(database_url, KeyFingerprintMismatch, STRANGER, node="stranger")
        found = {n.node: (n.state, n.proof) for n in await here.nodes()}
        assert found == {"here": ("live", "proven"), "stranger": ("refused", "unproven")}
