"""A unit of work that runs on a thread, and how it is ended from outside.

A statement may never end: a table was replaced by a view that counts for ever, say. SQLite ends
it at its next step when the connection is interrupted, from any thread (sqlite.org/c3ref/
interrupt.html); between two statements that does nothing, so the next statement looks for itself.
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
        """Whether nobody waits for it any more: its next statement is its last."""

    def begin(self, raw: sqlite3.Connection) -> None:
        """It has a connection now, which nobody else uses until its end."""
        with self._lock:
            self._raw = raw

    def end(self) -> None:
        """The connection may be another unit's from now on."""
        with self._lock:
            self._raw = None

    def give_up(self) -> None:
        """End it at the next step of its statement, or before its next statement."""
        with self._lock:
            self.given_up = True
            if self._raw is not None:
                self._raw.interrupt()

    def check(self) -> None:
        """Raises LedgerUnavailable if nobody waits for it any more."""
        if self.given_up:
            raise LedgerUnavailable("the unit of work was given up: nobody waits for it any more")
