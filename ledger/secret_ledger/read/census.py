"""What lies under which key: counted from the log's own rows, in pages, without any key.

The heads are what current reads and the boot gate need; the events are the whole history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from secret_ledger.model.events import CONTROL_STREAM
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import Head
from secret_ledger.store.bounds import MAX_KEYS, behind, checked_number
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations
from secret_ledger.store.retry import through_outages

__all__ = ["Census", "KeyCount", "KeyUse", "census", "heads_by_key", "uses"]

PAGE = 5000
"""Rows that one transaction counts: some ten milliseconds."""
MAX_PREFIXES = 1000
_FIRST: Final = -(2**63)
"""A position below every one that a row can claim."""


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many secrets have their latest event under one key."""

    key_id: str
    key_fingerprint: bytes
    secrets: int
    prefixes: Mapping[str, int] = field(default_factory=dict)
    """By the first segment of their names; "" for names of one segment, "…" for what is
    beyond the first thousand."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What lies under one key in one generation."""

    generation: int
    state: str
    """The state of the generation: active, building, closed, moved, purging."""
    key_id: str
    key_fingerprint: bytes
    events: int
    """Rows that this key is needed to open."""
    purged: int
    """Rows whose data is gone: nothing is needed to open them any more."""
    last_position: int
    bytes: int
    """Of sealed values, purged rows included."""


@dataclass(frozen=True, slots=True)
class Census:
    """What lies under which key."""

    heads: Sequence[KeyCount]
    """The latest event of every secret: what current reads need."""
    events: Sequence[KeyUse]
    """The whole history, by generation."""


async def census(database: Database, generation: int) -> Census:
    """Count both, `generation` being the one in use. Raises LedgerUnavailable."""
    generations = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    # Those that say that they were purged too: whether rows of theirs are left is counted.
    return Census(await heads_by_key(database, generation), await uses(database, generations))


async def heads_by_key(database: Database, generation: int) -> Sequence[KeyCount]:
    """The heads of a generation by the key that they say they lie under; metadata only.

    Raises LedgerUnavailable.
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


async def uses(database: Database, heads: Sequence[Head]) -> Sequence[KeyUse]:
    """What lies under each key in each of these generations, by the rows that there are: where
    its head row says that it ends is not believed. Raises LedgerUnavailable."""
    found: list[KeyUse] = []
    for head in heads:
        counts: dict[tuple[str, bytes], tuple[int, int, int, int]] = {}
        after: int | None = _FIRST
        while after is not None:

            def page(
                connection: Connection, head: Head = head, after: int = after
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
