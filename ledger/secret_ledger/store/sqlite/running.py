"""A unit of work that runs on a thread, and how another thread ends it.

A statement may never end: for example, somebody replaced a table by a view that counts for ever.
If any thread interrupts the connection, SQLite ends the statement at its next step
(sqlite.org/c3ref/interrupt.html). Between two statements an interrupt does nothing: then `check`
ends the unit.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Final

from secret_ledger.errors import LedgerUnavailable

__all__ = ["Job"]


class Job:
    """A unit of work, from its start to its end on its thread."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._raw: sqlite3.Connection | None = None
        self.given_up = False
        """Whether nobody waits for the unit any more. Then `check` raises."""

    def begin(self, raw: sqlite3.Connection) -> None:
        """Give the unit a connection, which nobody else uses until `end`."""
        with self._lock:
            self._raw = raw

    def end(self) -> None:
        """Take the connection away: another unit may use it from now on."""
        with self._lock:
            self._raw = None

    def give_up(self) -> None:
        """End the unit at the next step of its statement, or at its next `check`."""
        with self._lock:
            self.given_up = True
            if self._raw is not None:
                self._raw.interrupt()

    def check(self) -> None:
        """Raises LedgerUnavailable if nobody waits for the unit any more."""
        if self.given_up:
            raise LedgerUnavailable("the unit of work was given up: nobody waits for it any more")
