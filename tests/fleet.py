"""Running services as real processes, and holding the log against what they were told.

The processes are forked off a server that has imported everything already, so that a dozen
of them start in the time that one would take; a process that is killed is killed as such.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from independent_fold import Folded, fold_log
from inside import Connection, events_page
from ledgers import opened
from secret_ledger import Event, Key, SecretLedger
from writer_process import Part, run

ROOT = Path(__file__).resolve().parent.parent

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "secret_ledger.ledger",
        "secret_ledger.store.postgresql.database",
        "secret_ledger.store.sqlite.database",
        "secret_ledger_projections",
        "sqlalchemy.dialects.postgresql.asyncpg",
        "sqlalchemy.dialects.sqlite",
        "doomed",
        "writer_process",
    ]
)


@dataclass
class Acknowledged:
    """One write that a process was told had happened."""

    names: list[str]
    versions: list[int]
    positions: list[int]
    unique: str


class Process:
    """A service in a process of its own."""

    def __init__(self, node: str, handle: ForkServerProcess) -> None:
        self.node = node
        self.handle = handle
        self.lines: list[dict[str, Any]] = []
        """All that it has said so far."""
        self._news = asyncio.Condition()
        self._ended = False

    async def listen(self, wire: socket.socket) -> None:
        """Take in what it says, from now on, until it ends."""
        reader, self._writer = await asyncio.open_connection(sock=wire, limit=2**20)
        self._listener = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            async for raw in reader:
                if raw.endswith(b"\n"):  # a line that was cut off by a kill does not count
                    async with self._news:
                        self.lines.append(json.loads(raw))
                        self._news.notify_all()
        except ConnectionError:
            pass  # killed, with words of ours that it had not read
        async with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as was heard."""
        return not self._ended

    def said(self, kind: str, **facts: Any) -> list[dict[str, Any]]:
        """What it has said of that kind, with these facts."""
        wanted = {"kind": kind, **facts}.items()
        return [line for line in self.lines if wanted <= line.items()]

    @property
    def acknowledged(self) -> list[Acknowledged]:
        """Its writes, in order of acknowledgement."""
        return [
            Acknowledged(w["names"], w["versions"], w["positions"], w["unique"])
            for w in self.said("wrote")
        ]

    def tell(self, word: str) -> None:
        """Say a word to it; see `writer_process`."""
        self._writer.write(word.encode() + b"\n")

    async def hear(self, kind: str, times: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Wait until it has said lines of that kind and with these facts, so many of them,
        and return all; fewer if it has ended."""

        def heard() -> bool:
            return self._ended or len(self.said(kind, **facts)) >= times

        async with self._news:
            await self._news.wait_for(heard)
        return self.said(kind, **facts)

    async def finish(self) -> int:
        """Hear it to the end and return the exit code."""
        await self._listener
        await ended(self.handle)
        self._writer.close()
        assert self.handle.exitcode is not None
        return self.handle.exitcode

    async def kill(self) -> None:
        """kill -9, and hear what it had said."""
        self.handle.kill()
        await self.finish()


async def ended(process: ForkServerProcess) -> None:
    """Wait for a process. On the loop: of two threads that ask how it ended only one hears it, and
    to start another one asks that of all."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(process.sentinel, told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def start(
    url: str,
    keys: Key | Sequence[Key],
    node: str,
    style: str,
    *,
    tasks: int = 4,
    count: int = 0,
    held: bool = False,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Process:
    """Start a service; see `writer_process`. `options` are for `SecretLedger.open`."""
    given = [keys] if isinstance(keys, Key) else keys
    part = Part(
        url=url,
        keys=tuple((key.key_id, key.text().reveal_text()) for key in given),
        node=node,
        style=style,
        tasks=tasks,
        count=count,
        options={"patience": 30, **options},
        environ=environ or {},
        held=held,
    )
    ours, theirs = socket.socketpair()
    handle = FORKS.Process(target=run, args=(part, theirs), daemon=True)
    handle.start()
    theirs.close()
    process = Process(node, handle)
    await process.listen(ours)
    return process


async def all_ready(fleet: Iterable[Process]) -> None:
    """Wait until all that are held have come to the door."""
    await asyncio.gather(*(process.hear("ready") for process in fleet))


async def whole_log(ledger: SecretLedger) -> list[Event]:
    """Every event, by position."""
    events: list[Event] = []
    while True:
        after = events[-1].position if events else 0

        def unit(connection: Connection, after: int = after) -> list[Event]:
            return events_page(connection, ledger.database, 0, after, 2**62)

        page = await ledger.database.run(unit, "statement")
        if not page:
            return events
        events += page


async def check_history(
    url: str, keys: Key | Sequence[Key], told: Iterable[Acknowledged]
) -> list[Folded]:
    """Every acknowledged write is there once, as it was told; all of it verifies, and stands
    in an independent reading of the log, which is returned."""
    given = [keys] if isinstance(keys, Key) else keys
    async with opened(url, *given, create=False, verify="full") as ledger:
        report = await ledger.verify("full")
        assert report.ok, report.findings
    events = await fold_log(url, given)
    written = Counter((e.stream, e.value) for e in events if e.event_type == "secret.written")
    for write in told:
        for name, version, position in zip(
            write.names, write.versions, write.positions, strict=True
        ):
            event = events[position - 1]
            assert (event.stream, event.version) == (name, version)
            assert event.event_type == "secret.written"
            assert event.value.decode().startswith(write.unique)
            assert written[name, event.value] == 1
    return events
