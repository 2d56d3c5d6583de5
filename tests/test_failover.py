"""A primary dies and its standby is promoted, under a service that is never restarted."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from attacker import attacking, put_back, saved
from cutting_proxy import CuttingProxy
from fleet import Acknowledged, check_history, start, whole_log
from inside import SILENCE, Connection, PostgresqlConnection, is_transient
from ledgers import OLD, opened, refused
from postgresql_server import DatabaseHost
from secret_ledger import LedgerUnavailable, SecretLedger, TamperedEvent
from standby import DATABASE, Pair, ask, replicated


@pytest.fixture
def pair() -> Iterator[Pair]:
    with replicated() as two:
        yield two


def die(pair: Pair) -> None:
    pair.fail_over()


def stop(pair: Pair) -> None:
    pair.primary.stop("immediate")
    pair.promote()


def switch(pair: Pair) -> None:
    """As planned: the primary ends in order, and the standby has all of it."""
    pair.primary.stop("fast")
    pair.promote()


async def _grown(told: list[Acknowledged], by: int) -> None:
    goal = len(told) + by
    while len(told) < goal:  # noqa: ASYNC110  # lets the writers run; they end it
        await asyncio.sleep(0)


async def everything(ledger: SecretLedger) -> None:
    """Each way to read or write; it must be refused each time."""
    calls: list[Callable[[], object]] = [
        lambda: ledger.get("a"),
        lambda: ledger.put("a", "x"),
        lambda: ledger.verify(),
        lambda: anext(aiter(ledger.list())),
        lambda: anext(aiter(ledger.history("a"))),
    ]
    for call in calls:
        with pytest.raises(TamperedEvent):
            await call()  # type: ignore[misc]


# --- nothing is lost with synchronous replication ---------------------------------------------


@pytest.mark.parametrize("end", [die, stop, switch])
async def test_with_synchronous_replication_a_fail_over_under_load_loses_no_acknowledged_write(
    end: Callable[[Pair], None],
) -> None:
    told: list[Acknowledged] = []
    refusals: list[tuple[str, LedgerUnavailable]] = []
    done = asyncio.Event()
    with replicated(synchronous=True) as pair:
        async with opened(pair.url(), OLD, patience=30) as ledger:
            others = [await start(pair.url(), OLD, style, style) for style in ("shared", "batch")]

            async def work(task: int) -> None:
                number = 0
                while not done.is_set():
                    number += 1
                    unique = f"here-{task}-{number}"
                    try:
                        written = await ledger.put(f"here/{task}", unique)
                    except LedgerUnavailable as error:
                        refusals.append((unique, error))
                        continue
                    told.append(
                        Acknowledged([written.name], [written.version], [written.position], unique)
                    )
                    try:
                        assert (await ledger.get(f"here/{task}")).value.reveal_text() == unique
                    except LedgerUnavailable as error:
                        assert is_transient(error)  # noqa: PT017  # it may also succeed

            async with asyncio.TaskGroup() as group:
                for task in range(6):
                    group.create_task(work(task))
                for other in others:
                    await other.hear("wrote", 10)
                await _grown(told, 50)
                await asyncio.to_thread(end, pair)
                await _grown(told, 50)
                for other in others:
                    await other.hear("wrote", len(other.acknowledged) + 20)
                done.set()
            await asyncio.gather(*(other.kill() for other in others))
            assert all(other.acknowledged for other in others)
            assert (await ledger.health()).ready
            values = Counter(
                [
                    (await ledger.get(e.stream, version=e.version)).value.reveal_text()
                    for e in await whole_log(ledger)
                    if e.event_type == "secret.written"
                ]
            )
        assert set(values.values()) == {1}  # each value was made once, so none is there twice
        for unique, error in refusals:
            assert error.outcome_unknown or unique not in values
        told += [t for other in others for t in other.acknowledged]
        events = await check_history(pair.url(), OLD, told)
        assert len(events) > len(told)


async def test_a_commit_that_waits_for_a_dead_standby_is_acknowledged_only_once_it_is_safe(
    pair: Pair,
) -> None:
    """Its connection is lost while it waits; it is on the primary's disk, and visible after a
    crash. Found there again, it must still wait for the standby."""
    pair.replicate_synchronously()
    async with opened(pair.primary.url(DATABASE), OLD, patience=60) as ledger:
        await ledger.put("a", "1")
        pair.standby.stop("fast")
        write = asyncio.create_task(ledger.put("a", "2"))
        waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        while not await asyncio.to_thread(ask, pair.primary, waiting):
            pass
        await asyncio.to_thread(pair.primary.kill)
        await asyncio.to_thread(pair.primary.start)
        while not await asyncio.to_thread(ask, pair.primary, waiting):
            assert not write.done()
        assert not write.done()
        await asyncio.to_thread(pair.standby.start)
        assert (await write).version == 2
        await asyncio.to_thread(pair.fail_over)
        async with opened(pair.standby.url(DATABASE), OLD) as after:
            assert (await after.get("a")).value.reveal() == b"2"
            assert len(await whole_log(after)) == 5


# --- which host ----------------------------------------------------------------------------------


async def test_of_several_hosts_the_one_that_takes_writes_is_written_to(pair: Pair) -> None:
    async with opened(pair.url(pair.standby, pair.primary), OLD) as ledger:
        assert (await ledger.put("a", "1")).version == 1
        assert (await ledger.health()).replica_lag_seconds is None
        assert "url-password" not in repr(ledger)
        assert f"host=127.0.0.1:{pair.standby.port}" in repr(ledger)
    for kind in ("primary", "read-write"):
        url = pair.url(pair.standby, pair.primary, target_session_attrs=kind)
        async with opened(url, OLD) as ledger:
            assert (await ledger.put("a", "2")).position > 4


async def test_without_a_host_that_takes_writes_the_error_says_so(pair: Pair) -> None:
    async with opened(pair.url(), OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        pair.primary.kill()
        error = await refused(pair.url(), LedgerUnavailable, OLD)
        assert "no host that answers is of the wanted kind" in error.message
        assert "read_only=True" in error.hint
        assert is_transient(error)
        with pytest.raises(LedgerUnavailable):
            await ledger.get("a")
        assert not (await ledger.health()).ready
        pair.promote()
        assert (await ledger.put("a", "2")).version == 2
        assert (await ledger.health()).ready


async def test_a_host_that_never_answers_does_not_use_up_the_time_of_the_next(
    postgres_server: DatabaseHost, postgres_url: str
) -> None:
    """asyncpg#1155: one timeout for all hosts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        port = silent.getsockname()[1]
        head, _, tail = postgres_url.partition("@")
        address, _, database = tail.partition("/")
        url = f"{head}@/{database}?host=127.0.0.1:{port}&host={address}&timeout=1.5"
        async with opened(url, OLD) as ledger:
            assert (await ledger.put("a", "1")).version == 1
            asked, _ = silent.accept()
            asked.close()
            together = asyncio.Barrier(3)  # each holds a connection until all have one

            async def another() -> None:
                connection = await ledger.database._engine.connect()  # type: ignore[attr-defined]
                await together.wait()
                await connection.close()

            await asyncio.gather(*(another() for _ in range(3)))
            with pytest.raises(BlockingIOError):  # it was not asked again
                silent.accept()


