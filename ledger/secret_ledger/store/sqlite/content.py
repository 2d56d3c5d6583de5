"""Whether a SQLite file was overwritten in use, for example by `cp backup.db app.db`.

SQLite does not notice it. It goes on with the pages in its memory and in the `-wal`, and answers
with them. Its next checkpoint writes them over the copy. In WAL mode only a checkpoint writes
the file itself. So if the file has changed, this module reads the file alone, without its `-wal`.
After a checkpoint the file holds a later state of the same ledger; after a copy it does not.

The module reads the file through SQLite (`immutable`, which ignores the `-wal`). It never opens
the file itself: to close such a handle would drop the locks that this process has on the file
(sqlite.org/howtocorrupt.html, 2.2). Each checkpoint costs one look, which takes half a millisecond.

If a checkpoint was killed, the file may be no database without its `-wal`. If such a file is not
shorter than before, and nobody writes it, this module finishes the checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from secret_ledger.errors import LedgerUnavailable

__all__ = ["Content"]

TRIES: Final = 4
"""Looks until a finding counts: a page may be half written when it is read."""
PAUSE: Final = 0.005
"""Seconds between two looks."""
LONGEST: Final = 2.0
"""Seconds that `check` tries again, if the file can't be read by itself."""

Signature = tuple[int, int, int]
"""Size in bytes; times of the last write and of the last change, in nanoseconds since 1970."""
_POSITION: Final = "SELECT position FROM ledger_head WHERE state IN ('active', 'moved')"


class _State(NamedTuple):
    ledger_id: bytes
    position: int
    schema: int
    """SQLite's own number of the schema (`PRAGMA schema_version`), which grows with each change."""


class _Unreadable(Exception):
    """The file alone can't be read just now: it is half written."""


class _Unclear(Exception):
    """The database has no state that can be compared: it is a move's target, or damaged."""


