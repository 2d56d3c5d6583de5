"""What many clients were told, with processes and servers killed under them, is linearizable."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from itertools import count
from typing import Any

import pytest

import history_client
from cutting_proxy import CuttingProxy
from fleet import Process, check_history, start
from ledgers import OLD, opened
from linearizability import unexplained
from postgresql_server import PostgresServer
from waiting import until

ROUND = 60
"""Calls that are answered, by all, between one disturbance and the next."""

TASKS = 3
"""Calls that one process makes at once."""
ANSWERS = {"wrote", "value", "conflict", "deleted"}


class Clients:
    """Processes that make calls, those that were killed too."""

    def __init__(self) -> None:
        self.all: list[Process] = []
        self.hasty: set[str] = set()
        """Those that give up at once where the database is out of reach."""
        self._numbers = count()

    async def join(self, url: str, **options: Any) -> Process:
        process = await start(
            url, OLD, f"n{next(self._numbers)}", "history", tasks=TASKS, **options
        )
        assert await process.hear("opened"), process.lines
        self.all.append(process)
        if options.get("patience") == 0:
            self.hasty.add(process.node)
        return process

    async def answered(self, number: int) -> None:
        """Wait until so many more calls were answered."""
        goal = number + self._ended()

        async def reached() -> bool:
            return self._ended() >= goal

        await until(reached)

    def _has_unknown(self, process: Process) -> bool:
        without_end = len(process.said("began")) - len(process.said("ended"))
        return without_end > (TASKS if process.running else 0)

    def _ended(self) -> int:
        return sum(len(process.said("ended")) for process in self.all)

    async def stop(self) -> None:
        """Once every kind of answer was given, and of some call nobody knows how it ended."""

        async def all_given() -> bool:
            given = {line["outcome"][0] for p in self.all for line in p.said("ended")}
            return given >= ANSWERS and any(map(self._has_unknown, self.all))

        await until(all_given)
        running = [process for process in self.all if process.running]
        for process in running:
            process.tell("stop")
        assert await asyncio.gather(*(p.finish() for p in running)) == [0] * len(running)


async def check(url: str, clients: Clients) -> None:
    """Everything is asked again at the end; then all that was ever told is judged."""
    lines = [line for process in clients.all for line in process.lines]

    def say(kind: str, **facts: Any) -> None:
        lines.append({"kind": kind, **facts})

    async with opened(url, OLD) as ledger:
        await history_client.client(ledger, "last", say, asyncio.Event(), 0, calls=30)
    histories = history_client.histories(lines)
    assert histories.keys() == set(history_client.SECRETS)
    for name, calls in histories.items():
        assert not (stuck := unexplained(calls)), (name, stuck)
    kinds = Counter(c.outcome[0] if c.outcome else "?" for h in histories.values() for c in h)
    assert kinds.keys() >= ANSWERS
    assert kinds["?"]
    refused = [
        call for call in history_client.refused_writes(lines) if call[0] not in clients.hasty
    ]
    assert not refused  # the others ride it out

    events = await check_history(url, OLD, [])
    places = {(e.stream, e.version): e for e in events}
    written = Counter(e.value for e in events if e.event_type == "secret.written")
    assert set(written.values()) == {1}
    for name, calls in histories.items():
        for call in calls:
            if call.action == "put" and call.outcome and call.outcome[0] == "wrote":
                assert places[name, int(call.outcome[1] or 0)].value.decode() == call.value


@pytest.mark.parametrize("options", [{}, {"max_staleness": 0}], ids=["database", "memory"])
async def test_a_history_with_processes_killed_is_linearizable(
    database_url: str, options: dict[str, Any]
) -> None:
    clients = Clients()
    for _ in range(4):
        await clients.join(database_url, **options)
    for _ in range(4):
        await clients.answered(ROUND)
        await next(process for process in clients.all if process.running).kill()
        await clients.join(database_url, **options)
    await clients.answered(ROUND)
    await clients.stop()
    await check(database_url, clients)


async def test_a_history_with_the_server_killed_and_commits_cut_off_is_linearizable(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.create_database("histories")
    clients = Clients()
    async with CuttingProxy(url) as proxy:
        for _ in range(2):
            await clients.join(proxy.url)
        await clients.join(url, max_staleness=0)
        await clients.join(url, patience=0)  # whose outcomes stay unknown
        await clients.join(proxy.url, patience=0)
        proxy.cut_every = 5
        for disturb in (
            partial(private_postgres.restart, "immediate"),
            partial(private_postgres.restart, "fast"),
            private_postgres.crash,
        ):
            await clients.answered(ROUND)
            await asyncio.to_thread(disturb)
        await clients.answered(ROUND)
        await clients.stop()
        assert proxy.cuts > 5
    await check(url, clients)
