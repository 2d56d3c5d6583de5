"""The heartbeat: one beat at a time, and what a failing one does and does not do."""

from __future__ import annotations

from ledgers import NEW, OLD, opened
from log_builder import building


async def test_a_failing_heartbeat_degrades_health_and_takes_nothing_down(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.execute("ALTER TABLE {s}ledger_node RENAME TO gone")
        await ledger._announce()
        health = await ledger.health()
        assert (health.ready, health.state) == (True, "degraded")
        (reason,) = health.reasons
        assert reason.startswith("heartbeat: ")
        assert (await ledger.put("a", "1")).version == 1
        assert (await ledger.get("a")).value.reveal() == b"1"
        assert (await ledger.verify("full")).ok
        await log.execute("ALTER TABLE {s}gone RENAME TO ledger_node")
        await ledger._announce()
        assert (await ledger.health()).state == "ready"


async def test_a_failing_heartbeat_does_not_keep_a_ledger_from_closing(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        async with opened(database_url, OLD) as ledger:
            await log.execute("DROP TABLE {s}ledger_node")
            await ledger._announce()
            await ledger.put("a", "1")
        assert (await log.execute("SELECT count(*) FROM {s}secret_event")) == [(3,)]


async def test_a_beat_renews_what_a_node_announces(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        (opening,) = await ledger.nodes()
        position = (await ledger.put("a", "1")).position
        await log.execute("UPDATE {s}ledger_node SET last_seen = last_seen - 31000000")
        assert [n.state for n in await ledger.nodes()] == ["gone"]
        await ledger._announce()
        (node,) = await ledger.nodes()
        assert (node.state, node.position) == ("live", position)
        assert node.started_at == opening.started_at
        assert node.last_seen >= opening.last_seen


async def test_a_beat_puts_a_lost_line_of_a_live_node_back(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD, node="web-1") as ledger,
    ):
        await log.execute("DELETE FROM {s}ledger_node")
        await ledger._announce()
        (node,) = await ledger.nodes()
        assert (node.node, node.key_id, node.pending_id) == ("web-1", "k-old", "k-new")
        assert {key_id for key_id, _ in node.readable} == {"k-old", "k-new"}
