"""The heartbeat: one beat at a time, and what a failing one does and does not do."""

from __future__ import annotations

from contextlib import AsyncExitStack

import asyncpg
import pytest

from connections import each_statement
from inside import Mode
from ledgers import NEW, OLD, THIRD, opened
from log_builder import building
from secret_ledger import Keyring, SecretLedger
from waiting import until


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The nodes that the log says differ, since it was asked last."""
    found = [r.getMessage() for r in caplog.records if "ledger_node_differs" in r.getMessage()]
    caplog.clear()
    return found


async def is_so(ledger: SecretLedger, reason: str) -> bool:
    return any(r.startswith(reason) for r in (await ledger.health(within=0.1)).reasons)


async def test_a_failing_heartbeat_degrades_health_and_takes_nothing_down(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.execute("ALTER TABLE {s}ledger_node RENAME TO gone")
        await ledger._session.announce()
        health = await ledger.health()
        assert (health.ready, health.state) == (True, "degraded")
        assert [reason.partition(": ")[0] for reason in health.reasons] == [
            "heartbeat",
            "the schema is not as it was made",
            "nodes",
        ]
        assert (await ledger.put("a", "1")).version == 1
        assert (await ledger.get("a")).value.reveal() == b"1"
        assert (await ledger.verify("full")).ok
        await log.execute("ALTER TABLE {s}gone RENAME TO ledger_node")
        await ledger._session.announce()
        assert (await ledger.health()).state == "ready"


async def test_a_failing_heartbeat_does_not_keep_a_ledger_from_closing(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        async with opened(database_url, OLD) as ledger:
            await log.execute("DROP TABLE {s}ledger_node")
            await ledger._session.announce()
            await ledger.put("a", "1")
        assert (await log.execute("SELECT count(*) FROM {s}secret_event")) == [(4,)]


async def test_a_beat_renews_what_a_node_announces(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        (opening,) = await ledger.nodes()
        position = (await ledger.put("a", "1")).position
        await log.execute("UPDATE {s}ledger_node SET last_seen = last_seen - 31000000")
        assert [n.state for n in await ledger.nodes()] == ["gone"]
        await ledger._session.announce()
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
        await ledger._session.announce()
        (node,) = await ledger.nodes()
        assert (node.node, node.key_id, node.pending_id) == ("web-1", "k-old", "k-new")
        assert {key_id for key_id, _ in node.readable} == {"k-old", "k-new"}


async def test_a_node_that_is_fenced_is_logged_when_noticed_and_not_at_every_beat(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        opened(database_url, OLD, node="late") as late,
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        await here._session.announce()
        assert told(caplog) == []
        await here.rotate(force_reason="test")
        (line,) = told(caplog)
        assert "node late" in line
        assert "it can't write until it has the active key" in line
        await late._session.announce()
        await here._session.announce()
        assert told(caplog) == []
        await late.reload_keys(Keyring.of(NEW, [OLD]))
        await here._session.announce()
        assert told(caplog) == []
        await here.rotate(THIRD, force_reason="test")
        (line,) = told(caplog)
        assert "node late" in line  # for it had caught up in between


async def test_what_the_boot_has_told_is_not_logged_again_at_the_first_beat(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD, node="late"):
        await log.rotate(NEW)
        async with opened(database_url, NEW, OLD) as ledger:
            assert "node late" in caplog.text
            caplog.clear()
            await ledger._session.announce()
            assert told(caplog) == []


async def test_a_node_that_holds_the_active_key_is_not_logged_for_it_is_about_to_follow(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database_url, OLD):
        pass
    async with (
        opened(database_url, NEW, OLD, node="slow") as slow,
        opened(database_url, NEW, OLD, node="here") as here,
    ):
        await here.rotate()
        assert told(caplog) == []
        (text,) = (await here.health()).differing
        assert text.startswith("node slow (pid ")
        assert text.endswith("it holds the active key, and follows at its next heartbeat")
        await slow._session.announce()
        assert (await here.health()).differing == []


async def test_a_stale_node_does_not_tell_of_itself(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.rotate(NEW)
        await ledger._session.announce()
        assert told(caplog) == []
        assert (await ledger.health()).differing == []


async def test_a_heartbeat_that_never_ends_is_said(
    postgres_url: str,
) -> None:
    """It fails nothing and raises nothing: only its absence tells."""
    silent = "heartbeat: no heartbeat has reached the database for"
    async with opened(postgres_url, OLD, heartbeat=0.05) as ledger:
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE secret_ledger.ledger_node")
                await until(lambda: is_so(ledger, silent))
        finally:
            await connection.close()
        await until(lambda: _is_ready(ledger))


async def _is_ready(ledger: SecretLedger) -> bool:
    return (await ledger.health()).state == "ready"


async def test_an_error_that_nobody_foresaw_does_not_end_the_heartbeat(postgres_url: str) -> None:
    """An instrumentation of the driver's, say, may fail."""
    failing = True

    def fail(statement: str) -> None:
        if failing and statement.startswith("INSERT INTO") and "ledger_node" in statement:
            raise ZeroDivisionError("hunter2")

    async with opened(postgres_url, OLD, heartbeat=0.01) as ledger, AsyncExitStack() as stack:
        stack.enter_context(each_statement(fail))
        await until(lambda: is_so(ledger, "heartbeat: ZeroDivisionError"))
        assert "hunter2" not in repr(await ledger.health())
        failing = False
        await until(lambda: _is_ready(ledger))


async def test_a_note_is_not_flushed_and_a_write_after_it_is(database_url: str) -> None:
    """A heartbeat shares the disk with the writers, and is worth nothing after a power cut."""
    async with opened(database_url, OLD) as ledger:
        database = ledger.database
        sql, flushed, not_flushed = (
            ("PRAGMA synchronous", 2, 1)
            if database.name == "sqlite"
            else ("SHOW synchronous_commit", "on", "off")
        )

        async def setting(mode: Mode) -> object:
            return await database.run(lambda c: c.exec_driver_sql(sql).scalar_one(), mode)

        for _ in range(2):
            assert await setting("note") == not_flushed
            assert await setting("write") == flushed


async def test_a_beat_alone_follows_a_rotation_and_announces_it(database_url: str) -> None:
    async with (
        building(database_url, OLD) as log,
        opened(database_url, NEW, OLD) as ledger,
    ):
        await log.rotate(NEW)
        await ledger._session.announce()
        (node,) = await ledger.nodes()
        assert (node.key_id, node.pending_id, node.differs) == ("k-new", None, False)
