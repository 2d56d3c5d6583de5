"""Keeps a database in one event loop and in one process.

Connections, locks and tasks belong to one loop. A second thread or a later `asyncio.run` has
another loop. Another loop, or a forked process, would wait for them for ever, or would read an
answer to a statement of somebody else.
"""

from __future__ import annotations

import asyncio
import os

from secret_ledger.errors import LedgerUnavailable

__all__ = ["Home", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this task. Raises LedgerUnavailable if it is not asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    raise LedgerUnavailable(
        "the ledger works in asyncio's event loop, and this task runs in none (in trio's, say)",
        hint='asyncio.run(main()), or anyio.run(main, backend="asyncio")',
    )


class Home:
    """The event loop of the first use and the process that made the database."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def check(self) -> None:
        """Raises LedgerUnavailable if the caller is in another event loop or process."""
        loop, process = running_loop(), os.getpid()
        if self._loop is loop and self._process == process:
            return
        self._loop = self._loop or loop
        if self._loop is not loop or self._process != process:
            other = "event loop" if self._process == process else "process"
            raise LedgerUnavailable(
                f"{self._place}: the ledger was opened in another {other}",
                hint=f"open it once in each {other} that uses it",
            )
