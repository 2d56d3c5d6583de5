"""The lock, the epoch and the commit: no write of a node that a rotation has left behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest

from held_commit import HeldCommit, Waiters, counting_statements, watching_waiters
from independent_fold import fold_log
from ledgers import NEW, OLD, lines, opened
from secret_ledger import MissingKey, SecretLedger, SecretVersion, StaleKey


@asynccontextmanager
async def rotating(url: str) -> AsyncIterator[tuple[SecretLedger, HeldCommit]]:
    """A node that will rotate from OLD to NEW, and what holds it before its commit."""
    held = HeldCommit()
    async with opened(url, NEW, OLD, node="rotates", projections=(held,)) as ledger:
        yield ledger, held


async def rotated_over(
    ledger: SecretLedger,
    held: HeldCommit,
    waiters: Waiters,
    *calls: Coroutine[Any, Any, Any],
) -> list[asyncio.Task[Any]]:
    """Rotate; `calls` are made, and wait for the head row's lock, before it commits."""
    tasks: list[asyncio.Task[Any]] = []

    async def meanwhile() -> None:
        tasks.extend(asyncio.ensure_future(call) for call in calls)
        await waiters.come(1)
        assert not any(task.done() for task in tasks)

    held.meanwhile = meanwhile
    turn = await ledger.rotate(force_reason="the old key leaked")
    assert (turn.changed, turn.key_id) == (True, "k-new")
    return tasks


async def test_what_waited_for_the_lock_while_a_rotation_committed_does_not_get_through(
    database_url: str,
) -> None:
    async with (
        opened(database_url, OLD, node="stale") as stale,
        rotating(database_url) as (rotator, held),
    ):
        await stale.put_many({"a": "1", "gone": "1"})
        await stale.delete("gone")
        assert (await stale.health()).ready
        with watching_waiters(database_url) as waiters:
            tasks = await rotated_over(
                rotator, held, waiters,
                stale.put("a", "late"), stale.put_many({"b": "late", "c": "late"}),
                stale.delete("a"), stale.restore("gone"), stale.destroy("a", reason="r"),
            )  # fmt: skip
        health = await stale.health()
        assert (health.ready, health.active_key_id) == (False, "k-new")
        assert health.reasons[0].startswith("stale_key")
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [StaleKey] * 5
        with pytest.raises(StaleKey):
            await stale.put("a", "later still")

        assert (await stale.get("a")).value.reveal() == b"1"
        await rotator.put("new", "2")
        with pytest.raises(MissingKey):
            await stale.get("new")
    log = await fold_log(database_url, [OLD, NEW])
    assert [(e.stream, e.version, e.epoch) for e in log[3:]] == [
        ("a", 1, 1), ("gone", 1, 1), ("gone", 2, 1), ("$ledger", 4, 1), ("$ledger", 5, 2),
        ("new", 1, 2),
    ]  # fmt: skip


async def test_a_node_with_both_keys_that_waited_follows_within_the_same_call(
    database_url: str,
) -> None:
    async with opened(database_url, OLD):
        pass
    async with (
        opened(database_url, NEW, OLD, node="both") as both,
        rotating(database_url) as (rotator, held),
    ):
        assert (await both.put("a", "1")).key_id == "k-old"
        with watching_waiters(database_url) as waiters:
            tasks = await rotated_over(
                rotator, held, waiters, both.put("a", "2", expect=1), both.put("b", "1")
            )
        for put in await asyncio.gather(*tasks):
            assert isinstance(put, SecretVersion)
            assert put.key_id == "k-new"
        assert (await both.health()).ready
    log = await fold_log(database_url, [OLD, NEW])
    assert [(e.stream, e.value, e.epoch) for e in log[3:]] == [
        ("a", b"1", 1), ("$ledger", b"", 1), ("$ledger", b"", 2), ("a", b"2", 2), ("b", b"1", 2),
    ]  # fmt: skip


