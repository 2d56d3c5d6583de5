"""A primary with a hot standby that streams from it: two real servers, each to stop and kill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from postgresql_server import PASSWORD, USER, PostgresServer

DATABASE = "replicated"
_SECONDS = 60.0


class StandbyServer(PostgresServer):
    """A copy of a running primary, which follows it by streaming replication."""

    def __init__(self, primary: PostgresServer, **settings: str) -> None:
        super().__init__({"cluster_name": "standby", **settings})
        self._primary = primary

    def _fill(self, data: Path) -> None:
        # Its application_name is what the primary's synchronous_standby_names can name.
        origin = f"host=127.0.0.1 port={self._primary.port} user={USER} application_name=standby"
        self._carry_out(
            "pg_basebackup",
            *("--dbname", origin, "--pgdata", str(data), "--write-recovery-conf"),
            *("--checkpoint", "fast", "--wal-method", "stream", "--no-sync"),
        )


def ask(server: PostgresServer, query: str, database: str = DATABASE) -> Any:
    """The first value that a query gives. Blocks; works inside a running event loop."""

    async def run() -> Any:
        url = server.url(database).replace("+asyncpg", "")
        connection = await asyncpg.connect(url, timeout=_SECONDS)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def wait_until(server: PostgresServer, condition: str) -> None:
    """Wait until a query is true. Blocks, as `ask`."""
    deadline = time.monotonic() + _SECONDS
    while not ask(server, condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Pair:
    """A primary and its standby. Its methods block; call them in a thread under load."""

    primary: PostgresServer
    standby: PostgresServer

    def url(self, *servers: PostgresServer, **query: str) -> str:
        """A URL that names these servers in order, default both, the primary first."""
        named = [f"host=127.0.0.1:{s.port}" for s in servers or (self.primary, self.standby)]
        rest = [f"{name}={value}" for name, value in query.items()]
        parameters = "&".join(named + rest)
        return f"postgresql+asyncpg://{USER}:{PASSWORD}@/{DATABASE}?{parameters}"

    def replicate_synchronously(self) -> None:
        """From now on a commit waits until the standby has it on disk."""
        ask(self.primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        ask(self.primary, "SELECT pg_reload_conf()")
        wait_until(
            self.primary,
            "SELECT count(*) = 1 FROM pg_stat_replication"
            " WHERE state = 'streaming' AND sync_state = 'sync'",
        )

    def catch_up(self) -> None:
        """Wait until the standby has replayed all that the primary has written by now."""
        written = ask(self.primary, "SELECT pg_current_wal_flush_lsn()::text")
        wait_until(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn")

    def hold_replay(self) -> None:
        """The standby still receives, and shows none of it any more."""
        ask(self.standby, "SELECT pg_wal_replay_pause()")
        wait_until(self.standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def resume_replay(self) -> None:
        """The standby shows again what it receives."""
        ask(self.standby, "SELECT pg_wal_replay_resume()")

    def cut(self) -> None:
        """The standby receives nothing any more: what the primary commits from now on is lost
        when it dies."""
        ask(self.standby, "ALTER SYSTEM SET primary_conninfo = ''")
        ask(self.standby, "SELECT pg_reload_conf()")
        wait_until(self.primary, "SELECT count(*) = 0 FROM pg_stat_replication")

    def promote(self) -> None:
        """Make the standby a primary."""
        assert ask(self.standby, "SELECT pg_promote()")

    def fail_over(self) -> None:
        """kill -9 for the whole primary, then promote the standby."""
        self.primary.kill()
        self.promote()


@contextmanager
def replicated(*, synchronous: bool = False, **standby_settings: str) -> Iterator[Pair]:
    """A pair of servers that ends with the block, with an empty database."""
    with PostgresServer() as primary:
        primary.create_database(DATABASE)
        with StandbyServer(primary, **standby_settings) as standby:
            pair = Pair(primary, standby)
            wait_until(primary, "SELECT count(*) = 1 FROM pg_stat_replication")
            if synchronous:
                pair.replicate_synchronously()
            pair.catch_up()
            yield pair
