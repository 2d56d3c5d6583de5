"""The connection of a unit of work: one transaction, with statements on the driver's cursor.

A `Statement` is SQL with its parameters written `:name`, made once. `compiled` makes it from a
clause of SQLAlchemy. A caller that keeps it spares SQLAlchemy's work at each call, which takes ten
times as long as SQLite's. The two kinds of connection lie in `store.sqlite` and
`store.postgresql`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

from sqlalchemy.types import Float, Numeric

from secret_ledger.errors import LedgerUnavailable

if TYPE_CHECKING:
    from sqlalchemy import ClauseElement
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

__all__ = ["Connection", "Mode", "Rows", "Statement", "Unreadable", "compiled"]

Mode = Literal["statement", "snapshot", "write", "note"]
"""How a unit of work runs.

`statement`: reads, each statement on its own. `snapshot`: reads that all see one state.
`write`: one transaction that may lock the head row, and on SQLite holds the write lock.
`note`: like `write`, but the commit is not flushed to the disk, and SQLite waits 1.5 seconds for
its lock. For rows that may be left out and are of no use after a power cut.
"""

Parameters = Mapping[str, Any] | list[Any] | None
Processor = Callable[[Any], Any]

_ROW: Final = re.compile(r"(?<=VALUES )\(\?(?:, \?)*\)")
_CAST: Final = r"(:\w+)::([A-Z][\w ]*(?:\(\d+(?:, \d+)?\))?)"
_CAST_ROW: Final = re.compile(rf"VALUES \((?:{_CAST}(?:, |(?=\))))+\)")
_PLACE: Final = re.compile(r"(?<![:\w]):([a-z_]\w*)", re.IGNORECASE)


class Unreadable(Exception):  # never leaves the projections
    """A row holds a value that its column's type can't have."""


class Rows(list[Any]):
    """All rows that a statement returned, each a sequence of its columns."""

    def __init__(self, rows: Iterable[Any] = (), rowcount: int = -1) -> None:
        super().__init__(rows)
        self.rowcount: Final = rowcount
        """Number of rows that the statement changed. Says nothing if the statement only reads."""

    def all(self) -> Self:
        """All rows."""
        return self

    def first(self) -> Any:
        """The first row; None if no row was returned."""
        return self[0] if self else None

    def one(self) -> Any:
        """The only row. Raises LedgerUnavailable unless exactly one row was returned."""
        if len(self) != 1:
            raise LedgerUnavailable(f"the database gave {len(self)} rows to a question for one row")
        return self[0]

    def scalar_one(self) -> Any:
        """The first column of the only row. Raises as `one` does."""
        return self.one()[0]

    def scalars(self) -> Rows:
        """The first column of each row."""
        return Rows([row[0] for row in self], self.rowcount)


class Statement:
    """SQL with parameters, in the forms that the drivers take."""

    __slots__ = (
        "_binds", "_given", "_repeated", "_results",
        "columnar", "names", "numbered", "placed", "sql",
    )  # fmt: skip

    def __init__(
        self,
        sql: str,
        *,
        given: Mapping[str, Any] | None = None,
        binds: Mapping[str, Processor] | None = None,
        results: Sequence[Processor | None] = (),
    ) -> None:
        self.sql: Final = sql
        """The SQL with its parameters written `:name`."""
        self.names: Final = tuple(dict.fromkeys(_PLACE.findall(sql)))
        self.numbered: Final = self._number(sql)
        """The SQL with its parameters written `$1`, in order of `names`."""
        self.columnar: Final = self._number(_CAST_ROW.sub(_columns, sql))
        """The numbered SQL as an INSERT of many rows: each parameter is an array of one column.

        Equal to `numbered` unless `sql` is an INSERT of a row whose values are all cast to types.
        """
        self.placed: Final = _PLACE.sub("?", sql)
        """The SQL with its parameters written `?`."""
        self._given = given
        self._binds = binds
        self._results = results if any(results) else ()
        self._repeated: tuple[int, str] | None = None

    def part(self, condition: str, prefix: str, *, one: bool) -> str | None:
        """The INSERT as a part of another statement. It inserts only if `condition` holds.

        `prefix`: the names of its parameters begin with it. `one`: it inserts one row; else many
        rows, and each parameter is an array of one column's values. Returns None unless this
        statement is an INSERT of a row whose values are all cast to their types.
        """

        def rows(row: re.Match[str]) -> str:
            one_row = f"SELECT {row[0].removeprefix('VALUES ')[1:-1]}"
            return f"{one_row if one else _columns(row)} WHERE {condition}"

        if self.columnar == self.numbered:
            return None
        return _PLACE.sub(rf":{prefix}\1", _CAST_ROW.sub(rows, self.sql))

    def _number(self, sql: str) -> str:
        return _PLACE.sub(lambda m: f"${self.names.index(m[1]) + 1}", sql)

    def named(self, parameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The parameters as the driver takes them, by name."""
        values = parameters or {}
        if self._given:
            values = {**self._given, **values}
        if self._binds:
            binds = self._binds
            values = {n: binds[n](v) if n in binds else v for n, v in values.items()}
        return values

    def ordered(self, parameters: Mapping[str, Any] | None) -> list[Any]:
        """The parameters as the driver takes them, in order of `names`."""
        values = self.named(parameters)
        return [values[name] for name in self.names]

    def rows(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The rows as the driver takes them. Their values are in order of `names`."""
        if not self._binds:
            return rows
        processors = [self._binds.get(name) for name in self.names]
        return [
            [value if to is None else to(value) for to, value in zip(processors, row, strict=True)]
            for row in rows
        ]

    def repeated(self, times: int, width: int) -> str | None:
        """The INSERT of a row of `width` values as an INSERT of `times` rows, with parameters `?`.

        Returns None if this is another statement.
        """
        if self._repeated is None or self._repeated[0] != times:
            row = f"({', '.join('?' * width)})"
            given = _ROW.findall(self.placed)
            many = _ROW.sub(", ".join([row] * times), self.placed)
            self._repeated = times, many if given == [row] else ""
        return self._repeated[1] or None

    def read(self, rows: Iterable[Any], rowcount: int) -> Rows:
        """Convert a driver's rows to the types asked for. Raises Unreadable if a value can't be."""
        if not self._results:
            return Rows(rows, rowcount)
        return Rows((self._read_one(row) for row in rows), rowcount)

    def _read_one(self, row: Sequence[Any]) -> tuple[Any, ...]:
        try:
            return tuple(
                value if process is None else process(value)
                for process, value in zip(self._results, row, strict=True)
            )
        except Exception:  # noqa: BLE001  # a type's own, which may quote the value
            raise Unreadable from None


def _columns(row: re.Match[str]) -> str:
    arrays = re.sub(_CAST, r"\1::\2[]", row[0].removeprefix("VALUES "))
    return f"SELECT * FROM unnest{arrays}"


class Connection(Protocol):
    """One transaction of a database. Inside a unit, its errors are the driver's own."""

    mode: Mode
    info: dict[Any, Any]
    """Facts about the driver's connection, kept as long as that connection is open."""

    def execute(self, statement: Statement | ClauseElement, parameters: Parameters = None) -> Rows:
        """Run a statement; with a list of rows, run it for each row.

        The values of a row are the parameters in order of the statement's `names`. Raises
        LedgerUnavailable if the database has undone the transaction.
        """
        ...

    def run_all(self, statements: Sequence[str]) -> None:
        """Run statements without parameters, each with its semicolon: in one trip if possible."""
        ...

    def exec_driver_sql(self, sql: str) -> Rows:
        """Run SQL that has no parameters."""
        ...


def _sent_as(kind: TypeEngine[Any]) -> int | None:
    """PostgreSQL's OID of a type of numbers: SQLAlchemy's result processors need it."""
    if isinstance(kind, Float):
        return 701
    return 1700 if isinstance(kind, Numeric) else None


def compiled(clause: ClauseElement, dialect: Dialect, columns: Sequence[str] = ()) -> Statement:
    """Compile a clause of SQLAlchemy to a statement.

    `dialect` must write parameters as `:name`. `columns`: the columns that an INSERT sets. Lists as
    parameters are not expanded.
    """
    options: dict[str, Any] = {"column_keys": list(columns)} if columns else {}
    done: Any = clause.compile(dialect=dialect, **options)
    binds: dict[str, Processor] = {}
    given: dict[str, Any] = {}
    for name, bind in getattr(done, "binds", {}).items():  # DDL has none
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            binds[name] = process
        if not bind.required:
            given[name] = bind.effective_value
    selected = getattr(clause, "selected_columns", ()) if clause.is_select else ()  # type: ignore[attr-defined]
    results = [
        c.type.dialect_impl(dialect).result_processor(dialect, _sent_as(c.type)) for c in selected
    ]
    return Statement(str(done), given=given, binds=binds, results=results)
