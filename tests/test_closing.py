"""Closing a ledger comes to its end, whoever cancels it, however often."""

from __future__ import annotations

import asyncio

import pytest

from held_commit import HeldCommit
from ledgers import OLD, lines, opened
from secret_ledger import SecretLedger
from secret_ledger_projections import default


@pytest.mark.parametrize("cancels", [1, 2, 5])
async def test_a_close_that_is_cancelled_again_leaves_no_heartbeat_and_no_live_node(
    database_url: str, cancels: int
) -> None:
    """A supervisor loses its patience while the last write is still under way."""
    held, begun, free = HeldCommit(), asyncio.Event(), asyncio.Event()
    writes: list[asyncio.Task[object]] = []
    ledgers: list[SecretLedger] = []

    async def meanwhile() -> None:
        begun.set()
        await free.wait()

    async def serve() -> None:
        async with opened(
            database_url, OLD, projections=[*default(), held], heartbeat=0.01, max_staleness=0
        ) as ledger:
            ledgers.append(ledger)
            held.meanwhile = meanwhile
            writes.append(asyncio.create_task(ledger.put("a", "1")))
            await asyncio.Event().wait()

    service = asyncio.create_task(serve())
    await begun.wait()
    for _ in range(cancels):
        service.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
    assert not service.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await service
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("secret-ledger")] == []
    assert await lines(database_url) == []
    await writes[0]
    async with opened(database_url, OLD) as ledger:
        assert (await ledger.get("a")).version == 1


async def test_a_part_that_fails_to_close_keeps_no_other_from_it(database_url: str) -> None:
    class Odd(Exception):
        pass

    async def fail() -> None:
        raise Odd

    async def use() -> None:
        async with opened(database_url, OLD, heartbeat=0.01) as ledger:
            await ledger.put("a", "1")
            ledger._observer.close = fail  # type: ignore[method-assign]

    with pytest.raises(Odd):
        await use()
    assert [t for t in asyncio.all_tasks() if t.get_name().startswith("secret-ledger")] == []
    assert await lines(database_url) == []


async def test_a_beat_that_is_under_way_does_not_put_the_line_of_a_closed_node_back(
    database_url: str,
) -> None:
    for _ in range(10):
        async with opened(database_url, OLD, heartbeat=0.001):
            for _ in range(20):
                await asyncio.sleep(0)
        assert await lines(database_url) == []
