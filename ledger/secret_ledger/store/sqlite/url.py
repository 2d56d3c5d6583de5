"""Reads a SQLite URL, which names the path of a file or a ledger in memory.

All else is refused: a host (`sqlite+aiosqlite://app.db` names a host, and no file), a user, a
port, a parameter, an escape. SQLAlchemy ignores some of them. If a path holds an escape, its
releases 2.0 and 2.1 open different files.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.engine import URL

from secret_ledger.errors import LedgerUnavailable

__all__ = ["is_in_memory", "read_path", "read_text"]

MEMORY: Final = ":memory:"
_DRIVERS: Final = ("", "aiosqlite", "pysqlite")
_HOSTS_OWN: Final = frozenset(
    {"cached_statements", "check_same_thread", "detect_types", "isolation_level", "timeout"}
)
"""Parameters of a host's engine for its own connections, which the ledger does not use."""
_ESCAPE: Final = "%"
"""The parameter that marks an escape in the path, which a parsed URL does not show."""
_HINT: Final = (
    "write the path after three slashes: sqlite+aiosqlite:///app.db lies in the working"
    " directory, sqlite+aiosqlite:////var/lib/app.db has a full path"
)


def read_text(text: str, url: URL) -> URL:
    """Returns `url`, which was parsed from `text`; marked if its path has an escape."""
    path = text.partition("://")[2].partition("?")[0].partition("/")[2]
    return url.update_query_dict({_ESCAPE: "1"}) if "%" in path else url


def is_in_memory(url: URL) -> bool:
    """Whether the URL names a database in memory, which is gone when it is closed, and no host."""
    return url.get_backend_name() == "sqlite" and not url.host and url.database in (None, MEMORY)


def read_path(url: URL, *, of_engine: bool = False) -> str | None:
    """The file of a SQLite URL; None for a database in memory.

    `of_engine`: the URL is of a host's engine, and may have parameters for its own connections.
    Raises LedgerUnavailable if the URL says anything else than a path.
    """
    if url.drivername.partition("+")[2] not in _DRIVERS:
        raise _refused("its driver is not known here", "sqlite+aiosqlite:///… is")
    # The values are not shown: a password may have got into any of them.
    if url.host or url.port or url.username is not None or url.password is not None:
        raise _refused("it names a host, a port or a user, and SQLite has none", _HINT)
    if _ESCAPE in url.query:
        raise _refused("its path has a % in it", "write the path as it is, without escapes (%20)")
    unknown = set(url.query) - (_HOSTS_OWN if of_engine else frozenset())
    if unknown:
        raise _refused(
            "it has parameters, and the ledger takes none",
            "leave out everything from the ? on; read_only=True reads only, and patience= waits"
            " for locks",
        )
    path = url.database
    if path is None or path == MEMORY:
        return None
    if not path.strip():
        raise _refused("it names no file", f"{_HINT}; sqlite+aiosqlite:///{MEMORY} is in memory")
    if path.startswith("file:"):
        raise _refused("it holds another URL, file:…", _HINT)
    if re.search(r"[\x00-\x1f\x7f]", path):
        raise _refused("its path has a control character in it", _HINT)
    return path


def _refused(why: str, hint: str) -> LedgerUnavailable:
    return LedgerUnavailable(f"the SQLite URL can't be used: {why}", hint=hint)
