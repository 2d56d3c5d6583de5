"""The reads of the log: each is a unit of work that returns `Event`s, paged and bounded."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.events import CONTROL_STREAM, Event, from_microseconds
from secret_ledger.model.names import MAX_NAME_BYTES
from secret_ledger.model.rows import CheckedRow, LogHead, Meta, Move, State
from secret_ledger.store.bounds import (
    MAX_GENERATIONS,
    MAX_KEYS,
    MAX_STREAM_BYTES,
    behind,
    checked_number,
)
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.statements import DRAWN_NAMES, whole

__all__ = [
    "BULK",
    "DRAWN",
    "PAGE",
    "Changes",
    "Found",
    "ahead_of_clock",
    "changes",
    "check_page",
    "control_stream",
    "destroyed_of",
    "event_at",
    "event_of_version",
    "events_from",
    "events_page",
    "find",
    "first_under",
    "head_in_use",
    "heads_at",
    "heads_of_generations",
    "heads_page",
    "last_event",
    "moves",
    "newest_events",
    "newest_of",
    "read_state",
    "stream_page",
    "stream_page_down",
    "streams_between",
]

PAGE: Final = 500
"""Rows of a page: a few hundred kB, read in a few milliseconds."""
BULK: Final = 1000
"""Rows that one transaction seals again: more rows share the fixed cost of a transaction."""
STREAMS: Final = 5000
"""Rows that one statement of `streams_between` returns."""
DRAWN: Final = len(DRAWN_NAMES)
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes: a page ends early, with at least one row, once its values and metadata exceed them."""
EVENT_BYTES: Final = 300
"""Bytes that an event takes beside its value and its metadata, about."""


PAST: Final = 60_000_000
"""Microseconds: the clocks of two machines hardly ever differ by as much."""
AHEAD: Final = 1_000_000
"""Microseconds: if the log's time is ahead by less, no warning is given.

A clock that was set back a little, or the clock of another server, explains that.
"""


class Found(NamedTuple):
    """The newest event of a stream, and the head row that the same statement returned."""

    head: LogHead
    event: Event | None


class Changes(NamedTuple):
    """The streams that were written to above a position, and the head row of the same moment."""

    head: LogHead
    newest: Mapping[str, int]
    """Position of the newest event of each stream that was written to, by stream."""
    complete: bool
    """Whether `newest` holds all streams. False if more events were written than the limit."""


def read_state(
    connection: Connection, database: Database, meta: Meta, generation: int | None = None
) -> State:
    """Read the state of the ledger. The caller runs this in a snapshot.

    `generation`: the generation of the control stream; by default the generation in use. Raises
    TamperedEvent if a head row is damaged, or a table has more rows than a ledger writes.
    """
    sql = database.statements
    heads = tuple(heads_of_generations(connection, database))
    keys = tuple((row[0], row[1]) for row in connection.execute(sql.keys))
    checked_number(len(keys), MAX_KEYS, "keys")
    in_use = next((h for h in heads if h.state in ("active", "moved")), None)
    if generation is None and in_use is not None:
        generation = in_use.generation
    control: tuple[Event, ...] = ()
    last = None
    if generation is not None:
        control = tuple(control_stream(connection, database, generation))
    if in_use is not None:
        last = last_event(connection, database, in_use)
    return State(meta, heads, keys, control, last)


def last_event(connection: Connection, database: Database, head: LogHead) -> Event | None:
    """The event at the position that a head row states; None if no event lies there."""
    return event_at(connection, database, head.generation, head.position)


def events_from(
    connection: Connection, database: Database, generation: int, position: int
) -> list[Event]:
    """The first two events at or above a position, in order of position."""
    asked = {"generation": generation, "position": position}
    return _events(connection, database, connection.execute(database.statements.events_from, asked))


def newest_events(
    connection: Connection, database: Database, generation: int, limit: int
) -> Iterator[Event]:
    """The newest `limit` events of a generation, from its end down.

    A large value is fetched when the iterator reaches its event.
    """
    asked = {"generation": generation, "limit": limit}
    rows = connection.execute(database.statements.newest_events, asked).all()
    return map(Event.of_row, whole(connection, database.statements, rows))


def event_at(
    connection: Connection, database: Database, generation: int, position: int
) -> Event | None:
    """The event at a position; None if no event lies there."""
    rows = connection.execute(
        database.statements.event_at_position, {"generation": generation, "position": position}
    )
    return _first(rows)


def control_stream(connection: Connection, database: Database, generation: int) -> Iterator[Event]:
    """Every event of a generation's control stream, in order of version.

    Raises TamperedEvent if the stream has more than 64 MiB: a ledger never writes so much.
    """
    after = size = 0
    while page := stream_page(connection, database, generation, CONTROL_STREAM, after):
        size += sum(EVENT_BYTES + len(event.metadata) for event in page)
        if size > MAX_STREAM_BYTES:
            raise TamperedEvent(
                f"the control stream of generation {generation} has more than"
                f" {MAX_STREAM_BYTES:,} bytes: a ledger never writes so much",
                hint="somebody else writes to the database; restore it from a backup",
                generation=generation,
            )
        yield from page
        if page[-1].version <= after:
            return  # damage: a version that is no number sorts last; the caller names it
        after = page[-1].version


