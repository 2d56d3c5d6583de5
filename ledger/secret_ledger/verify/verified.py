"""The findings of an open ledger's verifications that no later verification has cleared.

A verification clears the findings of an earlier verification only if its level is not lower: a
lower level passes by the damage. If a ledger was opened at level `control`, nothing is proven of
its secrets. Then `health` has them verified once, before it calls the node ready.
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
        """The report of the last verification."""
        self.at = time.monotonic()
        """When the last verification ended: seconds, by `time.monotonic`."""
        self._standing: list[VerifyReport] = []
        self.record(report)

    def record(self, report: VerifyReport) -> None:
        """Take in the report of another verification."""
        self.report, self.at = report, time.monotonic()
        rank = _ORDER.index(report.level)
        self._standing = [r for r in self._standing if _ORDER.index(r.level) > rank]
        if not report.ok:
            self._standing.append(report)

    def reasons(self) -> list[str]:
        """Why the node is not ready: a reason for each report whose findings still stand."""
        return [
            f"{len(report.findings) + report.omitted} findings at the last verify"
            + ("" if report is self.report else f" of level {report.level}")
            for report in self._standing
        ]


class FirstProof:
    """Verifies the newest version of every secret once, if the boot has not done so."""

    def __init__(self, prove: Callable[[], Awaitable[object]], *, done: bool) -> None:
        self._prove = prove
        self._task: asyncio.Task[None] | None = None
        self._done = done

    def forget(self) -> None:
        """Begin anew: the keys have changed, so nothing is proven any more."""
        self._done = False

    async def missing(self, within: float | None) -> str | None:
        """Returns why the verification has not ended well yet; None once it has run. Never raises.

        `within`: seconds that the caller waits; None: until the end. The verification goes on
        after that.
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
        return None if error is None else type(error).__name__  # its message may quote anything

    async def _run(self) -> None:
        await self._prove()
        self._done = True

    async def close(self) -> None:
        """Cancel the verification if it is still under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
