"""Running several writers as real processes, and holding the log against what they were told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ledgers import opened
from sqlalchemy.engine import Connection

from ledger import Event, Key, SecretLedger
from ledger.store.reads import events_page

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Acknowledged:
    """One write that a process was told had happened."""

    names: list[str]
    versions: list[int]
    positions: list[int]
    unique: str


@dataclass
class Process:
    """A writer in a process of its own."""

    handle: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Acknowledged]:
        """Its writes, in order of acknowledgement; a line cut off by a kill does not count."""
        found = []
        for line in self.lines:
            if line.startswith(("opened", "refused")):
                continue
            names, versions, positions, unique = line.split(" ")
            found.append(
                Acknowledged(
                    names.split(","),
                    [int(v) for v in versions.split(",")],
                    [int(p) for p in positions.split(",")],
                    unique,
                )
            )
        return found

    async def read_until(self, lines: int) -> None:
        """Wait until it has said that many lines, or has ended."""
        while len(self.lines) < lines and await self._read():
            pass

    async def _read(self) -> bool:
        assert self.handle.stdout is not None
        raw = await self.handle.stdout.readline()
        if raw.endswith(b"\n"):
            self.lines.append(raw.decode().rstrip("\n"))
        return bool(raw)

    async def finish(self) -> int:
        """Read to the end and return the exit code."""
        while await self._read():
            pass
        return await self.handle.wait()

    async def kill(self) -> None:
        """kill -9, and read what it had said."""
        self.handle.kill()
        await self.finish()


async def start(
    url: str, key: Key, node: str, style: str, *, tasks: int = 4, count: int = 0
) -> Process:
    """Start a writer; see `writer_process`."""
    root = key.for_ledger(bytes(16))._root.reveal().hex()
    handle = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests" / "writer_process.py"),
        url,
        root,
        node,
        style,
        str(tasks),
        str(count),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        limit=2**20,
    )
    return Process(handle)


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


async def check_history(url: str, key: Key, told: list[Acknowledged]) -> list[Event]:
    """Every acknowledged write is there once, as it was told; nothing has a gap; all of it
    verifies. Folds the log itself instead of asking the code under test."""
    async with opened(url, key, verify="full") as ledger:
        report = await ledger.verify("full")
        assert report.ok, report.findings
        events = await whole_log(ledger)
        assert [e.position for e in events] == list(range(1, len(events) + 1))
        versions: Counter[str] = Counter()
        for event in events:
            versions[event.stream] += 1
            assert event.version == versions[event.stream]
        times = [e.recorded_at for e in events]
        assert times == sorted(times)
        by_position = {e.position: e for e in events}
        for write in told:
            for name, version, position in zip(
                write.names, write.versions, write.positions, strict=True
            ):
                event = by_position[position]
                assert (event.stream, event.version) == (name, version)
                value = (await ledger.get(name, version=version)).value.reveal_text()
                assert value.startswith(write.unique)
    return events
