"""Killed at any moment: nothing acknowledged is lost, nothing is half done or done twice."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from cutting_proxy import CuttingProxy, Moment
from fleet import ROOT, Acknowledged, check_history, start, whole_log
from ledgers import NEW, OLD, STRANGER, file_of, opened
from postgresql_server import PostgresServer
from secret_ledger import Key, LedgerError, LedgerUnavailable, SecretVersion


async def test_a_writer_that_is_killed_loses_nothing_that_it_was_told(database_url: str) -> None:
    chance = random.Random(11)
    told: list[Acknowledged] = []
    for turn in range(4):
        each = await start(database_url, OLD, f"e{turn}", "each")
        batch = await start(database_url, OLD, f"b{turn}", "batch")
        await each.hear("wrote", 2)
        await batch.hear("wrote", 2)
        await asyncio.gather(
            each.hear("wrote", chance.randrange(10, 40)),
            batch.hear("wrote", chance.randrange(5, 25)),
        )
        await asyncio.gather(each.kill(), batch.kill())
        told += each.acknowledged + batch.acknowledged
    assert len(told) > 40
    events = await check_history(database_url, OLD, told)
    parts = Counter(e.stream.rpartition("/")[0] for e in events if e.stream.startswith("b"))
    assert set(parts.values()) == {5}  # a put_many is there whole or not at all


async def test_processes_that_race_with_one_key_all_come_up(database_url: str) -> None:
    fleet = await asyncio.gather(
        *(start(database_url, OLD, f"n{n}", "each", tasks=1, count=2) for n in range(6))
    )
    assert await asyncio.gather(*(process.finish() for process in fleet)) == [0] * 6
    await check_history(database_url, OLD, [t for p in fleet for t in p.acknowledged])


async def _grown(told: list[Acknowledged], by: int) -> None:
    goal = len(told) + by
    while len(told) < goal:  # noqa: ASYNC110  # lets the writers run; they end it
        await asyncio.sleep(0)


Disturbance = Callable[[PostgresServer], None]


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda s: s.restart("fast"), id="restarted"),
        pytest.param(lambda s: s.restart("immediate"), id="restarted without a goodbye"),
        pytest.param(lambda s: s.crash(), id="killed"),
    ],
)
async def test_a_server_that_goes_away_under_load_costs_no_write_and_doubles_none(
    private_postgres: PostgresServer, disturb: Disturbance
) -> None:
    url = private_postgres.create_database("load")
    told: list[Acknowledged] = []
    refused: list[str] = []
    done = asyncio.Event()
    async with opened(url, OLD, patience=20) as ledger:

        async def work(task: int) -> None:
            number = 0
            while not done.is_set():
                number += 1
                unique = f"{task}-{number}"
                try:
                    written = await ledger.put(f"load/{task}", unique)
                except LedgerUnavailable:
                    refused.append(unique)
                    continue
                told.append(
                    Acknowledged([written.name], [written.version], [written.position], unique)
                )
                try:
                    got = await ledger.get(f"load/{task}")
                    assert got.value.reveal_text() == unique
                except LedgerUnavailable:
                    pass

        async with asyncio.TaskGroup() as group:
            for task in range(8):
                group.create_task(work(task))
            for _ in range(2):
                await _grown(told, 50)
                await asyncio.to_thread(disturb, private_postgres)
            await _grown(told, 50)
            done.set()
        events = await whole_log(ledger)
        values = Counter(
            [
                (await ledger.get(e.stream, version=e.version)).value.reveal_text()
                for e in events
                if e.stream.startswith("load/")
            ]
        )
    assert set(values.values()) == {1}  # each value was made once, so none is there twice
    assert {t.unique for t in told} <= set(values)
    assert not refused  # the writer rides it out: its patience is longer than the restart
    await check_history(url, OLD, told)


@pytest.mark.parametrize("moment", ["before the commit arrives", "before its answer arrives"])
async def test_a_commit_of_unknown_outcome_is_written_once(
    postgres_url: str, moment: Moment
) -> None:
    async with CuttingProxy(postgres_url) as proxy, opened(proxy.url, OLD) as ledger:
        await ledger.put("a", "1")
        proxy.cut = moment
        written = await asyncio.gather(
            ledger.put("a", "2", expect=1), ledger.put_many({"b": "x", "c": "y"})
        )
        assert proxy.cuts == 1
        assert isinstance(written[0], SecretVersion)
        assert written[0].version == 2
        assert (await ledger.get("a")).value.reveal_text() == "2"
        events = await whole_log(ledger)
    assert Counter(e.stream for e in events) == {"$ledger": 3, "a": 2, "b": 1, "c": 1}
    await check_history(postgres_url, OLD, [])


async def test_a_copy_that_is_torn_is_written_once(postgres_url: str) -> None:
    async with CuttingProxy(postgres_url) as proxy, opened(proxy.url, OLD) as ledger:
        await ledger.put("n/0005", "before")
        proxy.cut_copy = True
        written = await ledger.put_many({f"n/{n:04}": f"{n}" for n in range(1000)})
        assert proxy.cuts == 1
        assert Counter(one.version for one in written) == {1: 999, 2: 1}
        assert len(await whole_log(ledger)) == 1004
        proxy.cut_copy = True
        await ledger.rotate(NEW)
        assert (await ledger.rekey()).rekeyed == 1000
        proxy.cut_copy = True
        assert (await ledger.migrate()).copied == ledger.position - 1
        assert proxy.cuts == 3
    await check_history(postgres_url, NEW, [])


async def test_an_outcome_that_stays_unknown_is_said_to_be(postgres_url: str) -> None:
    async with CuttingProxy(postgres_url) as proxy, opened(proxy.url, OLD, patience=1) as ledger:
        await ledger.put("a", "1")
        proxy.cut, proxy.down_after_cut = "before its answer arrives", True
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.put("a", "2")
        assert caught.value.outcome_unknown
        proxy.down = False
        assert (await ledger.get("a")).value.reveal_text() == "2"  # and so it was, this time
        assert (await ledger.put("a", "3", expect=2)).version == 3  # the same process goes on
    await check_history(postgres_url, OLD, [])


FULL_DISK = """
import asyncio, resource, sys
from secret_ledger import Key, Keyring, LedgerUnavailable, SecretLedger

