"""Holding a transaction of the ledger just before its commit, until others wait for its lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy.util import await_only

from connections import around, each_statement
from independent_fold import read_rows
from inside import Connection, Database, LogHead
from secret_ledger import Event
from waiting import until

_THREADS: Final = Path("/proc/self/task")
_WAITING_ON_POSTGRESQL: Final = """
    SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
      AND query LIKE '%ledger_head%FOR UPDATE%' AND cardinality(pg_blocking_pids(pid)) > 0
"""


class HeldCommit:
    """An inline projection that comes last in a transaction, which holds the head row's lock:
    what it is given to wait for happens between the transaction's last statement and its
    commit. Once; later transactions pass."""

    name: Final = "held_commit"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None:
            return
        if database.name == "postgresql":
            await_only(meanwhile())
        else:  # on the thread that writes; the loop runs on

            async def awaited() -> None:
                await meanwhile()

            asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    async def catch_up(self, database: Database) -> int:
        self._loop = asyncio.get_running_loop()
        return 0


class Waiters:
    """Who waits for the lock of a ledger's writers, as the database shows it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._begun: list[tuple[int, int]] = []
        """SQLite: each thread that has begun to ask for the lock, and how often it had been
        put to sleep by then."""

    async def come(self, number: int) -> None:
        """Wait until so many transactions wait for the lock."""

        async def all_there() -> bool:
            return await self._waiting() >= number

        await until(all_there)

    async def _waiting(self) -> int:
        if not self._url.startswith("sqlite"):
            ((waiting,),) = await read_rows(self._url, _WAITING_ON_POSTGRESQL)
            return int(waiting)
        if not _THREADS.exists():  # not Linux: that they have begun to ask must do
            return len(self._begun)
        # Between its BEGIN IMMEDIATE and the lock a thread does nothing but try, and sleep.
        # It may have slept for Python's own lock once on its way in; not three times.
        return sum(_sleeps(thread) >= before + 3 for thread, before in self._begun)

    def _begin(self, original: Any, connection: Any, *given: Any) -> None:
        if self._url.startswith("sqlite"):
            connection.raw.set_trace_callback(self._trace)
        original(connection, *given)

    def _trace(self, statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            thread = threading.get_native_id()
            self._begun.append((thread, _sleeps(thread)))


def _sleeps(thread: int) -> int:
    """How often a thread of this process gave up the processor to wait."""
    if not _THREADS.exists():
        return 0
    status = (_THREADS / str(thread) / "status").read_text()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])


@contextmanager
def watching_waiters(url: str) -> Iterator[Waiters]:
    """Watch the ledgers of this process that begin a transaction from now on."""
    waiters = Waiters(url)
    with around("begin", waiters._begin):
        yield waiters


@contextmanager
def counting_statements() -> Iterator[list[str]]:
    """Every statement that is sent meanwhile, in order; no BEGIN or COMMIT."""
    statements: list[str] = []
    with each_statement(statements.append):
        yield statements
