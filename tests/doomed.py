"""A process that runs commands on a ledger and kills itself at one of its commits.

It says what it does before and after each command, so that whoever started it knows which one
was cut off, also after a SIGKILL; and its pages and batches are small, so that few events
take many transactions.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, Literal

from secret_ledger import Key, Keyring, SecretLedger
from secret_ledger.generations import emptying
from secret_ledger.store import reads
from secret_ledger.store.connection import Connection
from secret_ledger.store.postgresql.database import PostgresqlDatabase
from secret_ledger.store.sqlite.database import SqliteDatabase

PAGE_BYTES: Final = 600
"""Some six small events."""
BATCH: Final = 10

Moment = Literal["before", "after"]
"""Just before the commit, or just after it."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What a process is to do, and when it dies."""

    url: str
    keys: tuple[tuple[str | None, str], ...] = field(repr=False)
    commands: Sequence[str]
    at: int
    """The number of the commit; 0: it lives."""
    moment: Moment


class Enough(Exception):
    """Ends a migration half-way."""


async def do(ledger: SecretLedger, command: str) -> bool:
    """Run one command; whether it changed anything."""

    def stop(_: object) -> None:
        raise Enough

    match command.split():
        case ["rotate"]:
            return (await ledger.rotate()).changed
        case ["rekey"]:
            report = await ledger.rekey()
            report.raise_if_not_ok()
            return report.rekeyed > 0
        case ["begin"]:  # a migration that gets no further than its first page
            try:
                await ledger.migrate(on_progress=stop)
            except Enough:
                return True
            return False
        case ["migrate"]:
            return (await ledger.migrate()).changed
        case ["abandon"]:
            return (await ledger.abandon_migration()).changed
        case ["purge", generation]:
            return (await ledger.purge_generation(int(generation))).changed
        case ["retire", key_id]:
            return (await ledger.retire(key_id)).changed
        case ["lost", key_id]:
            return (await ledger.lost(key_id, reason="the card broke")).changed
    raise ValueError(command)


class _Fate:
    """Counts the transactions that write, and ends the process at one of them."""

    def __init__(self, at: int, moment: Moment) -> None:
        self._at = at
        self._moment = moment
        self.commits = 0
        self.armed = False

    def around(self, run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(
            database: object, unit: Callable[[Connection], Any], mode: str, **options: Any
        ) -> Any:
            if not self.armed or mode not in ("write", "note"):
                return await run(database, unit, mode, **options)
            number = 0

            def last_statement_then(connection: Connection) -> Any:
                nonlocal number
                done = unit(connection)
                self.commits = number = self.commits + 1
                self._die(number, "before")
                return done

            done = await run(database, last_statement_then, mode, **options)
            self._die(number, "after")
            return done

        return counted

    def _die(self, number: int, moment: Moment) -> None:
        if (number, moment) == (self._at, self._moment):
            os.kill(os.getpid(), signal.SIGKILL)


async def _work(errand: Errand, fate: _Fate, wire: Pipe) -> None:
    current, *previous = (Key.parse(key, label) for label, key in errand.keys)
    keyring = Keyring.of(current, previous)
    async with SecretLedger.open(
        errand.url, keyring, node="doomed", create=False, verify="control"
    ) as ledger:
        fate.armed = True
        for command in errand.commands:
            wire.send(command)
            await do(ledger, command)
        fate.armed = False
    wire.send(fate.commits)


def small_pages() -> None:
    """Make pages and batches of this process small."""
    reads.PAGE_BYTES = PAGE_BYTES  # type: ignore[misc]  # that is what is done to it
    emptying.BATCH = BATCH


def run(errand: Errand, wire: Pipe) -> None:
    """The process's main function. Says each command that it begins, and at last the number of
    its commits."""
    small_pages()
    fate = _Fate(errand.at, errand.moment)
    for kind in (SqliteDatabase, PostgresqlDatabase):
        setattr(kind, "run", fate.around(kind.run))  # noqa: B010  # mypy guards methods
    asyncio.run(_work(errand, fate, wire))
