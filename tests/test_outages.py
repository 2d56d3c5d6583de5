"""A server that is out of reach for a moment: long work goes on, as a write does."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from connections import around
from cutting_proxy import CuttingProxy
from fleet import check_history
from inside import RETRIES, emptying, pages, reads
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import (
    Keyring,
    LedgerError,
    LedgerUnavailable,
    SecretLedger,
    upgrade_schema,
)
from secret_ledger_projections import SysSecret, catch_up, check, rebuild
from waiting import until

SECRETS = 12


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction does little, so that there are many between which a wire can be cut."""
    monkeypatch.setattr(reads, "PAGE_BYTES", 1)
    monkeypatch.setattr(pages, "PAGE", 2)
    monkeypatch.setattr(emptying, "BATCH", 3)


@contextmanager
def cut_at_every_fourth_kind_of_statement(proxy: CuttingProxy) -> Iterator[Counter[str]]:
    """Of every fourth statement, the first time that it is sent, its connection is torn."""
    seen: Counter[str] = Counter()

    def cut(original: Any, connection: Any, statement: Any, *given: Any) -> Any:
        sql = re.sub(r"\d+", "n", getattr(statement, "sql", str(statement)))
        seen[sql] += 1
        if seen[sql] == 1 and len(seen) % 4 == 2:
            proxy.sever()
        return original(connection, statement, *given)

    with around("execute", cut), around("script", cut):
        yield seen


@asynccontextmanager
async def filled(url: str) -> AsyncIterator[tuple[CuttingProxy, SecretLedger]]:
    async with (
        CuttingProxy(url) as proxy,
        opened(proxy.url, NEW, OLD, heartbeat=3600, patience=30) as ledger,
    ):
        for version in range(3):
            await ledger.put_many({f"s/{n}": f"{version}" for n in range(SECRETS)})
        await ledger.delete("s/1")
        await ledger.destroy("s/2", reason="test")
        yield proxy, ledger


WORK: dict[str, Callable[[SecretLedger], Awaitable[object]]] = {
    "rotate": lambda ledger: ledger.rotate(),
    "rekey": lambda ledger: ledger.rekey(),
    "migrate": lambda ledger: ledger.migrate(),
    "purge": lambda ledger: ledger.purge_generation(0),
    "retire": lambda ledger: ledger.retire("k-old"),
    "rebuild": lambda ledger: rebuild(ledger.database, SysSecret()),
    "census": lambda ledger: ledger.census(),
    "generations": lambda ledger: ledger.generations(),
}


async def test_a_life_of_a_ledger_goes_on_through_outages_between_any_two_statements(
    postgres_url: str, small_parts: None
) -> None:
    async with opened(postgres_url, OLD):
        pass
    async with filled(postgres_url) as (proxy, ledger):
        for name, work in WORK.items():
            with cut_at_every_fourth_kind_of_statement(proxy) as seen:
                await work(ledger)
            assert seen, name
        assert (await ledger.verify("full")).ok
        assert [g.state for g in await ledger.generations()] == ["purged", "active"]
        assert [one async for one in check(ledger.database, SysSecret())] == []
    await check_history(postgres_url, NEW, [])


async def test_catching_up_goes_on_through_outages(postgres_url: str, small_parts: None) -> None:
    async with opened(postgres_url, NEW, projections=()) as writer:
        await writer.put_many({f"s/{n}": "x" for n in range(SECRETS)})
        async with (
            CuttingProxy(postgres_url) as proxy,
            opened(proxy.url, NEW, projections=(), patience=30) as ledger,
        ):
            with cut_at_every_fourth_kind_of_statement(proxy):
                assert await catch_up(ledger.database, SysSecret()) == writer.position
            assert [one async for one in check(ledger.database, SysSecret())] == []


async def test_work_ends_typed_where_the_outage_lasts(postgres_url: str) -> None:
    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, OLD, patience=0.3) as ledger,
    ):
        proxy.down = True
        proxy.sever()
        for work in WORK.values():
            with pytest.raises(LedgerError) as caught:
                await work(ledger)
            assert caught.value.code == "ledger_unavailable"
        proxy.down = False
        assert (await ledger.put("a", "1")).version == 1


async def test_what_a_restore_reads_first_rides_an_outage_out_as_the_write_does(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD):
        pass
    async with filled(postgres_url) as (proxy, ledger):
        proxy.down = True
        proxy.sever()
        before = proxy.connections
        restoring = asyncio.ensure_future(ledger.restore("s/1"))

        async def has_tried_often() -> bool:
            return proxy.connections > before + 2 * len(RETRIES) or restoring.done()

        await until(has_tried_often)
        assert not restoring.done()
        proxy.down = False
        assert (await restoring).version == 5
        assert (await ledger.get("s/1")).value.reveal_text() == "2"


async def test_an_outage_ends_a_rekey_and_is_no_reason_to_skip_a_secret(postgres_url: str) -> None:
    """An older release did not state how far a secret had ended, so its versions are read."""
    async with building(postgres_url, OLD, upto=5) as log:
        await log.put("a", b"one")
        await log.put("a", b"two")
    await upgrade_schema(postgres_url, Keyring.of(OLD))
    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, NEW, OLD, heartbeat=3600, patience=0.2) as ledger,
    ):
        await ledger.rotate()
        walk = ledger.database.statements.newest_of

        def cut(original: Any, connection: Any, statement: Any, *given: Any) -> Any:
            if statement is walk:  # whenever it is tried; all other statements get through
                proxy.sever()
            return original(connection, statement, *given)

        with around("execute", cut), pytest.raises(LedgerUnavailable):
            await ledger.rekey()
        assert (await ledger.rekey()).rekeyed == 1
