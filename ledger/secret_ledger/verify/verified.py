"""What the verifications of an open ledger have found, and what no later one has cleared.

A verification clears what an earlier one found only if it looked at as much: one of a lower
level passes by the damage. A ledger that was opened at level `control` has proven nothing of its
secrets: `health` has that done once, before it calls such a node ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, get_args

from secret_ledger.errors import LedgerError
from secret_ledger.rules.findings import OpenLevel, VerifyReport

__all__ = ["FirstProof", "Verified"]

_ORDER: Final = get_args(OpenLevel)


class Verified:
    """The last verification, and the findings that still stand."""

    def __init__(self, report: VerifyReport) -> None:
        self.report = report
        """The last one."""
        self.at = time.monotonic()
        """When it ended."""
        self._standing: list[VerifyReport] = []
        self.record(report)

    def record(self, report: VerifyReport) -> None:
        """Take in another verification."""
        self.report, self.at = report, time.monotonic()
        rank = _ORDER.index(report.level)
        self._standing = [r for r in self._standing if _ORDER.index(r.level) > rank]
        if not report.ok:
            self._standing.append(report)

    def reasons(self) -> list[str]:
        """Why the node is not ready."""
        return [
            f"{len(report.findings) + report.omitted} findings at the last verify"
            + ("" if report is self.report else f" of level {report.level}")
            for report in self._standing
        ]


class FirstProof:
    """Opens the newest version of every secret once, where opening the ledger did not."""

    def __init__(self, prove: Callable[[], Awaitable[object]], *, done: bool) -> None:
        self._prove = prove
        self._task: asyncio.Task[None] | None = None
        self._done = done

    def forget(self) -> None:
        """Nothing is proven any more: the keys are others."""
        self._done = False

    async def missing(self, within: float | None) -> str | None:
        """Why it can't be told yet; None once it can. Never raises.

        `within`: seconds that a caller waits. The work goes on behind the caller.
        """
        if self._done:
            return None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="secret-ledger first proof")
        task = self._task
        await asyncio.wait({task}, timeout=within)
        if not task.done():
            return "the newest versions of the secrets are still being verified"
        if task.cancelled():
            return "the ledger was closed"
        error = task.exception()
        if isinstance(error, LedgerError):
            return f"{error.code}: {error.message}"
        return None if error is None else type(error).__name__  # it may quote anything

    async def _run(self) -> None:
        await self._prove()
        self._done = True

    async def close(self) -> None:
        """Give up on what is still under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
