"""SQLite's WAL-reset race, which damages a file (sqlite.org/wal.html, "The WAL-Reset Bug").

Two connections that write or checkpoint at the same moment can lose a transaction of one of
them. One process of ours writes with one connection, so it takes several processes.
"""

from __future__ import annotations

__all__ = ["wal_reset_race"]


def wal_reset_race(version: tuple[int, ...]) -> str | None:
    """What an operator must know of this release of SQLite; None if the race is mended in it."""
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
