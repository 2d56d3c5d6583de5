"""Which keys the latest events lie under: counted from the log's own rows, in pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from ledger.format import printable
from ledger.store.database import Database

__all__ = ["KeyCount", "heads_by_key"]

STREAMS = 5000
"""Secrets that one transaction counts: some ten milliseconds."""


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many secrets have their latest event under one key."""

    key_id: str
    key_fingerprint: bytes
    secrets: int


async def heads_by_key(database: Database, generation: int) -> Sequence[KeyCount]:
    """The heads of a generation by the key that they say they lie under; metadata only.

    Raises LedgerUnavailable.
    """
    counts: Counter[tuple[str, bytes]] = Counter()
    after: str | None = None
    while True:

        def page(connection: Connection, after: str | None = after) -> list[tuple[object, ...]]:
            sql = database.statements
            statement = sql.heads_by_key_from if after is None else sql.heads_by_key_after
            place = {"generation": generation, "after": database.text(after or "")}
            return [
                tuple(row) for row in connection.execute(statement, {**place, "limit": STREAMS})
            ]

        rows = await database.run(page, "statement")
        last = max((str(row[3]) for row in rows), default=None, key=str.encode)
        for key_id, fingerprint, secrets, _ in rows:
            if isinstance(fingerprint, bytes) and isinstance(secrets, int):
                counts[printable(key_id), fingerprint] += secrets
        if last is None or last == after:
            break
        after = last
    return [KeyCount(*key, secrets) for key, secrets in sorted(counts.items())]
