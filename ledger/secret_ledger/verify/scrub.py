"""The scrub: the rows that an incremental boot took on trust are checked while the ledger is used.

The scrub reads page by page, at a bounded rate, and checks in a worker thread. If the database is
out of reach, the scrub waits. It ends with a report in `health`, or when the ledger is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from secret_ledger.errors import InvalidValue, LedgerError
from secret_ledger.log import log
from secret_ledger.rules.findings import VerifyReport
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, Mode
from secret_ledger.store.driver_errors import is_transient
from secret_ledger.store.reads import PAGE
from secret_ledger.store.retry import Read, patiently

__all__ = ["SCRUB_RATE", "Scrub", "check_rate"]

T = TypeVar("T")

SCRUB_RATE: Final = 5000
"""Rows a second, unless `open` states another rate: a tenth of a core or less."""
RETRY: Final = 1.0
"""Seconds before the scrub tries again after a failure."""


def check_rate(rate: float) -> None:
    """Raises InvalidValue if `rate` (rows a second) is not above 0: the scrub would never end."""
    given: object = rate
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise InvalidValue(f"scrub_rate is a number of rows a second above 0, not {rate!r}")


class Scrub:
    """One slow pass of `verify`, which itself keeps the report."""

    def __init__(self, verify: Callable[[Read], Awaitable[VerifyReport]], rate: float) -> None:
        self.failure: str | None = None
        """Why the scrub does not get on; None if all is well."""
        self._verify = verify
        self._pause = PAGE / rate
        self._next = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the pass, in the background."""
        self._task = asyncio.create_task(self._scrub(), name="secret-ledger scrub")

    async def _scrub(self) -> None:
        while True:
            try:
                report = await self._verify(self._read)
            except LedgerError as error:
                self._fails(f"{error.code}: {error.message}")
            except Exception as error:  # noqa: BLE001  # said by its type: it may quote anything
                self._fails(type(error).__name__)
            else:
                self.failure = None
                _tell(report)
                return
            await anyio.sleep(RETRY)

    async def _read(
        self, database: Database, unit: Callable[[Connection], T], mode: Mode = "statement"
    ) -> T:
        """If the database is out of reach, the scrub waits without a limit."""
        await anyio.sleep(max(0.0, self._next - time.monotonic()))
        while True:
            self._next = time.monotonic() + self._pause
            try:
                page = await patiently(database, unit, mode)
            except LedgerError as error:
                if not is_transient(error):
                    raise
                self._fails(f"{error.code}: {error.message}")
            else:
                self.failure = None
                return page
            await anyio.sleep(RETRY)

    def _fails(self, why: str) -> None:
        if self.failure is None:
            log.warning("ledger_scrub_waits", reason=why)
        self.failure = f"scrub: {why}"

    async def close(self) -> None:
        """Stop the scrub at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _tell(report: VerifyReport) -> None:
    if report.ok:
        log.info("ledger_scrubbed", heads=report.heads, seconds=round(report.seconds, 1))
        return
    first = report.findings[0]
    log.error(
        "ledger_scrub_found_damage",
        findings=len(report.findings) + report.omitted,
        position=first.position,
        stream=first.stream,
        version=first.version,
        reason=first.reason,
    )
