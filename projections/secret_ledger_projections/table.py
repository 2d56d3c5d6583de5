"""A projection's table in one database: loads, folds, compares and writes its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Enum,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    literal,
    literal_column,
    select,
    text,
)

from secret_ledger.errors import InvalidValue
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.store.bounds import behind
from secret_ledger.store.connection import Connection, Unreadable, compiled
from secret_ledger.store.database import Database, Folded
from secret_ledger.store.driver_errors import fail_in_projection
from secret_ledger.store.schema import OUR_TABLES
from secret_ledger_projections import pages
from secret_ledger_projections.protocol import Projection
from secret_ledger_projections.sys_secret import SysSecret

__all__ = ["UNREADABLE", "ProjectionTable", "Written"]

KEY: Final = ("generation", "name")
LARGEST: Final = 2**63 - 1
LARGEST_VALUE: Final = 16 * 1024
"""Bytes of one value that are read back at most.

A fold makes a value of names and metadata.
"""
TOO_LARGE: Final = "'(more than a fold has written)'"
"""SQL that stands for a larger value. It is no NULL, which a fold may have written."""

RowValues = Mapping[str, Any]
UNREADABLE: Final[RowValues] = {}
"""Stands for a row that exists twice, or whose values are not of their columns' types."""


class Written(NamedTuple):
    """How many rows were changed, added and removed."""

    changed: int
    added: int
    removed: int


