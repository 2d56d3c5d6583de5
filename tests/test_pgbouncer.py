"""Through PgBouncer in transaction mode, where each transaction may get another server.

Debian 12's release, 1.18, knows nothing of prepared statements; what works there works with
those that do. Where PgBouncer is not installed, all of this is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import pgbouncer_server
from certificates import authority
from daily_use import use
from fleet import check_history, start
from independent_fold import Folded
from inside import Connection, EventType
from ledgers import NEW, OLD, opened, refused, rows
from pgbouncer_server import MISSING, PgBouncer
from postgresql_server import PostgresServer, execute, process_runs, wait_until
from secret_ledger import KeyFingerprintMismatch, Keyring, LedgerUnavailable, SecretLedger

if pgbouncer_server.program() is None:
    pytest.skip(MISSING, allow_module_level=True)

STYLES = ("each", "shared")
PREPARED = "SELECT count(*) FROM pg_prepared_statements"


@pytest.fixture(scope="module")
def pooler(own_postgres: PostgresServer) -> Iterator[PgBouncer]:
    """Two server connections for everybody. Tests must not stop it."""
    with PgBouncer(own_postgres.url()) as pool:
        yield pool


@pytest.fixture
def pooled(pooler: PgBouncer, own_postgres_url: str) -> str:
    """An empty database, by way of the pooler."""
    return pooler.url(own_postgres_url)


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A client of the pooler, in one transaction: it keeps the server it got."""
    plain = url.replace("+asyncpg", "")
    connection = await asyncpg.connect(plain, statement_cache_size=0)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def asked(ledger: SecretLedger, query: str) -> int:
    """What the server that happens to answer says."""

    def unit(connection: Connection) -> int:
        return int(connection.exec_driver_sql(query).scalar_one())

    return await ledger.database.run(unit, "statement")


async def test_everything_works_while_statements_hop_between_servers(pooled: str) -> None:
    async with opened(pooled, OLD) as ledger:
        await use(ledger, "first")
        async with session(pooled) as other:  # takes the server that has served until now
            taken = await other.fetchval("SELECT pg_backend_pid()")
            await use(ledger, "second")
            assert await asked(ledger, "SELECT pg_backend_pid()") != taken
        await use(ledger, "third")
    async with opened(pooled, OLD, verify="full") as ledger:
        assert not ledger.created


async def test_nothing_is_left_behind_on_the_servers_of_the_pool(
    pooled: str, own_postgres_url: str
) -> None:
    database = own_postgres_url.rpartition("/")[2]
    # asyncpg switches it off and on again when it meets a new type.
    execute(own_postgres_url, f"ALTER DATABASE {database} SET jit = on")
    settings = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%.%'"
    async with session(pooled) as one, session(pooled) as two:
        before = [set(await client.fetch(settings)) for client in (one, two)]
    async with opened(pooled, OLD) as ledger:
        await asyncio.gather(*(ledger.put(f"n/{n}", "x") for n in range(20)))
        await asyncio.gather(*(ledger.get(f"n/{n}") for n in range(20)))
        await ledger.put_many({f"m/{n}": "x" for n in range(60)})
        await ledger.put_many({f"m/{n}": "x" for n in range(300)})
        assert (await ledger.verify("full")).ok
    async with session(pooled) as one, session(pooled) as two:
        pids = {await client.fetchval("SELECT pg_backend_pid()") for client in (one, two)}
        assert len(pids) == 2
        for client in (one, two):
            assert await client.fetchval(PREPARED) == 0
        after = [set(await client.fetch(settings)) for client in (one, two)]
        assert [new - old for old, new in zip(before, after, strict=True)] == [set(), set()]


async def test_an_engine_of_the_host_s_own_works_without_asyncpg_s_cache(pooled: str) -> None:
    unnamed = {"statement_cache_size": 0, "prepared_statement_name_func": str}
    engine = create_async_engine(pooled, connect_args=unnamed)
    async with SecretLedger.open(engine, Keyring.of(OLD)) as ledger:
        await use(ledger, "first")
        async with session(pooled):
            await use(ledger, "second")
    await engine.dispose()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
async def test_an_engine_that_names_its_statements_is_told_what_to_change(pooled: str) -> None:
    # One connection, so that it is the one which meets its statement's name again.
    engine = create_async_engine(pooled, pool_size=1, max_overflow=0)

    async def hop() -> None:
        async with SecretLedger.open(engine, Keyring.of(OLD)) as ledger:
            await ledger.put("a", "1")
            await ledger.get("a")  # prepared now, on the one server there is
            async with session(pooled):
                await ledger.get("a")

    with pytest.raises(LedgerUnavailable) as caught:
        await hop()
    await engine.dispose()
    assert caught.value.details["sqlstate"] in ("26000", "42P05")
    assert "statement_cache_size" in caught.value.hint


def written_once(events: Sequence[Folded]) -> None:
    """No write is in the log twice, acknowledged or not: each has a value of its own."""
    written = [(e.stream, e.value) for e in events if e.event_type == EventType.WRITTEN]
    assert len(written) == len(set(written))


