"""Work that is tried again, after a restart, a stale connection or a standby's replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import anyio

from secret_ledger.errors import LedgerError
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, Mode
from secret_ledger.store.driver_errors import is_transient

__all__ = ["Read", "for_a_write", "patiently", "through_outages"]

T = TypeVar("T")


class Read(Protocol):
    """The function with which a long scan reads: `patiently`, or a slower function."""

    async def __call__(
        self, database: Database, unit: Callable[[Connection], T], mode: Mode = "statement"
    ) -> T:
        """Run a read."""
        ...


RETRIES: Final = (0.0, 0.05, 0.2, 0.5)
"""Pauses in seconds before a read is tried again: a pool's connections may all be stale."""


async def patiently(
    database: Database, unit: Callable[[Connection], T], mode: Mode = "statement"
) -> T:
    """Run a read; if the database is out of reach for a moment, run it again.

    Raises the last LedgerError after five tries, which take 0.75 seconds of pauses.
    """
    for pause in RETRIES:
        try:
            return await database.run(unit, mode)
        except LedgerError as error:
            if not is_transient(error):
                raise
        await anyio.sleep(pause)
    return await database.run(unit, mode)


async def through_outages(
    database: Database, unit: Callable[[Connection], T], mode: Mode = "statement"
) -> T:
    """Run a part of a long operation; if the database is out of reach, run it again.

    Raises the last LedgerError after `patience` seconds, the time that a write would wait. A unit
    that writes must find out by itself what an earlier try has done.
    """
    return await _until(time.monotonic() + database.patience, database, unit, mode)


def for_a_write(patience: float) -> Read:
    """Returns the function for the reads that a write begins with.

    From now on, these reads together wait at most `patience` seconds, as the write itself would.
    But each of them waits at least as long as any other read.
    """
    give_up = time.monotonic() + patience

    async def read(
        database: Database, unit: Callable[[Connection], T], mode: Mode = "statement"
    ) -> T:
        until = max(give_up, time.monotonic() + sum(RETRIES))
        return await _until(until, database, unit, mode)

    return read


async def _until(
    give_up: float, database: Database, unit: Callable[[Connection], T], mode: Mode
) -> T:
    pause = 0.02
    while True:
        try:
            return await database.run(unit, mode)
        except LedgerError as error:
            if not is_transient(error) or time.monotonic() > give_up:
                raise
        await anyio.sleep(pause)
        pause = min(pause * 2, 1.0)