def destroyed_of(
    connection: Connection, database: Database, generation: int, stream: str, upto: int
) -> int | None:
    """The version of the newest `secret.destroyed` of a stream, up to version `upto`.

    Returns None if the stream has no such event.
    """
    place = {"generation": generation, "stream": database.text(stream), "upto": upto}
    return _number(connection.execute(database.statements.destroyed_upto, place).scalar_one())


def _first(rows: Iterable[Sequence[Any]]) -> Event | None:
    return next((Event.of_row(row) for row in rows), None)


def first_under(connection: Connection, database: Database, fingerprint: bytes) -> Event | None:
    """The event with the lowest position that names a key, among the newest 1,000 events.

    Returns None if none of these events names the key.
    """
    sql = database.statements.first_under
    return _first(connection.execute(sql, {"key_fingerprint": fingerprint}))


def head_in_use(connection: Connection, database: Database) -> LogHead | None:
    """The head row of the generation in use; None if no generation is in use."""
    row = connection.execute(database.statements.head_in_use).first()
    return None if row is None else LogHead.of_row(row)


def ahead_of_clock(connection: Connection, database: Database, head: LogHead) -> list[str]:
    """Returns a warning if the log's time is ahead of the database's clock, else nothing.

    If this machine's clock says that the log's time is a minute past, the database's clock is not
    asked.
    """
    if head.recorded_at < time.time_ns() // 1000 - PAST:
        return []
    ahead = head.recorded_at - database.clock(connection)
    if ahead < AHEAD:
        return []
    until = from_microseconds(head.recorded_at).isoformat(" ", "seconds")
    return [
        f"the log's time is {timedelta(seconds=ahead // 1_000_000)} ahead of the database's clock:"
        f" all that is written before {until} is recorded at that time, and get(at=…) of an"
        " earlier time does not find it"
    ]


def heads_of_generations(connection: Connection, database: Database) -> list[LogHead]:
    """The head row of every generation, in order.

    Raises TamperedEvent if the ledger has more than 10,000 of them.
    """
    heads = [LogHead.of_row(row) for row in connection.execute(database.statements.heads)]
    checked_number(len(heads), MAX_GENERATIONS, "generations")
    return heads


def moves(connection: Connection, database: Database) -> list[Move]:
    """Every move that began in this database or has this database as its target.

    Raises TamperedEvent if the ledger has more than 10,000 of them.
    """
    begun = [Move.of_row(row) for row in connection.execute(database.statements.moves)]
    checked_number(len(begun), MAX_GENERATIONS, "moves")
    return begun


def changes(connection: Connection, database: Database, after: int, limit: int) -> Changes | None:
    """The streams that were written to above position `after`, found in one statement.

    The statement looks through at most `limit` events. Returns None if no generation is in use.
    """
    parameters = {"after": after, "limit": limit + 1}
    rows = connection.execute(database.statements.changes, parameters).all()
    if not rows:
        return None
    newest = {row[5]: row[6] for row in rows if row[6] is not None}
    return Changes(LogHead.of_row(tuple(rows[0])[:5]), newest, len(rows) <= limit)


def find(connection: Connection, database: Database, stream: str) -> Found | None:
    """The newest event of a stream in the generation in use, and its head row, in one statement.

    Returns None if no generation is in use.
    """
    row = connection.execute(database.statements.latest, {"stream": stream}).first()
    if row is None:
        return None
    values = tuple(row)
    event = None if values[5] is None else Event.of_row(values[5:17])
    return Found(LogHead.of_row(values[:5]), event)


def newest_of(
    connection: Connection, database: Database, stream: str, least: int, limit: int
) -> tuple[LogHead, list[Event]] | None:
    """The head row in use, and the newest events of a stream, newest first.

    The events have at least version `least`, and are at most `limit`. Returns None if no
    generation is in use.
    """
    asked = {"stream": database.text(stream), "least": least, "limit": limit}
    rows = [tuple(row) for row in connection.execute(database.statements.newest_of, asked)]
    if not rows:
        return None
    found = [row[5:17] for row in rows if row[5] is not None]
    return LogHead.of_row(rows[0][:5]), _events(connection, database, found)


def stream_page_down(
    connection: Connection,
    database: Database,
    generation: int,
    stream: str,
    below: int,
    least: int,
) -> list[Event]:
    """A page of the events of a stream below version `below`, down to `least`, newest first."""
    rows = connection.execute(
        database.statements.stream_page_down,
        {
            "generation": generation,
            "stream": database.text(stream),
            "below": below,
            "least": least,
            "limit": PAGE,
        },
    )
    return _events(connection, database, rows)


