"""A write of which nobody knows whether it was committed: whatever error ends it says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from attacker import attacking, put_back, saved
from commits import before_commit
from connections import each_statement
from cutting_proxy import CuttingProxy
from fleet import check_history, whole_log
from ledgers import NEW, OLD, opened
from secret_ledger import LedgerError, LedgerUnavailable, SecretLedger, TamperedEvent
from waiting import until


async def take_logins(url: str, *, allowed: bool) -> None:
    """Whether a database lets anybody in. Who is in stays in."""
    name = make_url(url).database
    other = make_url(url).set(drivername="postgresql", database="postgres")
    connection = await asyncpg.connect(other.render_as_string(hide_password=False))
    try:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}')
    finally:
        await connection.close()


@pytest.mark.parametrize("write", ["put", "put_many", "delete", "destroy", "rotate"])
async def test_a_login_that_is_refused_at_the_second_try_does_not_hide_the_first(
    postgres_url: str, write: str
) -> None:
    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, OLD, heartbeat=3600) as ledger,
    ):
        await ledger.put("a", "1")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: ledger.put("a", "2"),
            "put_many": lambda: ledger.put_many({"a": "2", "b": "1"}),
            "delete": lambda: ledger.delete("a"),
            "destroy": lambda: ledger.destroy("a", reason="test"),
            "rotate": lambda: ledger.rotate(NEW),
        }
        before = ledger.position
        await take_logins(postgres_url, allowed=False)

        def cut() -> None:
            proxy.cut = "before its answer arrives"

        try:
            with before_commit(1, cut), pytest.raises(LedgerUnavailable) as caught:
                await calls[write]()
        finally:
            await take_logins(postgres_url, allowed=True)
        assert proxy.cuts == 1
        assert caught.value.outcome_unknown
        assert "whether the write was committed is unknown" in caught.value.message
        assert "55000" in caught.value.message
        assert caught.value.hint.endswith("before you write it again, and state `expect`")
        assert len(await whole_log(ledger)) > before  # and so it was, this time


async def test_a_log_that_got_shorter_at_the_second_try_stays_damage_and_does_not_hide_the_first(
    postgres_url: str,
) -> None:
    """A fail-over to a standby that lagged, in the midst of a commit."""
    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, OLD, patience=60, heartbeat=3600) as ledger,
        attacking(postgres_url) as database,
    ):
        await ledger.put("a", "1")
        before = await saved(database, "secret_event", "ledger_head")
        await ledger.put("a", "2")
        proxy.cut, proxy.down_after_cut = "before the commit arrives", True
        write = asyncio.create_task(ledger.put("a", "3"))

        async def is_cut() -> bool:
            return proxy.down

        await until(is_cut)
        await put_back(database, before)
        proxy.down = False
        with pytest.raises(TamperedEvent, match="behind position") as caught:
            await write
        assert caught.value.outcome_unknown
        assert caught.value.message.startswith("whether the write was committed is unknown")


async def test_an_error_that_nobody_foresaw_at_the_second_try_writes_nobody_twice(
    postgres_url: str,
) -> None:
    """Where a batch's error is one caller's, each is tried alone: not where it was committed."""
    failing = False

    def fail(statement: str) -> None:
        nonlocal failing
        if failing and "FOR UPDATE" in statement:
            failing = False
            raise ZeroDivisionError("hunter2")

    async with (
        CuttingProxy(postgres_url) as proxy,
        opened(proxy.url, OLD, heartbeat=3600) as ledger,
    ):
        await ledger.put("warm", "1")
        proxy.cut = "before its answer arrives"

        async def second_try() -> None:
            nonlocal failing

            async def is_cut() -> bool:
                return proxy.cuts == 1

            await until(is_cut)
            failing = True

        with each_statement(fail):
            writes = [asyncio.create_task(ledger.put(name, "1")) for name in "abc"]
            await second_try()
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert not failing
        for outcome in outcomes:
            assert isinstance(outcome, LedgerUnavailable)
            assert outcome.outcome_unknown
            assert "hunter2" not in repr(outcome)
        written = Counter(event.stream for event in await whole_log(ledger))
        assert {written[name] for name in "abc"} == {1}
    await check_history(postgres_url, OLD, [])


async def test_what_the_database_refuses_at_the_commit_is_known_not_to_be_there(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("a", "1")
        await _refuse_at_commit(ledger)
        with pytest.raises(LedgerError) as caught:
            await ledger.put("a", "2")
        assert not caught.value.outcome_unknown
        assert len(await whole_log(ledger)) == ledger.position


async def _refuse_at_commit(ledger: SecretLedger) -> None:
    for statement in (
        "CREATE FUNCTION secret_ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON secret_ledger.secret_event"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION secret_ledger.refuse()",
    ):
        await ledger.database.run(lambda c, s=statement: c.exec_driver_sql(s), "write")  # type: ignore[misc]
