"""Whether the files that SQLite has open are still the files in their place.

In WAL mode SQLite goes on with a file that was deleted, moved or exchanged. Later writes reach
the disk, but nobody ever finds them again. So each unit of work first checks the identity of the
database's file. A unit that writes checks that file and its `-wal`, before and after. A stat
takes a microsecond or two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.store.sqlite.content import Content

__all__ = ["OpenFiles"]

Identity = tuple[int, int] | None
"""Device and inode; None if the operating system does not tell them."""
GONE: Final = (0, 0)


class OpenFiles:
    """The files of one database, by the path that it was opened at."""

    def __init__(self, path: Path) -> None:
        # Made absolute now: a process may change its working directory.
        self.path: Final = _absolute(path)
        self._database = os.fspath(self.path)
        self._wal = self._database
        self.content: Final = Content(self.path)
        self._database_opened: Identity = None
        self._wal_opened: Identity = None

    def opened(self) -> bool:
        """Remember the database's file at the first connection. Returns whether it is the first."""
        if self._database_opened is not None:
            return False
        self._database_opened = _identity(_stat(self._database))
        file = self.path.resolve()  # SQLite too puts it beside the target of a link
        self._wal = os.fspath(file.with_name(file.name + "-wal"))
        self.content.opened()
        return True

    def check(self, *, writing: bool) -> bool:
        """Whether nobody wrote the database's file since the last look at its content.

        `writing`: check the `-wal` too. Raises LedgerUnavailable if a file is not the file that
        was opened.
        """
        problem, unchanged = self._problem(writing=writing)
        if problem:
            raise _moved(problem)
        return unchanged

    def committed(self) -> bool:
        """Like `check`, after a commit, which went into the open files.

        Raises LedgerUnavailable, which says that the outcome is unknown, if a file is not the file
        that was opened.
        """
        if self._wal_opened in (None, GONE):  # the -wal stays while a connection is open
            self._wal_opened = _identity(_stat(self._wal))
        problem, unchanged = self._problem(writing=True)
        if problem:
            raise _moved(problem, outcome_unknown=True)
        return unchanged

    def _problem(self, *, writing: bool) -> tuple[str | None, bool]:
        found = _stat(self._database)
        unchanged = not isinstance(found, os.stat_result) or self.content.is_unchanged(found)
        if _differ(self._database_opened, _identity(found)):
            return self._database, unchanged
        if writing and _differ(self._wal_opened, _identity(_stat(self._wal))):
            return self._wal, unchanged
        return None, unchanged


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:
        pass
    raise LedgerUnavailable(
        "the URL's path is relative, and the working directory of this process is gone",
        hint="give the full path, sqlite+aiosqlite:////var/lib/app.db, or start the process in a"
        " directory that is there",
    )


def _stat(path: str) -> os.stat_result | Identity:
    try:
        return os.stat(path)  # noqa: PTH116  # asked four times a write
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except OSError:  # for example, the folder may no longer be searched
        return None


def _identity(found: os.stat_result | Identity) -> Identity:
    return (found.st_dev, found.st_ino) if isinstance(found, os.stat_result) else found


def _differ(before: Identity, now: Identity) -> bool:
    return before not in (None, now) and now is not None


def _moved(path: str, **details: object) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"sqlite:{path} is not the file that was opened: it was removed, moved or exchanged"
        " while it was in use",
        hint="stop every process that uses it, put the right file in place with its -wal, then"
        " start again; what was written since is in the old file only",
        **details,
    )