class ProjectionTable:
    """The table of one projection in one database."""

    def __init__(self, projection: Projection, database: Database) -> None:
        given = projection.table
        if {column.name for column in given.primary_key} != set(KEY):
            raise InvalidValue(
                f"the primary key of projection {projection.name} must be (generation, name)"
            )
        _check_names(projection, database)
        self.projection: Final = projection
        self._database = database
        # The ledger's own schema, if the projection names none.
        self.table: Final[Table] = (
            given if given.schema else given.to_metadata(MetaData(schema=database.schema))
        )
        self.columns: Final = tuple(c.name for c in self.table.columns if c.name not in KEY)
        self._known: Final = frozenset(self.columns)
        columns = self.table.c
        one_generation = columns.generation == bindparam("in_generation")
        own = [self._in_bounds(columns[name]) for name in self.columns]
        self._select = select(columns.name, *own).where(one_generation)
        among = text(f"name {database.statements.among}")
        self._load = compiled(self._select.where(among), database.dialect)
        self._names = (
            select(literal_column(self._sql("name", database.statements.bounds.name), Text()))
            .where(one_generation, columns.name.is_not(None))
            .order_by(columns.name)
            .limit(bindparam("page"))
        )
        self._count = select(func.count(columns.name)).where(one_generation)
        self._delete = delete(self.table).where(one_generation)
        given_columns = [*KEY, *self.columns]
        self._upsert = compiled(self._make_upsert(self.columns), database.dialect, given_columns)
        self._first = _first_values(projection, self.columns)
        later = [name for name in self.columns if name not in (self._first or ())]
        self._update = compiled(self._make_upsert(later), database.dialect, given_columns)
        """For later events of a secret: leaves `first_values` as they are."""
        self._in_order = itemgetter(*map(given_columns.index, self._upsert.names))

    def _sql(self, name: str, bounded: Callable[[str], str]) -> str:
        return bounded(str(self.table.c[name].compile(dialect=self._database.dialect)))

    def _in_bounds(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """A column; `TOO_LARGE` if it holds more than a fold can have written."""
        bounds, kind, name = self._database.statements.bounds, column.type, str(column.key)
        if isinstance(kind, String) and not isinstance(kind, Enum):
            sql = self._sql(name, lambda sql: bounds.text(sql, LARGEST_VALUE, TOO_LARGE))
        elif isinstance(kind, LargeBinary):
            other = f"CAST({TOO_LARGE} AS {kind.compile(self._database.dialect)})"
            sql = self._sql(name, lambda sql: bounds.bytes(sql, LARGEST_VALUE, other))
        else:
            return column
        return literal_column(sql, kind).label(name)

    def _make_upsert(self, written: Sequence[str]) -> ClauseElement:
        """Inserts whole rows. If a row exists, only its columns `written` change."""
        # Both dialects spell an upsert alike, each in a class of its own.
        if self._database.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # only the dialect in use is imported

            into = postgresql.insert(self.table)
            new = {name: into.excluded[name] for name in written}
            if not new:
                return into.on_conflict_do_nothing()
            return into.on_conflict_do_update(index_elements=KEY, set_=new)
        from sqlalchemy.dialects import sqlite

        into_lite = sqlite.insert(self.table)
        new = {name: into_lite.excluded[name] for name in written}
        if not new:
            return into_lite.on_conflict_do_nothing()
        return into_lite.on_conflict_do_update(index_elements=KEY, set_=new)

    # --- the fold --------------------------------------------------------------------

    def has_row(self, stream: object) -> bool:
        """Whether the events of a stream of that name are folded into a row.

        The control stream has no row, nor has a damaged name that no secret can have.
        """
        return (
            isinstance(stream, str)
            and stream != CONTROL_STREAM
            and is_plain(stream)
            and behind(stream) == stream  # else the name was cut, and stands for many names
        )

    def fold(self, row: RowValues | None, event: Event) -> RowValues | None:
        """The row after `event`, as it is stored. An event of version 1 needs no row before it.

        Raises ProjectionFailed, which names the event.
        """
        try:
            return self._fold(row, event)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            where = f", at position {event.position} (version {event.version} of"
            fail_in_projection(error, self.projection.name, f"{where} {event.stream})")

    def _fold(self, row: RowValues | None, event: Event) -> RowValues | None:
        folded = self.projection.fold(row if event.version > 1 else None, event)
        if folded is None:
            return None
        if type(folded) is dict and tuple(folded) == self.columns and _are_storable(folded):
            return folded  # nearly always
        if not folded.keys() <= self._known:
            unknown = folded.keys() - self._known
            columns = ", ".join(sorted(map(str, unknown)))
            raise ValueError(f"its fold returns {columns}, but its table has no such column")
        return {name: _storable(folded.get(name)) for name in self.columns}

    def fold_all(
        self, rows: Mapping[str, RowValues], events: Iterable[Event]
    ) -> dict[str, RowValues | None]:
        """Fold events of streams that have a row. Returns the new rows of these streams only.

        `rows`: the rows before the events, as far as they exist.
        """
        after: dict[str, RowValues | None] = {}
        for event in events:
            stream = event.stream
            row = after[stream] if stream in after else rows.get(stream)
            if row is UNREADABLE:
                row = None
            after[stream] = self.fold(row, event.with_seal(b"", event.event_hash))
        return after

    def apply(self, connection: Connection, generation: int, events: Sequence[Event]) -> None:
        """Fold events of one generation into the table. The caller has locked the checkpoint."""
        if (folded := self.folded(events)) is not None:
            for upsert, rows in folded.upserts:
                connection.execute(upsert, list(rows))
            return
        first = self._begins(events)
        before = self.load(connection, generation, _going_on(first))
        self._fold_in(connection, generation, events, first, before)

    def folded(self, events: Sequence[Event]) -> Folded | None:
        """The rows after events of one generation, without reading the rows before.

        Returns None if the fold needs those rows, or if it removes a row.
        """
        if self._first is None:
            return None
        first = self._begins(events)
        after = self.fold_all({}, [event for event in events if event.stream in first])
        begun: list[tuple[Any, ...]] = []
        gone_on: list[tuple[Any, ...]] = []
        for name, row in after.items():
            if row is None:
                return None
            rows = begun if first[name] == 1 else gone_on
            rows.append(self._in_order((events[0].generation, name, *row.values())))
        upserts = [(self._upsert, begun), (self._update, gone_on)]
        return Folded(self.projection.name, [(sql, rows) for sql, rows in upserts if rows])

    def _begins(self, events: Sequence[Event]) -> dict[str, int]:
        """The first version of each stream in `events`, for streams that have a row."""
        first: dict[str, int] = {}
        for event in events:
            if event.stream not in first and self.has_row(event.stream):
                first[event.stream] = event.version
        return first

    def _fold_in(
        self,
        connection: Connection,
        generation: int,
        events: Sequence[Event],
        first: Mapping[str, int],
        before: dict[str, RowValues],
    ) -> None:
        after = self.fold_all(before, [event for event in events if event.stream in first])
        # If a stream begins here, an old row of its name is overwritten, or deleted.
        gone = [name for name, row in after.items() if row is None and first[name] == 1]
        before |= self.load(connection, generation, gone)
        self.write(connection, generation, before, after)

    # --- the rows --------------------------------------------------------------------

    def load(
        self, connection: Connection, generation: int, names: Iterable[str]
    ) -> dict[str, RowValues]:
        """The rows of these names, as far as they exist."""
        given = list(names)
        plain = [name for name in given if self.has_row(name)]
        found: dict[str, RowValues] = {}
        for start in range(0, len(plain), pages.PAGE):
            chunk = plain[start : start + pages.PAGE]
            place = {"in_generation": generation, "names": self._database.names(chunk)}
            try:
                rows = connection.execute(self._load, place)
            except Unreadable:  # one row has a value that its column's type can't hold
                for name in dict.fromkeys(chunk):
                    found.update(self._load_one(connection, generation, name))
            else:
                found.update(self._by_name(rows))
        if len(plain) < len(given):
            for name in given:
                if not self.has_row(name):
                    found.update(self._load_one(connection, generation, name))
        return found

    def _by_name(self, rows: Iterable[Sequence[Any]]) -> dict[str, RowValues]:
        found: dict[str, RowValues] = {}
        for row in rows:
            name = row[0]
            twice = name in found  # the table has lost its primary key
            values = dict(zip(self.columns, row[1:], strict=True))
            found[name] = UNREADABLE if twice else values
        return found

    def _load_one(self, connection: Connection, generation: int, name: str) -> dict[str, RowValues]:
        statement = self._select.where(self._is(name)).limit(1)
        try:
            row = connection.execute(statement, {"in_generation": generation}).first()
        except Unreadable:
            return {name: UNREADABLE}
        if row is None:
            return {}
        return {name: dict(zip(self.columns, row[1:], strict=True))}

    def write(
        self,
        connection: Connection,
        generation: int,
        before: Mapping[str, RowValues],
        after: Mapping[str, RowValues | None],
    ) -> Written:
        """Write the rows of `after` that differ from `before`. Returns their numbers."""
        removed = 0
        for name, row in after.items():
            if row is None and name in before:
                statement = self._delete.where(self._is(name))
                connection.execute(statement, {"in_generation": generation})
                removed += 1
        upserts = self._changed(generation, before, after)
        if upserts:
            connection.execute(self._upsert, upserts)
        added = sum(row is not None and name not in before for name, row in after.items())
        return Written(len(upserts) - added, added, removed)

    def _changed(
        self,
        generation: int,
        before: Mapping[str, RowValues],
        after: Mapping[str, RowValues | None],
    ) -> list[tuple[Any, ...]]:
        """The rows that differ, in the order of the upsert's parameters."""
        return [
            self._in_order((generation, name, *row.values()))
            for name, row in after.items()
            if row is not None and row != before.get(name)
        ]

    def forget(self, connection: Connection, generation: int, limit: int) -> int:
        """Delete up to `limit` rows of a generation. Returns their number."""
        name = self.table.c.name
        some = self._names.with_only_columns(name)
        done = connection.execute(
            self._delete.where(name.in_(some)), {"in_generation": generation, "page": limit}
        )
        return done.rowcount

    def names(self, connection: Connection, generation: int, after: str | None) -> list[str]:
        """The next names of the table above `after`, in the table's own order.

        If `after` is None, they are the first names.
        """
        statement = self._names
        if after is not None:
            statement = statement.where(self.table.c.name > self._text(behind(after)))
        rows = connection.execute(statement, {"in_generation": generation, "page": pages.PAGE})
        return [row[0] for row in rows]

    def count(
        self, connection: Connection, generation: int, after: str | None, last: str | None
    ) -> int:
        """How many rows have a name above `after`, up to `last`. None stands for no bound."""
        statement = self._count
        if after is not None:
            statement = statement.where(self.table.c.name > self._text(after))
        if last is not None:
            statement = statement.where(self.table.c.name <= self._text(last))
        (count,) = connection.execute(statement, {"in_generation": generation}).scalars()
        return int(count)

    def _is(self, name: object) -> ColumnElement[bool]:
        column = self.table.c.name
        if isinstance(name, str) and behind(name) != name:  # it was cut: it stands for many
            return and_(column > self._text(name), column < self._text(behind(name)))
        return column == self._text(name)

    def _text(self, name: object) -> ColumnElement[Any]:
        # The name of a damaged row may be invalid text. In a table without types it may be no
        # text at all.
        if not isinstance(name, str):
            return literal(name)
        encoded = self._database.text(name)
        if isinstance(encoded, str):
            return literal(encoded, Text())
        return cast(literal(encoded, LargeBinary()), Text())


def _check_names(projection: Projection, database: Database) -> None:
    """Raises InvalidValue if the table or the checkpoint is the ledger's own."""
    table = projection.table
    if table is SysSecret.table:
        return
    beside_ours = table.schema in (None, database.schema) or database.name == "sqlite"
    if beside_ours and table.name.casefold() in OUR_TABLES:
        raise InvalidValue(
            f"projection {projection.name}: {table.name} is a table of the ledger's own",
            hint="give its table another name, or on PostgreSQL another schema",
        )
    if projection.name == SysSecret.name:
        raise InvalidValue(
            f"projection {projection.name}: the ledger's own projection has that name, and would"
            " share its checkpoint",
            hint="give it another name",
        )


def _going_on(first: Mapping[str, int]) -> list[str]:
    """The names of streams that began before these events."""
    return [name for name, version in first.items() if version > 1]


def _first_values(projection: Projection, columns: Sequence[str]) -> frozenset[str] | None:
    given = getattr(projection, "first_values", None)
    if given is None:
        return None
    first = frozenset(given)
    if unknown := first.difference(columns):
        raise InvalidValue(
            f"projection {projection.name} names first values for columns that it does not have:"
            f" {', '.join(sorted(map(str, unknown)))}"
        )
    return first


def same(expected: RowValues, actual: RowValues) -> bool:
    """Whether a row holds the expected values."""
    return all(name in actual and actual[name] == value for name, value in expected.items())


def is_plain(text: str) -> bool:
    """Whether both databases can store a text."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_storable(row: RowValues) -> bool:
    """Whether all values are of the common kinds, and can be stored unchanged."""
    for value in row.values():
        kind = type(value)
        if not (
            value is None
            or kind is bytes
            or (kind is int and -LARGEST <= value <= LARGEST)
            or (kind is str and is_plain(value))
        ):
            return False
    return True


def _storable(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-LARGEST - 1, min(value, LARGEST))
    if not isinstance(value, str) or is_plain(value):
        return value
    return value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
