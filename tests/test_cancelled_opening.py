"""Opening that is cancelled at any moment leaves no connection, no thread and no live node."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import anyio
import asyncpg
import pytest

from ledgers import OLD, file_of, lines, open_files, opened
from postgresql_server import PostgresServer
from secret_ledger import LedgerUnavailable

CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def _use(url: str) -> None:
    async with opened(url, OLD, max_staleness=0) as ledger:
        await ledger.put("a", "1")
        for _ in range(3):  # from the database, from memory once that is proven, from memory
            await ledger.get("a")


async def _cancelled_by_a_scope(url: str, turns: int) -> None:
    """As anyio and trio cancel: again at every await, also those of a clean-up."""
    async with anyio.create_task_group() as group:
        group.start_soon(_use, url)
        for _ in range(turns):
            await asyncio.sleep(0)
        group.cancel_scope.cancel()


async def _cancelled_twice(url: str, turns: int) -> None:
    task = asyncio.ensure_future(_use(url))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@pytest.mark.parametrize("cancelled", [_cancelled_by_a_scope, _cancelled_twice])
async def test_a_cancelled_opening_leaves_no_connection(
    database_url: str, cancelled: object
) -> None:
    sqlite = database_url.startswith("sqlite")
    await _use(database_url)
    for turns in range(0, 90, 2 if sqlite else 3):
        await cancelled(database_url, turns)  # type: ignore[operator]
    gc.collect()  # an unclosed connection is a ResourceWarning, and an error here
    if sqlite:
        assert open_files(file_of(database_url)) == []
        return
    dba = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    async with asyncio.timeout(20):  # the server takes a moment to notice
        while await dba.fetchval(CONNECTIONS):
            pass
    await dba.close()


async def test_a_node_that_is_cancelled_while_it_catches_up_is_no_live_one(
    database_url: str,
) -> None:
    await _use(database_url)
    reached = asyncio.Event()

    class Slow:
        name = "slow"

        def apply(self, *_: object) -> None: ...

        async def catch_up(self, _: object) -> int:
            reached.set()
            await asyncio.Event().wait()
            return 0

    async def run() -> None:
        async with opened(database_url, OLD, projections=[Slow()]):
            pass

    task = asyncio.ensure_future(run())
    await reached.wait()
    assert [node.state for node in await lines(database_url)] == ["live"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await lines(database_url) == []


async def test_a_server_that_answers_no_more_does_not_keep_a_ledger_from_closing(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.create_database("silent")
    dba = await asyncpg.connect(url.replace("+asyncpg", ""))
    stopped: list[int] = []
    try:
        async with asyncio.timeout(60):
            async with opened(url, OLD, patience=0.2) as ledger:
                await asyncio.gather(*(ledger.put(f"a/{n}", "1") for n in range(3)))
                for row in await dba.fetch(CONNECTIONS.replace("count(*)", "pid")):
                    os.kill(row["pid"], signal.SIGSTOP)
                    stopped.append(row["pid"])
                reading = asyncio.ensure_future(ledger.get("a/0"))
                await asyncio.sleep(0)
            assert stopped
            with pytest.raises((asyncio.CancelledError, LedgerUnavailable)):
                await reading
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        await dba.close()
