"""Many tasks, many processes, one log: each write once, in one order, for everybody."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from fleet import Acknowledged, check_history, start, whole_log
from inside import Connection, events_page, head_in_use
from ledgers import OLD, opened
from secret_ledger import (
    Event,
    LedgerUnavailable,
    SecretInfo,
    SecretLedger,
    SecretNotFound,
    SecretVersion,
    VersionConflict,
)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[SecretLedger]:
    async with opened(database_url, OLD) as one:
        yield one


def _told(*writes: SecretVersion) -> Acknowledged:
    return Acknowledged(
        [w.name for w in writes],
        [w.version for w in writes],
        [w.position for w in writes],
        writes[0].value.reveal_text(),
    )


def _ended(outcome: object) -> object:
    """The version or versions that a call wrote, or the kind of its error."""
    if isinstance(outcome, list):
        return [_ended(one) for one in outcome]
    return outcome.version if isinstance(outcome, SecretInfo) else type(outcome).__name__


async def _places(ledger: SecretLedger) -> dict[str, list[tuple[str, int]]]:
    """Every value in the log, with the names and versions it stands at."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for event in await whole_log(ledger):
        if event.event_type == "secret.written":
            got = await ledger.get(event.stream, version=event.version)
            found[got.value.reveal_text()].append((got.name, got.version))
    return found


