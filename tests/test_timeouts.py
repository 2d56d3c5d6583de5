"""Timeouts that a DBA sets on the service's role: an append is tried again or refused whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from connections import around
from daily_use import use
from database_roles import Roles, name_of, roles_of
from inside import PAGE, Connection, Database, LogHead, Rows
from ledgers import OLD, opened
from postgresql_server import execute
from secret_ledger import Event, Keyring, LedgerUnavailable, SecretLedger, init_ledger
from secret_ledger_projections import SysSecret, check, default, rebuild
from waiting import until

REASONS = tuple(map(int, asyncpg.__version__.split(".")[:2])) >= (0, 32)
"""Whether asyncpg passes on why the server ended a connection."""
KEYRING = Keyring.of(OLD)


@pytest.fixture
async def roles(own_postgres_url: str) -> AsyncIterator[Roles]:
    with roles_of(own_postgres_url) as roles:
        await init_ledger(roles.owner, KEYRING)
        roles.grant()
        yield roles


def limit(roles: Roles, setting: str, value: str) -> None:
    execute(roles.admin, f"ALTER ROLE {name_of(roles.runtime)} SET {setting} = '{value}'")


def ask(url: str, query: str) -> object:
    """Ask the server while our own event loop stands still."""

    async def asking() -> object:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asking()).result()


@asynccontextmanager
async def held_head(roles: Roles) -> AsyncIterator[asyncpg.Connection]:
    """Somebody holds the row that every append has to lock."""
    connection = await asyncpg.connect(roles.admin.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM secret_ledger.ledger_head FOR UPDATE")
            yield connection
    finally:
        await connection.close()


async def is_whole(ledger: SecretLedger, **versions: int) -> None:
    """The log verifies, and holds these secrets at these versions and no others."""
    report = await ledger.verify("full")
    assert report.ok, report.findings
    assert {s.name: s.version async for s in ledger.list()} == versions


@contextmanager
def row_counts() -> Iterator[list[int]]:
    """How many rows each statement gave, as the driver counts them."""
    counts: list[int] = []

    def execute(original: Any, *given: Any) -> Rows:
        rows: Rows = original(*given)
        counts.append(rows.rowcount)
        return rows

    with around("execute", execute):
        yield counts


@contextmanager
def connections() -> Iterator[list[asyncpg.Connection]]:
    """Every connection that a pool makes."""
    made: list[asyncpg.Connection] = []

    def note(adapted: Any, record: object) -> None:
        made.append(adapted.driver_connection)

    event.listen(Pool, "connect", note)
    try:
        yield made
    finally:
        event.remove(Pool, "connect", note)


@pytest.mark.parametrize(
    ("setting", "state"),
    [
        # The row's lock is waited for as long as the caller's patience lasts, whatever the role's.
        ("lock_timeout", "55P03"),
        ("statement_timeout", "57014"),
        ("transaction_timeout", "25P04"),
    ],
)
async def test_an_append_that_hits_a_timeout_is_a_typed_error_and_leaves_nothing(
    roles: Roles, setting: str, state: str
) -> None:
    limit(roles, setting, "1s")
    async with opened(roles.runtime, OLD, patience=1.5) as ledger:
        await ledger.put("a", "1")
        async with held_head(roles):
            for write in (ledger.put("a", "2"), ledger.put_many({"a": "3", "b": "1"})):
                with pytest.raises(LedgerUnavailable) as caught:
                    await write
                ended = setting == "transaction_timeout" and not REASONS
                assert caught.value.details["sqlstate"] == ("08003" if ended else state)
                assert setting == "lock_timeout" or setting in caught.value.hint
                assert not caught.value.details.get("outcome_unknown")
        await is_whole(ledger, a=1)
        assert (await ledger.put("a", "2", expect=1)).version == 2
        await is_whole(ledger, a=2)


@pytest.mark.parametrize(
    ("setting", "transactions"),
    [("lock_timeout", 1), ("statement_timeout", 2), ("transaction_timeout", 2)],
)
async def test_an_append_goes_on_until_the_row_is_free(
    roles: Roles, setting: str, transactions: int
) -> None:
    limit(roles, setting, "1s")
    async with opened(roles.runtime, OLD, patience=60) as ledger:
        async with held_head(roles) as holder:
            write = asyncio.ensure_future(ledger.put("a", "1", expect=0))
            began = set()

            async def has_waited() -> bool:
                await holder.execute("SELECT pg_stat_clear_snapshot()")
                began.add(
                    await holder.fetchval(
                        "SELECT xact_start FROM pg_stat_activity"
                        " WHERE wait_event_type = 'Lock' AND usename = $1",
                        name_of(roles.runtime),
                    )
                )
                return len(began - {None}) >= transactions

            await until(has_waited)
            assert not write.done()
        assert (await write).version == 1
        await is_whole(ledger, a=1)


class Stalling:
    """Like `sys_secret`, but it lets the server end the session in the midst of an append."""

    name = "stalling"

    def __init__(self, url: str, times: int) -> None:
        self._url, self._times = url, times
        (self._inner,) = default()

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        if self._times:
            self._times -= 1
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"  # noqa: S608
            deadline = time.monotonic() + 60
            while ask(self._url, query):
                assert time.monotonic() < deadline
        self._inner.apply(connection, database, head, events)

    async def catch_up(self, database: Database) -> int:
        return await self._inner.catch_up(database)


async def test_a_session_that_is_ended_in_an_append_is_one_append_in_another(
    roles: Roles,
) -> None:
    limit(roles, "idle_in_transaction_session_timeout", "1s")
    stalling = [Stalling(roles.admin, times=2)]
    async with opened(roles.runtime, OLD, projections=stalling, patience=60) as ledger:
        assert (await ledger.put_many({"a": "1", "b": "1"}))[0].version == 1
        await is_whole(ledger, a=1, b=1)


async def test_without_patience_the_end_of_a_session_is_a_typed_error(roles: Roles) -> None:
    limit(roles, "idle_in_transaction_session_timeout", "1s")
    stalling = [Stalling(roles.admin, times=1)]
    async with opened(roles.runtime, OLD, projections=stalling, patience=0.0) as ledger:
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.put_many({"a": "1", "b": "1"})
        assert caught.value.details["sqlstate"] == ("25P03" if REASONS else "08003")
        assert "idle_in_transaction_session_timeout" in caught.value.hint
        assert not caught.value.details.get("outcome_unknown")
        await is_whole(ledger)
        assert (await ledger.put("a", "2")).version == 1
        await is_whole(ledger, a=1)


async def test_sessions_that_are_ended_while_they_rest_are_replaced(roles: Roles) -> None:
    with connections() as made:
        async with opened(roles.runtime, OLD, patience=0.0) as ledger:
            await ledger.put("a", "1")
            await asyncio.gather(*(ledger.verify() for _ in range(10)))
            # As idle_session_timeout does it, but at a moment of our choice.
            role = name_of(roles.runtime)
            execute(
                roles.admin,
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",  # noqa: S608  # a name of our own
            )

            async def noticed() -> bool:
                return all(connection.is_closed() for connection in made)

            await until(noticed)
            for report in await asyncio.gather(*(ledger.verify() for _ in range(10))):
                assert report.ok
            await is_whole(ledger, a=1)


async def test_a_service_lives_with_all_of_them(roles: Roles) -> None:
    for setting in (
        "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
        "transaction_timeout",
    ):  # fmt: skip
        limit(roles, setting, "2s")
    async with opened(roles.runtime, OLD) as ledger:
        await use(ledger, "a")


async def test_scans_of_a_long_log_are_short_statements(roles: Roles) -> None:
    """What a timeout of statements spares however long the log: pages, not one query."""
    events = 6 * PAGE
    async with opened(roles.runtime, OLD) as ledger:
        for start in range(0, events, PAGE):
            await ledger.put_many({f"n/{n}": "x" for n in range(start, start + PAGE)})
    limit(roles, "statement_timeout", "2s")
    async with opened(roles.runtime, OLD, verify="full") as ledger:
        with row_counts() as counts:
            assert (await ledger.verify("full")).ok
            assert (await ledger.verify("latest")).ok
            assert [d async for d in check(ledger.database, SysSecret())] == []
            assert (await rebuild(ledger.database, SysSecret())).rows == events
            assert len([s async for s in ledger.list()]) == events
    assert sum(counts) > 5 * events
    assert max(counts) <= PAGE