async def test_the_kernel_is_told_to_end_a_connection_to_a_machine_that_is_gone(
    postgres_url: str,
) -> None:
    """asyncpg#606: no setting for it; a fail-over by power loss would take 15 minutes."""

    def options(connection: Connection) -> list[int]:
        assert isinstance(connection, PostgresqlConnection)
        its_socket = connection.raw._transport.get_extra_info("socket")
        return [
            its_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            its_socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18)),
        ]

    async with opened(postgres_url, OLD) as ledger:
        assert await ledger.database.run(options, "statement") == [1, SILENCE * 1000]


async def test_a_connection_that_turns_out_to_lead_to_a_standby_is_dropped(pair: Pair) -> None:
    """One address in front of both servers, which is switched, and switched back."""
    async with (
        CuttingProxy(pair.primary.url(DATABASE)) as proxy,
        opened(proxy.url, OLD, patience=30) as ledger,
    ):
        await ledger.put("a", "1")
        pair.catch_up()
        proxy.lead_to(pair.standby.url(DATABASE))
        write = asyncio.create_task(ledger.put("a", "2"))
        before = proxy.connections
        while proxy.connections < before + 3:  # noqa: ASYNC110  # the writer makes them
            await asyncio.sleep(0)
        assert not write.done()
        # New connections go to the primary; those to the standby stay as they are.
        proxy.lead_to(pair.primary.url(DATABASE), end_others=False)
        assert (await write).version == 2