async def test_64_tasks_write_each_version_and_each_position_once(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:

        async def work(task: int) -> list[Acknowledged]:
            return [_told(await ledger.put(f"shared/{n % 5}", f"{task}-{n}")) for n in range(12)]

        told = [t for group in await asyncio.gather(*map(work, range(64))) for t in group]
    events = await check_history(database_url, OLD, told)
    assert len(events) == 3 + 64 * 12
    assert len({p for t in told for p in t.positions}) == 64 * 12


async def test_8_processes_share_a_log_and_a_tailing_reader_misses_nothing(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        fleet = [
            await start(database_url, OLD, f"n{n}", "shared", tasks=8, count=6) for n in range(8)
        ]
        finished = asyncio.gather(*(process.finish() for process in fleet))
        tailed: list[Event] = []

        def page(connection: Connection) -> list[Event]:
            after = tailed[-1].position if tailed else 0
            head = head_in_use(connection, ledger.database)
            assert head is not None
            return events_page(connection, ledger.database, 0, after, head.position)

        while not finished.done():
            tailed += await ledger.database.run(page, "statement")
            await asyncio.sleep(0)
        assert await finished == [0] * 8
        tailed += await ledger.database.run(page, "statement")
        assert tailed == await whole_log(ledger)
    told = [t for process in fleet for t in process.acknowledged]
    assert len(told) == 8 * 8 * 6
    await check_history(database_url, OLD, told)


async def test_each_caller_of_one_batch_gets_its_own_outcome(
    database_url: str, ledger: SecretLedger
) -> None:
    """All of these wait together: they are decided in two transactions, in this order."""
    await ledger.put("old", "1")
    calls = [
        ledger.put("new", "a", expect=0),
        ledger.put("new", "b", expect=0),  # lost to the one before it
        ledger.put("new", "c", expect=1),
        ledger.put("old", "d", expect=7),  # no such version
        ledger.put_many([("x", "1"), ("old", "e", 9), ("y", "2")]),  # refused as a whole
        ledger.put_many([("x", "3", 0), ("old", "f", 1)]),
        ledger.delete("old", expect=2),
        ledger.delete("old"),  # deleted already
        ledger.restore("old"),
        ledger.destroy("new", reason="over"),
        ledger.put("new", "g", expect=3),
        ledger.restore("never"),
    ]
    got = await asyncio.gather(*calls, return_exceptions=True)
    assert list(map(_ended, got)) == [
        1, "VersionConflict", 2, "VersionConflict", "VersionConflict", [1, 2],
        3, "SecretDeleted", 4, 3, 4, "SecretNotFound",
    ]  # fmt: skip
    assert (await ledger.get("old")).value.reveal() == b"f"
    assert (await ledger.get("new")).value.reveal() == b"g"
    with pytest.raises(SecretNotFound):
        await ledger.get("y")
    log = await check_history(database_url, OLD, [])
    assert len(log) == 3 + 1 + 8  # no place was taken by a refused one
    # The restore reads before it waits with the others. The end of "new" comes in a transaction of
    # its own: what it builds on has to be in the database.
    together = [e for e in log[4:] if e.event_type != "secret.restored"]
    before = [e for e in together if (e.stream, e.version) not in {("new", 3), ("new", 4)}]
    assert (len(together), len(before)) == (7, 5)
    assert len({e.recorded_at for e in before}) == 1


async def test_of_many_who_expect_the_same_version_one_wins_each_round(
    database_url: str, ledger: SecretLedger
) -> None:
    """Several ledgers in one process: a counter that each raises by compare-and-set."""
    async with (
        opened(database_url, OLD) as second,
        opened(database_url, OLD) as third,
    ):
        await ledger.put("counter", "0")
        conflicts = 0

        async def raise_it(own: SecretLedger) -> None:
            nonlocal conflicts
            while True:
                now = await own.get("counter")
                try:
                    await own.put(
                        "counter", str(int(now.value.reveal_text()) + 1), expect=now.version
                    )
                except VersionConflict:
                    conflicts += 1
                else:
                    return

        await asyncio.gather(*(raise_it(own) for own in (ledger, second, third) * 8))
        assert (await third.get("counter")).value.reveal() == b"24"
        assert (await third.get("counter")).version == 25
        assert conflicts
    await check_history(database_url, OLD, [])


async def test_a_cancelled_write_happened_or_did_not_and_harms_nobody(
    database_url: str, ledger: SecretLedger
) -> None:
    chance = random.Random(3)
    unsure: set[str] = set()
    acknowledged: dict[str, Acknowledged] = {}
    committed = asyncio.Condition()
    over = asyncio.Event()

    async def patient(number: int) -> None:
        turn = 0
        while not over.is_set():
            mark = f"patient.{number}.{turn}"
            got = await ledger.put(f"patient/{number}", mark)
            acknowledged[mark] = _told(got)
            turn += 1
            async with committed:
                committed.notify_all()

    async def hasty(number: int) -> None:
        mark = f"hasty.{number}"
        names = [f"hasty/{number % 7}/{n}" for n in range(3)]
        task = asyncio.create_task(ledger.put_many(dict.fromkeys(names, mark)))
        # Some turns of the loop, or some of the others' commits, so that every await on the
        # way is hit by some; the last ones come too late.
        for _ in range(chance.randrange(3) if number % 3 else 0):
            async with committed:
                await committed.wait()
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            done = await task
        except asyncio.CancelledError:
            unsure.add(mark)
        else:
            acknowledged[mark] = _told(*done)

    async def reader(number: int) -> None:
        task = asyncio.create_task(ledger.get(f"patient/{number % 3}"))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    patients = [asyncio.create_task(patient(n)) for n in range(3)]
    for first in range(0, 150, 10):
        numbers = range(first, first + 10)
        await asyncio.gather(*map(hasty, numbers), *map(reader, numbers))
    over.set()
    await asyncio.gather(*patients)

    await check_history(database_url, OLD, list(acknowledged.values()))
    there = await _places(ledger)
    for mark, told in acknowledged.items():  # there, and nowhere else
        assert sorted(there[mark]) == sorted(zip(told.names, told.versions, strict=True))
    happened = {mark for mark in unsure if mark in there}
    assert all(len(there[mark]) == 3 for mark in happened)
    assert set(there) == set(acknowledged) | happened
    assert unsure - happened, "nothing was cancelled in time"
    assert happened, "no cancellation came once the write was under way"
    assert (await ledger.put("goes on", "x")).version == 1


async def test_cancelled_reads_leave_the_ledger_working(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        for turns in range(60):
            task = asyncio.create_task(ledger.get("a"))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await ledger.get("a")).value.reveal_text() == "1"
        assert (await ledger.put("a", "2")).version == 2


async def test_a_caller_cancelled_in_the_queue_takes_no_place(
    database_url: str, ledger: SecretLedger
) -> None:
    first = asyncio.create_task(ledger.put("a", "1"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(ledger.put("b", "2"))
    await asyncio.sleep(0)
    waiting.cancel()
    third = asyncio.create_task(ledger.put("c", "3"))
    results = await asyncio.gather(first, waiting, third, return_exceptions=True)
    assert [type(r).__name__ for r in results] == [
        "SecretVersion",
        "CancelledError",
        "SecretVersion",
    ]
    log = await check_history(database_url, OLD, [])
    assert [e.stream for e in log[3:]] == ["a", "c"]


async def test_a_ledger_that_is_closed_writes_what_was_waiting_and_refuses_more(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        waiting = [asyncio.create_task(ledger.put(f"s/{n}", "x")) for n in range(50)]
        await asyncio.sleep(0)
    assert [v.version for v in await asyncio.gather(*waiting)] == [1] * 50
    with pytest.raises(LedgerUnavailable, match="closed"):
        await ledger.put("late", "x")
    assert len(await check_history(database_url, OLD, [])) == 53
