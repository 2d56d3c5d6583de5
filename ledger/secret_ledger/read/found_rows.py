"""The rows that a destruction finds of its secret: their count and digest, sealed with it.

If a caller destroys a secret, the `secret.destroyed` states how many rows lie below it, with
their digest. Damaged rows count as they were found. So nobody can add a row below the end later
without a finding. No read ever goes below the end.
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
"""The lowest version that a damaged row can claim."""


def found_rows(
    connection: Connection,
    database: Database,
    control: Control,
    stream: str,
    below: int,
) -> RowDigest:
    """Count and digest the rows of a stream below version `below`, newest first.

    If a row has columns that this format never wrote, it has no hash: it counts with 32 zero
    bytes instead.
    """
    digest = RowDigest()
    while page := stream_page_down(connection, database, control.generation, stream, below, LOWEST):
        for event in page:
            found = _hash(control, event)
            digest.add_found(event.position, found)
            if event.event_hash != found:  # the stated hash is part of the damage
                digest.add_stated(event.event_hash)
        below = page[-1].version
    return digest


def rows_of(connection: Connection, database: Database, newest: Iterable[Event]) -> dict[str, int]:
    """Returns how many rows the stream of each of these newest events has, by stream."""
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
    """The `rows` fact of a `secret.destroyed`: the count, and mostly the digest, of the rows below.

    Returns None if the event is of another type or states no count. The end of a secret whose key
    is lost states no digest.
    """
    if end.event_type != EventType.DESTROYED:
        return None
    stated = parse_metadata(end.metadata).ledger.get("rows")
    if not isinstance(stated, dict) or type(stated.get("count")) is not int:
        return None
    return stated