# --- what a standby that lagged has lost is noticed ------------------------------------------


async def test_a_loss_is_noticed_by_a_process_that_was_up(pair: Pair) -> None:
    async with (
        opened(pair.url(), OLD, node="busy") as busy,
        opened(pair.url(), OLD, node="idle") as idle,
    ):
        await busy.put("a", "1")
        pair.catch_up()
        pair.cut()
        kept = busy.position
        lost = await busy.put("a", "2")
        pair.fail_over()
        with pytest.raises(TamperedEvent, match=f"ends at position {kept}, behind position"):
            await busy.put("a", "3")
        await everything(busy)
        health = await busy.health()
        assert not health.ready
        assert f"behind position {lost.position}" in health.reasons[0]

        # Who saw nothing of it goes on, and takes the places of what was lost.
        taken = await idle.put("b", "others")
        assert taken.position == lost.position
        await idle.put("b", "more")
        await everything(busy)
        health = await busy.health()
        assert not health.ready
        assert "is not the one that this node has seen" in health.reasons[0]
        assert (await idle.health()).ready
    async with opened(pair.url(), OLD, verify="full") as anew:
        assert (await anew.get("a")).version == 1
        assert (await anew.put("a", "3")).version == 2


@pytest.mark.parametrize("grown", [0, 3])
async def test_a_loss_is_noticed_although_others_wrote_before_this_process_looked(
    pair: Pair, grown: int
) -> None:
    async with opened(pair.url(), OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        pair.cut()
        for number in range(2):
            await ledger.put("a", f"lost {number}")
        pair.fail_over()
        async with opened(pair.url(), OLD) as other:
            for number in range(2 + grown):
                await other.put("a", f"other {number}")
            assert other.position == ledger.position + grown
        with pytest.raises(TamperedEvent, match="is not the one that this node has seen"):
            await ledger.put("a", "x")
        await everything(ledger)
        assert not (await ledger.health()).ready
    await check_history(pair.url(), OLD, [])


async def test_a_loss_behind_the_same_connection_is_noticed_by_the_heartbeat(
    postgres_url: str,
) -> None:
    """A pooler keeps its clients' connections through a fail-over."""
    async with opened(postgres_url, OLD) as ledger, opened(postgres_url, OLD) as other:
        await ledger.put("a", "1")
        async with attacking(postgres_url) as database:
            before = await saved(database, "secret_event", "ledger_head")
            await ledger.put("a", "2")
            await put_back(database, before)
        await other.put("b", "1")
        assert (await ledger.get("a")).version == 1  # on a connection that it has used before
        await ledger._session.announce()
        assert "is not the one" in " ".join((await ledger.health()).reasons)
        await everything(ledger)


async def test_a_primary_that_comes_back_after_it_was_replaced_is_not_written_to(
    pair: Pair,
) -> None:
    async with opened(pair.url(), OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        pair.fail_over()
        await ledger.put("a", "2")
        pair.standby.stop()
        pair.primary.start()  # it should have become a standby: nobody told it
        with pytest.raises(TamperedEvent, match="behind position"):
            await ledger.put("a", "3")
        assert ask(pair.primary, "SELECT max(position) FROM secret_ledger.secret_event") == 4
        pair.primary.stop()
        pair.standby.start()
        assert (await ledger.put("a", "3")).version == 3
