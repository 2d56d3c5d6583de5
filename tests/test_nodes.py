"""The registry of nodes, and what a node says of its own health."""

from __future__ import annotations

import os
import socket

import pytest

from attacker import attacking, put_back, saved
from ledgers import NEW, OLD, STRANGER, lines, opened, refused
from log_builder import building
from secret_ledger import (
    KeyFingerprintMismatch,
    Keyring,
    LedgerUnavailable,
    MissingKey,
    StaleKey,
    open_unverified,
)


async def test_an_open_node_announces_itself_and_is_removed_when_it_closes(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, node="web-1") as ledger:
        (node,) = await ledger.nodes()
        assert (node.node, node.state, node.pid) == ("web-1", "live", os.getpid())
        assert node.host == socket.gethostname()
        assert (node.key_id, node.differs, node.refusals) == ("k-old", False, 0)
        assert node.readable == (("k-old", node.key_fingerprint.hex()),)
        assert node.pending_id is None
        assert node.started_at <= node.last_seen
        async with opened(database_url, OLD) as second:
            assert {n.node for n in await second.nodes()} == {"web-1", socket.gethostname()}
        assert len(await ledger.nodes()) == 1
    assert await lines(database_url) == []


async def test_a_node_that_failed_is_removed_too(database_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened(database_url, OLD):
            raise ZeroDivisionError
    assert await lines(database_url) == []


async def test_a_node_that_went_silent_is_gone_and_in_a_day_forgotten(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD, node="a") as ledger:
        async with opened(database_url, OLD, node="b"):
            await log.execute(
                "UPDATE {s}ledger_node SET last_seen = last_seen - 31000000 WHERE node = 'b'"
            )
            assert {n.node: n.state for n in await ledger.nodes()} == {"a": "live", "b": "gone"}
            await log.execute(
                "UPDATE {s}ledger_node SET last_seen = last_seen - 86400000000,"
                " node_id = 'of a process that was killed' WHERE node = 'b'"
            )
        assert {n.node for n in await ledger.nodes()} == {"a"}


async def test_a_node_with_another_active_key_is_shown_and_warned_about(
    database_url: str,
) -> None:
    """metabase#11048, n8n#7887: one of several nodes has another key; its writes fail later."""
    async with building(database_url, OLD) as log, opened(database_url, OLD, node="late") as late:
        await log.rotate(NEW)
        async with opened(database_url, NEW, OLD, node="new") as ledger:
            (warning,) = [w for w in ledger.warnings if "late" in w]
            assert "k-old" in warning
            assert {n.node: n.differs for n in await ledger.nodes()} == {"late": True, "new": False}
            assert (await ledger.put("a", "1")).key_id == "k-new"
            assert (await ledger.health()).ready
        with pytest.raises(StaleKey):
            await late.put("a", "2")


async def test_health_shows_the_live_nodes_that_differ_for_as_long_as_they_do(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD, node="late"):
        await log.rotate(NEW)
        async with opened(database_url, NEW, OLD, node="new") as ledger:
            (text,) = (await ledger.health()).differing
            assert text.startswith(f"node late (pid {os.getpid()} on ")
            assert "announces another active key, k-old" in text
            assert (await ledger.health()).state == "ready"
            assert any("late" in w for w in ledger.warnings)
            assert not any("late" in w for w in (await ledger.health()).warnings)
            async with opened(database_url, NEW, OLD, read_only=True) as reader:
                assert list((await reader.health()).differing) == [text]
            await log.execute(
                "UPDATE {s}ledger_node SET last_seen = last_seen - 31000000 WHERE node = 'late'"
            )
            assert (await ledger.health()).differing == []


async def test_health_warns_of_the_keys_in_hand_and_not_of_those_it_began_with(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.rotate(NEW)
    async with opened(database_url, OLD, NEW) as ledger:
        assert any("superseded" in w for w in (await ledger.health()).warnings)
        await ledger.reload_keys(Keyring.of(NEW, [OLD]))
        assert not any("superseded" in w for w in (await ledger.health()).warnings)


async def test_nodes_come_in_order_with_the_age_of_their_last_heartbeat(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, OLD, node="a", heartbeat=5),
        opened(database_url, OLD, node="b") as ledger,
    ):
        await log.rotate(NEW)
        await refused(database_url, StaleKey, OLD, node="0")
        await log.execute(
            "UPDATE {s}ledger_node SET last_seen = last_seen - 100000000 WHERE node = 'a'"
        )
        live, gone, refusal = await ledger.nodes()
        assert [(n.node, n.state) for n in (live, gone, refusal)] == [
            ("b", "live"), ("a", "gone"), ("0", "refused"),
        ]  # fmt: skip
        assert (live.heartbeat, gone.heartbeat) == (10.0, 5.0)
        assert 0 <= live.age < 100 <= gone.age
        await log.execute("UPDATE {s}ledger_node SET last_seen = last_seen + 900000000")
        assert {n.age for n in await ledger.nodes()} == {0.0}


async def test_a_look_without_a_key_tells_who_differs_as_it_is_now(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, OLD, node="late"),
        open_unverified(database_url) as unverified,
    ):
        assert [n.differs for n in await unverified.nodes()] == [False]
        await log.rotate(NEW)
        assert [n.differs for n in await unverified.nodes()] == [True]
        active = [k.key_id for k in await unverified.key_status() if k.state == "active"]
        assert active == ["k-new"]
        await log.execute("UPDATE {s}ledger_head SET key_epoch = 9")
        assert [n.differs for n in await unverified.nodes()] == [False]


