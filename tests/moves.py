"""Moving a ledger in tests: from where to where, half-way, killed, and what lies there then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import pytest

from commits import Killed, killed_before_commit
from histories import fill
from independent_fold import read_rows
from inside import BULK, connect
from ledgers import OLD, opened
from secret_ledger import (
    Key,
    LedgerMoved,
    MigrationInProgress,
    MigrationReport,
    NotALedger,
    SecretLedger,
)


class Route(NamedTuple):
    """Where a ledger is moved from, and where to."""

    source: str
    target: str


only = pytest.mark.parametrize("route", ["sqlite-postgresql", "postgresql-sqlite"], indirect=True)
"""For what does not hang on the pair: each kind once on each side."""


def address(url: str) -> str:
    return connect(url).address


async def filled(url: str, *keys: Key, bulk: int = 0) -> None:
    async with opened(url, *(keys or (OLD,))) as ledger:
        await fill(ledger)
        if bulk:
            await ledger.put_many({f"bulk/{n:04}": "x" for n in range(bulk)})


def quiet(url: str, *keys: Key, **options: Any) -> AbstractAsyncContextManager[SecretLedger]:
    """Opened without a heartbeat, so that each commit is one of the move."""
    return opened(url, *keys, heartbeat=3600, **options)


async def half_made(route: Route, pages: int = 1) -> None:
    """Killed after so many pages were copied: the source is in use."""
    await filled(route.source, bulk=BULK + 200)
    async with quiet(route.source, OLD) as ledger:
        with pytest.raises(Killed), killed_before_commit(3 + pages):
            await ledger.migrate(route.target)


async def handed_over(route: Route) -> None:
    """Killed once the source was closed, before the target was opened."""
    await filled(route.source)
    async with quiet(route.source, OLD) as ledger:
        with pytest.raises(Killed), killed_before_commit(5):
            await ledger.migrate(route.target)
    assert await states(route.source) == [(0, "moved"), (1, "purged")]
    assert await states(route.target) == [(1, "building")]


async def command(route: Route, *keys: Key, dies: int = 1000) -> MigrationReport:
    """As the command does: a source that has moved is opened to be read only.

    `dies`: before which of its commits it is killed.
    """
    try:
        async with quiet(route.source, *keys, create=False) as ledger:
            with killed_before_commit(dies):
                return await ledger.migrate(route.target)
    except LedgerMoved:
        async with quiet(route.source, *keys, read_only=True, read_moved=True) as ledger:
            with killed_before_commit(dies):
                return await ledger.migrate(route.target)


async def states(url: str) -> list[tuple[int, str]]:
    found = await read_rows(url, "SELECT generation, state FROM ledger_head ORDER BY 1")
    return [(generation, state) for generation, state in found]


async def accepts_writes(url: str, value: str | None = None) -> bool:
    """Whether a service would come up there; `value` is written then."""
    try:
        async with opened(url, OLD, create=False) as ledger:
            if value is not None:
                await ledger.put("told", value)
    except (LedgerMoved, MigrationInProgress, NotALedger):
        return False
    return True


def meanwhile(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Work of another process, done whole before this one goes on."""
    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()


async def tables(url: str) -> frozenset[str]:
    database = connect(url)
    try:
        return await database.run(database.tables, "snapshot")
    finally:
        await database.close()
