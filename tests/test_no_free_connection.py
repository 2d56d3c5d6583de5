"""A server that has no connection to give: what is open works, and patience is used (53300)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from database_roles import Roles, name_of, roles_of
from ledgers import OLD, opened, refused
from postgresql_server import PostgresServer, execute
from secret_ledger import Keyring, LedgerUnavailable, SecretLedger
from waiting import until

REFUSAL = "too many connections for role"


@pytest.fixture
async def limited(own_postgres_url: str) -> AsyncIterator[Roles]:
    """A ledger whose service's role may hold one connection at a time."""
    with roles_of(own_postgres_url) as roles:
        async with opened(roles.owner, OLD) as ledger:
            await ledger.put("a", "1")
        roles.grant()
        execute(roles.admin, f"ALTER ROLE {name_of(roles.runtime)} CONNECTION LIMIT 1")
        yield roles


@asynccontextmanager
async def taken(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else holds the only connection."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


def refusals(server: PostgresServer) -> int:
    return server.log.read_text("utf-8", "replace").count(REFUSAL)


async def refused_again(server: PostgresServer, before: int) -> None:
    """Until whoever tries has been refused more than once."""

    async def twice() -> bool:
        return refusals(server) > before + 1

    await until(twice)


async def test_calls_at_once_share_the_one_connection_that_works(limited: Roles) -> None:
    async with opened(limited.runtime, OLD) as ledger:
        found = await asyncio.gather(*(ledger.get("a") for _ in range(20)))
        assert {each.value.reveal() for each in found} == {b"1"}
        await asyncio.gather(*(ledger.put(f"b/{n}", "1") for n in range(5)), ledger.health())
        assert (await ledger.verify("full")).ok


async def test_a_host_s_own_engine_shares_it_too(limited: Roles) -> None:
    engine = create_async_engine(limited.runtime)
    async with SecretLedger.open(engine, Keyring.of(OLD)) as ledger:
        found = await asyncio.gather(*(ledger.get("a") for _ in range(20)))
        assert {each.value.reveal() for each in found} == {b"1"}
    await engine.dispose()


async def test_opening_waits_until_a_connection_is_free(
    limited: Roles, own_postgres: PostgresServer
) -> None:
    before = refusals(own_postgres)
    async with taken(limited.runtime) as other:

        async def give_back() -> None:
            await refused_again(own_postgres, before)
            await other.close()

        giving = asyncio.create_task(give_back())
        async with opened(limited.runtime, OLD) as ledger:
            assert (await ledger.get("a")).value.reveal() == b"1"
        await giving


async def test_a_read_waits_until_a_connection_is_free(
    limited: Roles, own_postgres: PostgresServer
) -> None:
    async with opened(limited.runtime, OLD, read_only=True) as ledger:
        await ledger.database._engine.dispose()  # type: ignore[attr-defined]
        async with taken(limited.runtime) as other:
            before = refusals(own_postgres)
            reading = asyncio.create_task(ledger.get("a"))
            await refused_again(own_postgres, before)
            assert not reading.done()
            await other.close()
            assert (await reading).value.reveal() == b"1"


async def test_who_has_waited_long_enough_is_told_what_is_missing(limited: Roles) -> None:
    async with taken(limited.runtime):
        error = await refused(limited.runtime, LedgerUnavailable, OLD, patience=0.1)
    assert error.details["sqlstate"] == "53300"
    assert "no free connection" in error.message
    assert "max_connections" in error.hint
    assert not error.outcome_unknown


async def test_closing_does_not_wait_for_a_connection(limited: Roles) -> None:
    async with opened(limited.runtime, OLD, read_only=True) as ledger:
        await ledger.database._engine.dispose()  # type: ignore[attr-defined]
        async with taken(limited.runtime):
            reading = asyncio.create_task(ledger.get("a"))
            await asyncio.sleep(0)
            await ledger.database.close()
            with pytest.raises(LedgerUnavailable):
                await reading