async def test_writers_in_many_processes_share_a_pool_of_two(
    pooled: str, own_postgres_url: str
) -> None:
    writers = [
        await start(pooled, OLD, f"node{n}", style, tasks=4, count=15)
        for n, style in enumerate(("each", "batch", "shared", "shared"))
    ]
    assert [await writer.finish() for writer in writers] == [0, 0, 0, 0]
    told = [write for writer in writers for write in writer.acknowledged]
    assert len(told) == 4 * 4 * 15
    await check_history(own_postgres_url, OLD, told)


async def test_a_pool_of_one_starves_nobody(
    own_postgres: PostgresServer, own_postgres_url: str
) -> None:
    with PgBouncer(own_postgres.url(), {"default_pool_size": "1"}) as pool:
        url = pool.url(own_postgres_url)
        async with opened(url, OLD) as one, opened(url, OLD) as two:
            nodes = (one, two)
            writes = [node.put(f"{n}", "x") for n in range(40) for node in nodes]
            done = await asyncio.gather(*writes, *(node.verify("full") for node in nodes))
    assert len(done) == 82


async def test_of_first_boots_that_race_through_it_one_wins(
    pooled: str, own_postgres_url: str
) -> None:
    async def boot(number: int) -> str | KeyFingerprintMismatch:
        try:
            async with opened(pooled, (OLD, NEW)[number % 2]) as ledger:
                await ledger.put(f"from/{number}", "x")
                return ledger.ledger_id
        except KeyFingerprintMismatch as error:
            return error

    outcomes = await asyncio.gather(*(boot(n) for n in range(8)))
    ids = [o for o in outcomes if isinstance(o, str)]
    assert len(ids) == 4
    assert len(set(ids)) == 1
    found = await rows(own_postgres_url)
    assert len(found["ledger_meta"]) == len(found["ledger_head"]) == len(found["ledger_key"]) == 1


async def test_a_pooler_may_demand_tls(
    own_postgres: PostgresServer, own_postgres_url: str, tmp_path: Path
) -> None:
    ours = authority(tmp_path, "ours")
    certificate, key = ours.sign(tmp_path, "pooler", "127.0.0.1")
    files = {
        "client_tls_cert_file": certificate.read_bytes(),
        "client_tls_key_file": key.read_bytes(),
    }
    with PgBouncer(own_postgres.url(), {"client_tls_sslmode": "require"}, files) as pool:
        url = pool.url(own_postgres_url)
        async with opened(f"{url}?sslmode=verify-full&sslrootcert={ours.file}", OLD) as ledger:
            await ledger.put("a", "1")
        await refused(f"{url}?sslmode=disable", LedgerUnavailable, OLD)


async def test_restarts_of_the_pooler_under_load_lose_no_write_and_repeat_none(
    own_postgres: PostgresServer, own_postgres_url: str
) -> None:
    with PgBouncer(own_postgres.url()) as pool:
        url = pool.url(own_postgres_url)
        writers = [await start(url, OLD, f"n{n}", style) for n, style in enumerate(STYLES)]
        for how in ("terminate", "kill", "terminate"):
            for writer in writers:
                await writer.hear("wrote", len(writer.acknowledged) + 20)
            await asyncio.to_thread(pool.restart, how)
        for writer in writers:
            await writer.hear("wrote", len(writer.acknowledged) + 20)
            await writer.kill()
    told = [write for writer in writers for write in writer.acknowledged]
    assert len(told) >= 2 * 4 * 20 - 2
    written_once(await check_history(own_postgres_url, OLD, told))


async def test_restarts_of_the_server_behind_it_lose_no_write_and_repeat_none(
    private_postgres: PostgresServer,
) -> None:
    direct = private_postgres.create_database("behind")
    with PgBouncer(private_postgres.url()) as pool:
        writers = [
            await start(pool.url(direct), OLD, f"n{n}", style) for n, style in enumerate(STYLES)
        ]
        for end in (private_postgres.restart, private_postgres.kill):
            for writer in writers:
                await writer.hear("wrote", len(writer.acknowledged) + 20)
            await asyncio.to_thread(end)
            await asyncio.to_thread(private_postgres.start)
        for writer in writers:
            await writer.hear("wrote", len(writer.acknowledged) + 20)
            await writer.kill()
    told = [write for writer in writers for write in writer.acknowledged]
    assert len(told) >= 2 * 3 * 20 - 2
    written_once(await check_history(direct, OLD, told))


async def test_a_ledger_at_rest_does_not_notice_a_restart_of_the_pooler(
    own_postgres: PostgresServer, own_postgres_url: str
) -> None:
    with PgBouncer(own_postgres.url()) as pool:
        async with opened(pool.url(own_postgres_url), OLD) as ledger:
            await ledger.put("a", "1")
            await asyncio.gather(*(ledger.verify() for _ in range(20)))  # fills our own pool
            await asyncio.to_thread(pool.restart)
            reports = await asyncio.gather(*(ledger.verify() for _ in range(20)))
            assert all(report.ok for report in reports)


def test_a_pooler_whose_owner_is_killed_ends(own_postgres: PostgresServer) -> None:
    program = (
        "import sys, time; from pgbouncer_server import PgBouncer as P\n"
        "p = P(sys.argv[1]); p.start(); print(p.pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, own_postgres.url()],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(pgbouncer_server.__file__).parent)},
    )
    assert owner.stdout is not None
    with owner.stdout:
        pid = int(owner.stdout.readline())
    assert process_runs(pid)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    assert wait_until(lambda: not process_runs(pid), 30)
