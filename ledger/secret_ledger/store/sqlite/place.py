"""The file, the folder and the disk of a SQLite ledger, as the operating system shows them.

SQLite keeps a `-wal` with the newest writes, and a `-shm`, under the name at which a file was
opened. So a file must have one name only: each further name has a `-wal` of its own, and writes
through one name are lost to the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from secret_ledger.errors import LedgerError, LedgerUnavailable

__all__ = ["check_names", "explained", "file_exists", "hindrances", "names_warning"]

MOUNTS: Final = Path("/proc/self/mountinfo")
ROOM: Final = 1024 * 1024
"""Free bytes that a disk must have: a value may be as large, and the -wal holds it too."""
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
_EFFECTIVE: Final = os.access in os.supports_effective_ids


def file_exists(path: Path) -> bool:
    """Whether the file exists.

    Raises LedgerUnavailable if the path is a folder or can't be looked at.
    """
    try:
        # Not `Path.exists`: since Python 3.14 a path that can't be looked at does not exist for it.
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no path at all
        return False
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        problem = LedgerUnavailable(
            f"sqlite:{path}: the file can't be looked at ({reason})",
            hint=_about_user("must be allowed to search every folder of the path"),
        )
    else:
        if not S_ISDIR(found.st_mode):
            return True
        problem = _is_folder(path)
    raise problem


def _is_folder(path: Path) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"sqlite:{path} is a folder, not a file",
        hint=f"name a file in it: sqlite+aiosqlite:///{path}/ledger.db (a container's engine makes"
        " a folder where a file that was to be mounted is missing)",
    )


def _other_names(path: Path) -> str | None:
    try:
        file = path.resolve()  # a symbolic link is no further name: SQLite follows it too
        names = file.stat().st_nlink
    except OSError:
        return None
    if names > 1:
        return f"the file has {names} names (hard links)"
    try:
        mounts = MOUNTS.read_bytes()
    except OSError:  # not Linux
        return None
    if _is_mounted(os.fsencode(file), mounts):
        return "the file itself is mounted (a bind mount of one file)"
    return None


def _is_mounted(file: bytes, mounts: bytes) -> bool:
    """Whether the last mount on the way to `file` is at the file itself (proc(5), mountinfo)."""
    last = b""
    for line in mounts.splitlines():
        columns = line.split(b" ")
        if len(columns) > 4:
            point = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8) & 0xFF]), columns[4])
            if file == point or file.startswith(point.rstrip(b"/") + b"/"):
                last = point
    return last == file


def names_warning(path: Path) -> str | None:
    """Returns a warning if the file may be in use under another name, else None."""
    why = _other_names(path)
    return None if why is None else f"sqlite:{path}: {why}; {_DANGER}"


def check_names(path: Path) -> None:
    """Raises LedgerUnavailable if the file may be in use under another name."""
    warning = names_warning(path)
    if warning is not None:
        raise LedgerUnavailable(warning, hint=_ONE_NAME)


_DANGER: Final = (
    "SQLite keeps its newest writes in another -wal for each name, so writes through one name"
    " are lost to the other"
)
_ONE_NAME: Final = (
    "mount the folder that the file lies in, never the file alone; remove all hard links but one,"
    " or go on with a copy that `sqlite3 FILE '.backup COPY'` makes, once every process has closed"
    " the file"
)


def explained(error: LedgerError, path: Path) -> LedgerError:
    """Returns an error that says why SQLite can't open or write the file.

    Returns `error` itself if it has another cause, or if the operating system tells no reason.
    """
    name = str(error.details.get("sqlite_error", ""))
    if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")):
        return error
    try:
        file_exists(path)
    except LedgerUnavailable as reason:
        told = LedgerUnavailable(reason.message, hint=reason.hint, **error.details)
    else:
        found = _why_not(path, reading=name.startswith("SQLITE_CANTOPEN"))
        if found is None or name.startswith("SQLITE_IOERR"):
            return error
        why, hint = found
        told = LedgerUnavailable(f"sqlite:{path}: {why} ({name})", hint=hint, **error.details)
    return told


def _why_not(path: Path, *, reading: bool) -> tuple[str, str] | None:
    folder = path.resolve().parent
    if not folder.is_dir():
        return (
            f"the folder {folder} does not exist",
            "check the URL, and that the volume is mounted; the ledger makes no folders",
        )
    if path.exists() and reading and not _may(path, os.R_OK):
        return "the file may not be read", _about_user("must own the file, or be in its group")
    if not _may(folder, os.W_OK | os.X_OK):
        return (
            f"the folder {folder} can't be written, where SQLite keeps {path.name}-wal and"
            f" {path.name}-shm beside the file",
            _about_user("must be allowed to write the folder, also where the ledger is only read"),
        )
    if path.exists() and not _may(path, os.W_OK):
        return "the file may not be written", _about_user("must own the file, or be in its group")
    return None


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=_EFFECTIVE)


def _about_user(what: str) -> str:
    user = f"user {os.geteuid()} " if hasattr(os, "geteuid") else "the process's user "
    return user + what


def hindrances(path: Path) -> Sequence[str]:
    """Reasons why nothing can be written here, if the operating system tells them beforehand."""
    folder = path.resolve().parent
    found = [
        f"{place} can't be written by this user, or on this file system"
        for place in (path, folder)
        if not _may(place, os.W_OK)
    ]
    if hasattr(os, "statvfs"):
        disk = os.statvfs(folder)
        room = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and room < ROOM:
            found.append(f"the disk is full: {room:,} bytes are left in {folder}")
    return found