async def test_a_boot_that_waited_to_announce_itself_is_judged_again(database_url: str) -> None:
    async with opened(database_url, OLD):
        pass

    async def boot(*keys: Any) -> str:
        async with opened(database_url, *keys, node=f"with {len(keys)}") as ledger:
            return (await ledger.put("a", "1")).key_id

    async with rotating(database_url) as (rotator, held):
        with watching_waiters(database_url) as waiters:
            (late,) = await rotated_over(rotator, held, waiters, boot(OLD))
        with pytest.raises(StaleKey):
            await late
    (line,) = await lines(database_url)
    assert (line.state, line.node, line.reason) == ("refused", "with 1", "stale_key")


async def test_a_boot_with_both_keys_that_waited_comes_up_under_the_new_one(
    database_url: str,
) -> None:
    async with opened(database_url, OLD):
        pass

    async def boot() -> str:
        async with opened(database_url, NEW, OLD) as ledger:
            return (await ledger.put("a", "1")).key_id

    async with rotating(database_url) as (rotator, held):
        with watching_waiters(database_url) as waiters:
            (late,) = await rotated_over(rotator, held, waiters, boot())
        assert await late == "k-new"
    assert (await fold_log(database_url, [OLD, NEW]))[-1].epoch == 2


def shapes(statements: list[str]) -> list[str]:
    """What each statement does to which tables."""
    verb = r"\b(?:SELECT|INSERT|UPDATE)\b"
    table = r"\b(ledger_head|secret_event|secret_current|projection_\w+)"
    pattern = rf"({verb})(?:(?!{verb}).)*?{table}"
    return [", ".join(dict.fromkeys(map(" ".join, re.findall(pattern, s)))) for s in statements]


async def test_the_epoch_costs_an_append_no_statement_of_its_own(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        append = ["SELECT secret_event", "SELECT secret_event"]
        append += ["UPDATE ledger_head", "INSERT secret_event"]
        kept = [*append, "UPDATE ledger_head", "INSERT secret_current"]
    else:  # a trip each
        lock, read = "SELECT ledger_head", "SELECT secret_event, SELECT ledger_head"
        enter = "UPDATE ledger_head, INSERT secret_event"
        append = [lock, read, enter]
        kept = [lock, read, f"{enter}, UPDATE projection_checkpoint, INSERT secret_current"]
    for options, expected in (({"projections": ()}, append), ({}, kept)):
        async with opened(database_url, OLD, **options) as ledger:
            await ledger.put("a", "1")
            calls: list[Callable[[], Awaitable[object]]] = [
                partial(ledger.put, "a", "2"),
                partial(ledger.put_many, {"a": "3", "b": "1"}),
            ]
            if database_url.startswith("postgresql"):  # SQLite looks for no rows of these
                calls.append(partial(ledger.put, "new", "1"))
                calls.append(partial(ledger.put_many, {"n": "1", "m": "1"}))
            for call in calls:
                with counting_statements() as sent:
                    await call()
                assert len(sent) == len(expected)
                assert shapes(sent) == expected
                # The statement that takes the lock states the epoch, and no other one asks.
                states = re.compile(r"key_epoch (?:=|OPERATOR\(pg_catalog.=\)) ")
                assert states.search(sent[0].partition("WHERE")[2])
                assert not any(states.search(s.partition("WHERE")[2]) for s in sent[1:])


async def test_an_append_to_postgresql_begins_in_the_trip_that_takes_the_lock(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts: list[str] = []
    execute = asyncpg.Connection.execute

    async def noted(self: Any, query: str, *args: Any, **options: Any) -> str:
        scripts.append(query)
        done: str = await execute(self, query, *args, **options)
        return done

    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("a", "1")
        monkeypatch.setattr(asyncpg.Connection, "execute", noted)
        await ledger.put("a", "2")
    begin, commit = scripts[:2]
    assert begin.startswith("BEGIN")
    assert begin.endswith("FOR UPDATE")
    assert commit == "COMMIT"
