"""One ledger, one event loop, one process: elsewhere it says so, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from inside import open_unverified
from ledgers import OLD, opened
from secret_ledger import Keyring, LedgerUnavailable, SecretLedger, SecretNotFound

WORK: list[Callable[[SecretLedger], Awaitable[object]]] = [
    lambda ledger: ledger.get("a"),
    lambda ledger: ledger.put("a", "2"),
    lambda ledger: ledger.put_many({"a": "2"}),
    lambda ledger: ledger.verify("latest"),
]


async def _all_refused(ledger: SecretLedger) -> None:
    for work in WORK:
        with pytest.raises(LedgerUnavailable, match="opened in another"):
            async with asyncio.timeout(10):
                await work(ledger)
    assert (await ledger.health()).state == "unready"


@pytest.mark.parametrize("used", [True, False])
def test_another_event_loop_is_refused_and_the_first_goes_on(database_url: str, used: bool) -> None:
    with asyncio.Runner() as home:
        opening = opened(database_url, OLD)
        ledger = home.run(opening.__aenter__())
        if used:
            home.run(_put(ledger, "1"))
        asyncio.run(_all_refused(ledger))
        home.run(_put(ledger, "2"))
        home.run(_close(opening))
    asyncio.run(_holds(database_url, "2"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_while_it_is_open_is_refused_and_the_first_goes_on(
    database_url: str,
) -> None:
    with asyncio.Runner() as home:
        opening = opened(database_url, OLD)
        ledger = home.run(opening.__aenter__())
        home.run(_put(ledger, "1"))
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio.run(_all_refused(ledger))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        home.run(_put(ledger, "2"))
        home.run(_close(opening))
    asyncio.run(_holds(database_url, "2"))


async def _put(ledger: SecretLedger, value: str) -> None:
    await ledger.put("a", value)


async def _close(opening: object) -> None:
    await opening.__aexit__(None, None, None)  # type: ignore[attr-defined]


async def _holds(url: str, value: str) -> None:
    async with opened(url, OLD, verify="full") as ledger:
        assert (await ledger.get("a")).value.reveal_text() == value


# --- a host that cancels every task there is ---------------------------------------------


@pytest.mark.parametrize("turns", range(8))
async def test_a_host_that_cancels_all_other_tasks_leaves_nobody_waiting(
    database_url: str, turns: int
) -> None:
    """A common way to shut down; the ledger's own tasks are among them."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        calls = {asyncio.ensure_future(ledger.put(f"b/{n}", "x")) for n in range(3)}
        for _ in range(turns):
            await asyncio.sleep(0)
        me = asyncio.current_task()
        others = asyncio.all_tasks() - calls - {me}
        for task in others:
            task.cancel()
        async with asyncio.timeout(20):
            done = await asyncio.gather(*calls, return_exceptions=True)
        # The last words of a service, said while it shuts down.
        assert (await ledger.put("state", "stopped")).version == 1
        for number, outcome in enumerate(done):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, LedgerUnavailable), outcome
                if not outcome.outcome_unknown:
                    with pytest.raises(SecretNotFound):
                        await ledger.get(f"b/{number}")
            else:
                assert (await ledger.get(f"b/{number}")).version == outcome.version
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.get("state")).value.reveal_text() == "stopped"


@pytest.mark.parametrize("turns", range(4))
async def test_a_write_whose_writer_is_cancelled_before_its_turn_is_written_all_the_same(
    database_url: str, turns: int
) -> None:
    async with opened(database_url, OLD) as ledger:
        call = asyncio.ensure_future(ledger.put("a", "1"))
        writer: asyncio.Task[None] | None = None
        while writer is None:  # the first write makes it
            await asyncio.sleep(0)
            writer = ledger._writer._task
        for _ in range(turns):
            await asyncio.sleep(0)
        writer.cancel()
        async with asyncio.timeout(20):
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, BaseException):  # it was under way
            assert isinstance(outcome, LedgerUnavailable), outcome
            assert outcome.outcome_unknown
        assert turns or outcome == await ledger.get("a")


@pytest.mark.parametrize(
    "opening", [lambda url: opened(url, OLD), open_unverified], ids=["open", "open_unverified"]
)
def test_without_an_event_loop_of_asyncio_it_says_what_it_needs(
    sqlite_url: str, opening: Callable[[str], AbstractAsyncContextManager[object]]
) -> None:
    # As in a task of trio's, which drives coroutines by itself.
    with pytest.raises(LedgerUnavailable, match="works in asyncio's event loop") as caught:
        opening(sqlite_url).__aenter__().__await__().__next__()
    assert 'backend="asyncio"' in caught.value.hint


def test_without_an_event_loop_init_says_what_it_needs(sqlite_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="works in asyncio's event loop"):
        SecretLedger.init(sqlite_url, Keyring.of(OLD)).send(None)