def event_of_version(
    connection: Connection, database: Database, generation: int, stream: str, version: int
) -> Event | None:
    """The event of one version of a stream; None if it is missing."""
    place = {"generation": generation, "stream": database.text(stream), "version": version}
    return _first(connection.execute(database.statements.event_of_version, place))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def stream_page(
    connection: Connection,
    database: Database,
    generation: int,
    stream: str,
    after: int,
    limit: int = PAGE,
) -> list[Event]:
    """The events of one stream above version `after`, in order of version."""
    rows = connection.execute(
        database.statements.stream_page,
        {
            "generation": generation,
            "stream": database.text(stream),
            "after": after,
            "limit": limit,
        },
    )
    return _events(connection, database, rows)


def streams_between(
    connection: Connection, database: Database, head: LogHead, after: int, among: Collection[str]
) -> set[str]:
    """The streams of `among` that have events above position `after`, up to `head`."""
    found: set[str] = set()
    while after < head.position:
        place = {"generation": head.generation, "after": after, "bound": head.position}
        rows = connection.execute(database.statements.streams_between, {**place, "limit": STREAMS})
        found |= {stream for _, stream in rows if stream in among}
        if len(rows) < STREAMS or rows[-1][0] <= after:
            break
        after = rows[-1][0]
    return found


def events_page(
    connection: Connection,
    database: Database,
    generation: int,
    after: int,
    bound: int,
    limit: int = PAGE,
) -> list[Event]:
    """The events above position `after` up to `bound`, in order of position."""
    rows = connection.execute(
        database.statements.events_page,
        {"generation": generation, "after": after, "bound": bound, "limit": limit},
    )
    return _events(connection, database, rows)


def check_page(
    connection: Connection,
    database: Database,
    generation: int,
    after: int,
    bound: int,
    limit: int = PAGE,
    *,
    unstated: bool = False,
) -> list[CheckedRow]:
    """Like `events_page`; each event comes with facts of the version before it.

    `unstated`: an older release wrote events that do not state their floor, so the page also says
    which `secret.destroyed` was before each event.
    """
    rows = connection.execute(
        database.statements.check_page,
        {
            "generation": generation,
            "after": after,
            "bound": bound,
            "limit": limit,
            "unstated": int(unstated),
        },
    )
    return [
        CheckedRow(
            Event.of_row(row[:12]), _number(row[12]), row[13], _number(row[14]),
            row[15], row[16], _number(row[17]),
        )
        for row in _bounded(connection, database, rows)
    ]  # fmt: skip


def _bounded(
    connection: Connection, database: Database, rows: Iterable[Sequence[Any]]
) -> Iterator[Sequence[Any]]:
    size = 0
    for values in whole(connection, database.statements, rows):
        yield values
        size += len(values[10]) + (len(values[8]) if isinstance(values[8], str) else 0)
        if size > PAGE_BYTES:
            return


def _events(
    connection: Connection, database: Database, rows: Iterable[Sequence[Any]]
) -> list[Event]:
    return [Event.of_row(values) for values in _bounded(connection, database, rows)]


def count_secrets(connection: Connection, database: Database, generation: int) -> int:
    """About how many secrets a generation has, for the length of a progress bar."""
    place = {"generation": generation}
    counted = connection.execute(database.statements.count_first_versions, place).one()[0]
    return max(int(counted) - 1, 0)  # the control stream is no secret


def heads_page(
    connection: Connection,
    database: Database,
    generation: int,
    after: str | None,
    start: str = "",
    limit: int = PAGE,
) -> list[Event]:
    """The newest event of each stream, in order of the names' bytes.

    The page begins above the stream `after`, or at the name `start` if `after` is None. Raises
    TamperedEvent if the page can't get past a name that is longer than any secret's.
    """
    sql = database.statements
    rows = connection.execute(
        sql.heads_page_from if after is None else sql.heads_page_after,
        {
            "generation": generation,
            "after": database.text(start if after is None else behind(after)),
            "limit": limit,
        },
    )
    page = _events(connection, database, rows)
    if page and after is not None and page[-1].stream == after != behind(after):
        raise TamperedEvent(
            f"secrets have names of more than {MAX_NAME_BYTES} bytes, which no ledger wrote",
            hint="somebody else writes to the database; restore it from a backup",
        )
    return page


def heads_at(
    connection: Connection, database: Database, generation: int, positions: Sequence[int]
) -> list[tuple[int, Event]]:
    """For the event at each position: the position, and the newest event of the event's stream.

    `positions`: at least one, at most `DRAWN`. A position is left out if no event lies there.
    """
    padded = [*positions, *[positions[0]] * (DRAWN - len(positions))]
    drawn = dict(zip(DRAWN_NAMES, padded, strict=True))
    rows = connection.execute(database.statements.heads_at, {"generation": generation, **drawn})
    return [
        (row[12], Event.of_row(row[:12])) for row in whole(connection, database.statements, rows)
    ]