class Content:
    """The content of the file of an open database. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._lock: Final = threading.Lock()
        self._signature: Signature | None = None
        self._known: _State | None = None
        self._overwritten = False

    def opened(self) -> None:
        """Remember the state of the file, after a connection to it was made."""
        with self._lock:
            try:
                self._signature, self._known = self._sign(), self._read_alone()
            except (OSError, _Unreadable, _Unclear):
                self._known = None

    def is_unchanged(self, found: os.stat_result) -> bool:
        """Whether nobody wrote the file since the last look. `found`: its stat."""
        return _signature_of(found) == self._signature and not self._overwritten

    def is_overwritten(self, connection: sqlite3.Connection) -> bool:
        """Whether the file was or is being overwritten, or can't be checked.

        `close` asks this. `connection`: an idle connection to the database.
        """
        try:
            self.check(connection)
        except (OSError, sqlite3.Error, LedgerUnavailable):
            return True
        return False

    def check(self, connection: sqlite3.Connection, **details: object) -> None:
        """Look at the file, if it was written since the last look.

        `connection`: an idle connection to the database. Raises LedgerUnavailable, with `details`,
        if the file was overwritten or is being overwritten.
        """
        with self._lock:
            if not self._overwritten and self._settle(connection, details):
                return
            self._overwritten = True
        raise LedgerUnavailable(
            f"sqlite:{self._path} was overwritten while it was in use, by a backup perhaps: it no"
            " longer holds what this process has read and written",
            hint=_HINT,
            **details,
        )

    def _settle(self, connection: sqlite3.Connection, details: Mapping[str, object]) -> bool:
        """Look at the file until it is clear who wrote it. Returns False if SQLite did not.

        Raises LedgerUnavailable if the file stays unreadable.
        """
        until = time.monotonic() + LONGEST
        not_later = unchanged = 0
        helped, last = False, None
        while not_later < TRIES:
            signature = self._sign()
            if signature == self._signature:
                return True
            try:
                if self._is_later(connection):
                    self._signature = signature
                    return True
                not_later += 1
            except _Unreadable:
                # A running copy changes the file from look to look; so does a checkpoint.
                unchanged = unchanged + 1 if signature == last else 0
                last = signature
                if time.monotonic() > until or (unchanged >= TRIES and helped):
                    break
                if unchanged >= TRIES:
                    if not self._may_be_half_checkpointed(signature):
                        break
                    if not _finish_checkpoint(connection, until) and self._goes_on(connection):
                        return True  # a connection that only reads acknowledges no write
                    helped, unchanged = True, 0
            time.sleep(PAUSE)  # on the thread of a unit, never on the event loop
        else:
            return False
        raise LedgerUnavailable(
            f"sqlite:{self._path}: the file can't be read by itself: it is being written by a"
            " program other than SQLite",
            hint=_HINT,
            transient=True,
            **details,
        )

    def _may_be_half_checkpointed(self, found: Signature) -> bool:
        """Whether the file is not shorter than before: a copy begins by emptying the file."""
        return self._signature is None or found[0] >= self._signature[0]

    def _goes_on(self, connection: sqlite3.Connection) -> bool:
        """Whether file and `-wal` hold the known ledger, in the known state or a later state."""
        known = self._known
        try:
            whole = _state(connection)
        except _Unclear:
            return True
        return known is None or (
            whole is not None
            and whole.ledger_id == known.ledger_id
            and whole.position >= known.position
        )

    def _sign(self) -> Signature:
        return _signature_of(os.stat(self._path))  # noqa: PTH116  # as `OpenFiles` does

    def _is_later(self, connection: sqlite3.Connection) -> bool:
        """Whether a checkpoint can have left the file as it is. Raises _Unreadable."""
        known = self._known
        try:
            alone = self._read_alone()
            if alone is None:  # before the first checkpoint of a new ledger
                return known is None
            if known is not None and (
                alone.position < known.position or alone.schema < known.schema
            ):
                return False
            other = known is not None and alone.ledger_id != known.ledger_id
            whole = self._whole(connection, other=other)
        except _Unclear:
            return True
        if (
            whole is None
            or whole.ledger_id != alone.ledger_id
            or alone.position > whole.position
            or alone.schema > whole.schema
        ):
            return False
        self._known = alone
        return True

    @staticmethod
    def _whole(connection: sqlite3.Connection, *, other: bool) -> _State | None:
        """Returns the state of the file with its `-wal`.

        `other`: the file alone holds another ledger. Then an error means that the `-wal` does not
        belong to the file: returns None.
        """
        try:
            return _state(connection)
        except sqlite3.DatabaseError:
            if not other:
                raise
        return None

    def _read_alone(self) -> _State | None:
        raw = None
        try:
            name = f"file:{quote(str(self._path))}?mode=ro&immutable=1"
            raw = sqlite3.connect(name, uri=True, isolation_level=None)
            return _state(raw)
        except (sqlite3.Error, UnicodeDecodeError):
            pass
        finally:
            if raw is not None:
                raw.close()
        raise _Unreadable


def _finish_checkpoint(connection: sqlite3.Connection, until: float) -> bool:
    """Finish a checkpoint that was killed, or wait for a running checkpoint until `until`.

    Before its end the file's first page may count pages that the file does not have yet. Returns
    False if the connection only reads.
    """
    if connection.execute("PRAGMA query_only").fetchone() != (0,):
        return False
    while connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0]:  # another runs
        if time.monotonic() > until:
            break
        time.sleep(PAUSE)  # as above: on the thread of a unit
    return True


def _signature_of(found: os.stat_result) -> Signature:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _state(connection: sqlite3.Connection) -> _State | None:
    """The state that a database claims; None if it holds no ledger. Raises _Unclear."""

    def rows(sql: str) -> list[Any]:
        return connection.execute(sql).fetchall()

    ours = rows(
        "SELECT count(*) FROM sqlite_master"
        " WHERE type = 'table' AND name IN ('ledger_meta', 'ledger_head')"
    )
    if ours == [(0,)]:
        return None
    if ours != [(2,)]:
        raise _Unclear
    ids, positions = rows("SELECT ledger_id FROM ledger_meta"), rows(_POSITION)
    ((schema,),) = rows("PRAGMA schema_version")
    if len(ids) != 1 or len(positions) != 1 or not isinstance(positions[0][0], int):
        raise _Unclear
    return _State(ids[0][0], positions[0][0], schema)


_HINT: Final = (
    "stop every process that uses it, then restore the backup as docs/how-to/restore-sqlite.md"
    " says: an old -wal and -shm must not stay beside it"
)