async def main(url, root):
    keyring = Keyring.of(Key.from_bytes(bytes.fromhex(root)))
    async with SecretLedger.open(url, keyring) as ledger:
        await ledger.put("before", "1")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
        refused = 0
        for n in range(40):
            try:
                await ledger.put(f"large/{n}", b"x" * 50_000)
            except LedgerUnavailable as error:
                refused += 1
        assert refused, "the disk was never full"
        assert (await ledger.get("before")).value.reveal() == b"1"
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (await ledger.put("after", "1")).version == 1
        assert (await ledger.verify("full")).ok
        print("survived", refused)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_full_disk_refuses_writes_and_keeps_what_is_there(sqlite_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FULL_DISK, sqlite_url, bytes(range(32)).hex(),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out.startswith(b"survived"), err.decode()
    await check_history(sqlite_url, Key.from_bytes(bytes(range(32))), [])


async def test_a_lock_held_by_another_process_ends_in_a_typed_error(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD, patience=0.3) as ledger:
        await ledger.put("a", "1")
        other = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.put("a", "2")
        assert not caught.value.outcome_unknown
        assert (await ledger.get("a")).version == 1
        other.execute("ROLLBACK")
        other.close()
        assert (await ledger.put("a", "2")).version == 2


async def test_a_wrong_key_is_refused_while_writers_are_at_work(database_url: str) -> None:
    writer = await start(database_url, OLD, "w", "each")
    await writer.hear("wrote", 3)
    with pytest.raises(LedgerError) as caught:
        async with opened(database_url, STRANGER):
            pass
    assert caught.value.code == "key_fingerprint_mismatch"
    await writer.kill()
    await check_history(database_url, OLD, writer.acknowledged)