async def test_refused_boots_are_counted_by_node_key_and_reason(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
    for _ in range(2):
        await refused(database_url, StaleKey, OLD, node="a")
        await refused(database_url, KeyFingerprintMismatch, STRANGER, node="a")
    await refused(database_url, MissingKey, NEW, node="a")
    await refused(database_url, StaleKey, OLD, node="b")
    found = {(n.node, n.key_id, n.reason): n.refusals for n in await lines(database_url)}
    assert found == {
        ("a", "k-old", "stale_key"): 2,
        ("a", "k-stranger", "key_fingerprint_mismatch"): 2,
        ("a", "k-new", "missing_key"): 1,
        ("b", "k-old", "stale_key"): 1,
    }
    assert {n.state for n in await lines(database_url)} == {"refused"}


async def test_refused_lines_are_kept_to_1000_and_the_newest_stay(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await refused(database_url, KeyFingerprintMismatch, STRANGER, node="template")
        columns = (
            "host, pid, release, state, key_id, key_fingerprint, pending_id,"
            " pending_fingerprint, readable, position, reason, refusals, heartbeat, started_at"
        )
        await log.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"  # noqa: S608
            f" INSERT INTO {{s}}ledger_node (node_id, node, {columns}, last_seen)"
            f" SELECT 'n' || i, 'node ' || i, {columns}, last_seen - (i * 1000000)"
            " FROM {s}ledger_node CROSS JOIN n"
        )
        await refused(database_url, KeyFingerprintMismatch, STRANGER, node="newest")
    found = {n.node for n in await lines(database_url)}
    assert len(found) == 1000
    assert {"newest", "template", "node 1", "node 998"} <= found
    assert "node 999" not in found


async def test_the_registry_can_be_read_without_a_key(database_url: str) -> None:
    async with opened(database_url, OLD, node="web-1") as ledger:
        (node,) = await lines(database_url)
        assert (node.node, node.differs) == ("web-1", False)
        async with open_unverified(database_url) as unverified:
            assert unverified.ledger_id == ledger.ledger_id


@pytest.mark.parametrize("name", ["", "x" * 1000, "é\x00\n\ud800", "\x1b[31m"])
async def test_any_name_of_a_node_is_announced_and_can_be_shown(
    database_url: str, name: str
) -> None:
    async with opened(database_url, OLD, node=name) as ledger:
        (node,) = await ledger.nodes()
        assert node.node.isprintable()
        assert 0 < len(node.node) <= 600


async def test_health_shows_what_an_operator_needs(database_url: str) -> None:
    async with opened(database_url, OLD, node="web-1") as ledger:
        put = await ledger.put("a", "1")
        health = await ledger.health()
        assert (health.ready, health.state, list(health.reasons)) == (True, "ready", [])
        assert (health.node, health.ledger_id) == ("web-1", ledger.ledger_id)
        assert health.position == put.position
        assert (health.key_epoch, health.active_key_id) == (2, "k-old")
        assert health.active_fingerprint == put.key_fingerprint.hex()
        assert health.projection_lag == 0
        assert health.verified_level == "latest"
        assert health.verified_seconds_ago >= 0
        assert not health.read_only


async def test_health_stays_unready_until_a_verify_finds_nothing(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            before = await saved(attacker, "secret_event")
            await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'a'")
            (finding,) = (await ledger.verify("latest")).findings
            assert (finding.stream, finding.version, finding.position) == ("a", 1, 4)
            health = await ledger.health()
            assert not health.ready
            assert "findings at the last verify" in health.reasons[0]
            await put_back(attacker, before)
        assert (await ledger.verify("latest")).ok
        assert (await ledger.health()).ready


async def test_every_call_ends_typed_once_the_ledger_is_closed(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    health = await ledger.health()
    assert not health.ready
    assert "closed" in health.reasons[0]
    for call in (ledger.get("a"), ledger.put("a", "2"), ledger.verify(), ledger.nodes()):
        with pytest.raises(LedgerUnavailable, match="closed"):
            await call
    with pytest.raises(LedgerUnavailable, match="closed"):
        _ = [i async for i in ledger.list()]
