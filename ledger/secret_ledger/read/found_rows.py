"""What a destruction finds of its secret, sealed with it.

A `secret.destroyed` states how many rows lie below it, with a digest of them. Rows that were
damaged by then are accounted for as they were found, and nothing can be put below the end later.
No read ever goes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.events import Event, EventType
from secret_ledger.model.format import hash_of
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.rules.sealed_counts import RowDigest
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import stream_page_down

__all__ = ["found_rows", "rows_of", "stated_rows"]

LOWEST: Final = -(2**63)
"""Below every version that a damaged row can claim."""


def found_rows(
    connection: Connection,
    database: Database,
    control: Control,
    stream: str,
    below: int,
) -> RowDigest:
    """Count and digest of the rows of a stream below a version, newest first.

    A row that has no hash, because nothing like it was ever written, counts with zeros.
    """
    digest = RowDigest()
    while page := stream_page_down(connection, database, control.generation, stream, below, LOWEST):
        for event in page:
            found = _hash(control, event)
            digest.add_found(event.position, found)
            if event.event_hash != found:  # what it states is part of the damage
                digest.add_stated(event.event_hash)
        below = page[-1].version
    return digest


def rows_of(connection: Connection, database: Database, newest: Iterable[Event]) -> dict[str, int]:
    """How many rows each of these streams has."""
    counts = {}
    for event in newest:
        asked = {
            "generation": event.generation,
            "stream": database.text(event.stream),
            "bound": 2**63 - 1,
        }
        rows = connection.execute(database.statements.rows_of_stream, asked).scalar_one()
        counts[event.stream] = int(rows)
    return counts


def _hash(control: Control, event: Event) -> bytes:
    try:
        return hash_of(control.ledger_id, event)
    except TamperedEvent:
        return bytes(32)


def stated_rows(end: Event) -> Mapping[str, Any] | None:
    """What a `secret.destroyed` states of the rows below it; None if nothing."""
    if end.event_type != EventType.DESTROYED:
        return None
    stated = parse_metadata(end.metadata).ledger.get("rows")
    if not isinstance(stated, dict) or type(stated.get("count")) is not int:
        return None
    return stated
