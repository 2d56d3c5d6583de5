"""SQLite's WAL-reset race, which damages a file (sqlite.org/wal.html, "The WAL-Reset Bug").

If two connections write or checkpoint at the same moment, SQLite can lose a transaction of one
connection. A process of ours writes with one connection, so only several processes meet the race.
"""

from __future__ import annotations

__all__ = ["wal_reset_race"]


def wal_reset_race(version: tuple[int, ...]) -> str | None:
    """Returns a warning if this release of SQLite has the race, else None."""
    mended = (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51)
        or ((3, 44, 6) <= version < (3, 45))
    )
    if mended or version < (3, 7, 0):
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} has the WAL-reset race, which can damage a file that"
        " several processes write; 3.51.3, 3.50.7 and 3.44.6 mend it"
    )
