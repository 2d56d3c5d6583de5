"""Reads the log for a fold: pages of events, without their sealed bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.events import Event
from secret_ledger.store.bounds import behind
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database

__all__ = ["PAGE", "begun", "by_position", "by_stream"]

PAGE: int = 500
"""Events, or rows, that one transaction handles at most: 2 MB at most, a few milliseconds."""

_KINDS: Final = (int, int, str, int, str, str, bytes, int, str, bytes, bytes, bytes)


def by_position(
    connection: Connection, database: Database, generation: int, after: int, bound: int
) -> list[Event]:
    """The next events above position `after` up to `bound`, in order of position."""
    rows = connection.execute(
        database.statements.fold_page,
        {"generation": generation, "after": after, "bound": bound, "limit": PAGE},
    )
    return _events(rows)


def by_stream(
    connection: Connection,
    database: Database,
    generation: int,
    stream: str,
    version: int,
    bound: int,
) -> list[Event]:
    """The next events after (stream, version) up to position `bound`, stream by stream."""
    rows = connection.execute(
        database.statements.by_stream_page,
        {
            "generation": generation,
            "stream": database.text(behind(stream)),
            "version": version,
            "bound": bound,
            "limit": PAGE,
        },
    )
    return _events(rows)


def begun(
    connection: Connection,
    database: Database,
    generation: int,
    names: Collection[str],
    bound: int,
) -> frozenset[str]:
    """The names in `names` that have an event up to position `bound`."""
    sql = database.statements
    place = {"generation": generation, "bound": bound}
    if not names:
        return frozenset()
    given = {**place, "names": database.names(list(names))}
    found = {row[0] for row in connection.execute(sql.begun_streams, given)}
    # If an intruder deleted the first version of a stream, the stream still has others.
    for name in set(names) - found:
        row = connection.execute(sql.any_of_stream, {**place, "stream": database.text(name)})
        if row.first():
            found.add(name)
    return frozenset(found)


def _events(rows: Iterable[Sequence[Any]]) -> list[Event]:
    events = [Event._make((*row[:10], b"", row[-1])) for row in rows]
    for number, event in enumerate(events):
        if tuple(map(type, event)) == _KINDS:
            continue
        # A value that is longer than any that was written is not fetched: it folds as empty.
        bounded = Event._make(
            kind() if value is None else value for value, kind in zip(event, _KINDS, strict=True)
        )
        events[number] = bounded
        # A column that lost its type can hold anything. No fold should have to expect that.
        if tuple(map(type, bounded)) != _KINDS:
            raise TamperedEvent(
                f"a row of the log, at position {event.position!r:.100}, holds values of types"
                " that were never written",
                hint="run `secret-ledger verify --level full`, and restore from a backup",
            )
    return events
