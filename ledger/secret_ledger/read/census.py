"""How many events and secrets lie under each key: counted in pages, without any key.

Current reads and the boot gate need the newest events, which count the secrets. The events are
the whole history, counted from the rows of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from secret_ledger.model.events import CONTROL_STREAM
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead
from secret_ledger.store.bounds import MAX_KEYS, behind, checked_number
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations
from secret_ledger.store.retry import through_outages

__all__ = ["Census", "KeyCount", "KeyUse", "census", "heads_by_key", "uses"]

PAGE = 5000
"""Rows that one transaction counts, in about ten milliseconds."""
MAX_PREFIXES = 1000
_FIRST: Final = -(2**63)
"""The lowest position that a column holds."""


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many secrets have their newest event under one key."""

    key_id: str
    key_fingerprint: bytes
    secrets: int
    prefixes: Mapping[str, int] = field(default_factory=dict)
    """Number of secrets by the first segment of their names.

    The entry "" counts names of one segment. The entry "…" counts names of further
    segments, beyond the first 1,000.
    """


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The rows under one key in one generation."""

    generation: int
    state: str
    """The state of the generation: active, building, closed, moved, purging or purged."""
    key_id: str
    key_fingerprint: bytes
    events: int
    """Rows that only this key opens."""
    purged: int
    """Rows whose data is gone: they need no key any more."""
    last_position: int
    bytes: int
    """Bytes of the sealed values; the remains of purged rows are included."""


@dataclass(frozen=True, slots=True)
class Census:
    """How many events and secrets lie under each key."""

    heads: Sequence[KeyCount]
    """Secrets by the key of their newest event, which current reads need."""
    events: Sequence[KeyUse]
    """The events of the whole history, by generation and key."""


async def census(database: Database, generation: int) -> Census:
    """Count the secrets of `generation`, which is in use, and the events of every generation.

    Raises LedgerUnavailable, and TamperedEvent if it meets more than 10,000 keys or generations.
    """
    generations = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    # Generations that say that they were purged are counted too: some of their rows may be left.
    return Census(await heads_by_key(database, generation), await uses(database, generations))


async def heads_by_key(database: Database, generation: int) -> Sequence[KeyCount]:
    """Count the secrets of a generation by the key that their newest event names. Opens no row.

    Raises LedgerUnavailable, and TamperedEvent if it meets more than 10,000 keys.
    """
    counts: dict[tuple[str, bytes], Counter[str]] = {}
    after: str | None = None
    while True:

        def page(connection: Connection, after: str | None = after) -> list[tuple[Any, ...]]:
            sql = database.statements
            statement = sql.head_keys_from if after is None else sql.head_keys_after
            start = {"after": database.text(behind(after or "")), "limit": PAGE}
            rows = connection.execute(statement, {"generation": generation, **start})
            return [tuple(row) for row in rows]

        rows = await through_outages(database, page, "statement")
        for stream, key_id, fingerprint in rows:
            if stream != CONTROL_STREAM and isinstance(fingerprint, bytes):
                prefixes = counts.setdefault((printable(key_id), fingerprint), Counter())
                prefix = printable(stream).partition("/")
                first = prefix[0] if prefix[1] else ""
                known = first in prefixes or len(prefixes) < MAX_PREFIXES
                prefixes[first if known else "…"] += 1
        checked_number(len(counts), MAX_KEYS, "keys")
        last = rows[-1][0] if rows else None
        if not isinstance(last, str) or last == after:
            break
        after = last
    return [
        KeyCount(*key, prefixes.total(), dict(sorted(prefixes.items())))
        for key, prefixes in sorted(counts.items())
    ]


async def uses(database: Database, heads: Sequence[LogHead]) -> Sequence[KeyUse]:
    """Count the rows under each key in each of these generations.

    All rows of a generation count: the position that its head row states is not believed. Raises
    LedgerUnavailable, and TamperedEvent if a generation has more than 10,000 keys.
    """
    found: list[KeyUse] = []
    for head in heads:
        counts: dict[tuple[str, bytes], tuple[int, int, int, int]] = {}
        after: int | None = _FIRST
        while after is not None:

            def page(
                connection: Connection, head: LogHead = head, after: int = after
            ) -> list[tuple[Any, ...]]:
                rows = connection.execute(
                    database.statements.event_keys,
                    {"generation": head.generation, "purged": b"\0", "after": after, "limit": PAGE},
                )
                return [tuple(row) for row in rows]

            rows = await through_outages(database, page, "statement")
            for key_id, fingerprint, events, purged, last, size in rows:
                if not isinstance(fingerprint, bytes):
                    continue
                key = printable(key_id), fingerprint
                before = counts.get(key, (0, 0, 0, 0))
                counts[key] = (
                    before[0] + events - purged,
                    before[1] + purged,
                    last,
                    before[3] + size,
                )
            checked_number(len(counts), MAX_KEYS, "keys")
            ends = [row[4] for row in rows if isinstance(row[4], int)]
            full = sum(row[2] for row in rows) >= PAGE
            after = max(ends, default=None) if full else None
        by_time = sorted(counts.items(), key=lambda entry: entry[1][2])
        found += [KeyUse(head.generation, head.state, *key, *count) for key, count in by_time]
    return found
