"""How results and remarks are written: a table, tab-separated lines, or one JSON document.

Text from a database may hold anything. So control characters are escaped before they reach a
terminal, and a tab or a line break can't pass for a separator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

from secret_ledger.cli.streams import drop
from secret_ledger.cli.usage import UsageError
from secret_ledger.errors import LedgerError

__all__ = ["Columns", "Output", "each", "facts", "text_of", "to_stderr", "visible"]

BATCH: Final = 500
"""Rows of one table on a terminal. A longer list goes on in the next table, to bound memory."""
_JOINERS: Final = "\u200c\u200d"  # several scripts need them for spelling
SHORT: Final = 16
"""Hex digits of a fingerprint in a table: enough to tell keys apart by eye."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of one kind of row, in order."""

    all: tuple[str, ...]
    """Names of the tab-separated fields in a line."""
    shown: tuple[str, ...]
    """Names of the columns in a table on a terminal."""
    unless_as: tuple[tuple[str, str], ...] = ()
    """Pairs of columns. If both are equal in every row, a table leaves out the first: a line has
    little room."""

    def of_table(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        repeated = {
            column
            for column, other in self.unless_as
            if all(row[column] == row[other] for row in rows)
        }
        return [column for column in self.shown if column not in repeated]


@dataclass(frozen=True, slots=True)
class Output:
    """Writes the results of one command to stdout, and its remarks to stderr."""

    as_json: bool

    def document(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document."""
        print(_json(document))

    def line(self, *cells: object) -> None:
        """Print one line of tab-separated fields."""
        print("\t".join(visible(text_of(cell).replace("\\", "\\\\")) for cell in cells))

    async def rows(
        self,
        name: str,
        columns: Columns,
        rows: AsyncIterable[object],
        *,
        none: str = "there are none",
        **around: object,
    ) -> None:
        """Print a list while its rows come in. If it is empty, a terminal shows the remark `none`.

        With --json the list is the field `name` of an object that begins with `around`. If an
        error cuts the list off, the output is no valid JSON, and can't pass for whole.
        """
        source = aiter(rows)
        # An error before the first row leaves stdout empty.
        first = [row async for row in _take(source, 1)]
        every = _chain(first, source)
        if not first and not self.as_json and sys.stdout.isatty():
            self.note(none)
            return
        if self.as_json:
            await self._json_rows(name, every, around)
        elif sys.stdout.isatty():
            await _tables(columns, every)
        else:
            async for row in every:
                known = facts(row)
                self.line(*(known[column] for column in columns.all))

    async def _json_rows(
        self, name: str, rows: AsyncIterable[object], around: Mapping[str, object]
    ) -> None:
        head = _json({**around, name: []})
        print(head[: -len("]}")], end="")
        separator = "\n"
        async for row in rows:
            print(separator + _json(facts(row)), end="")
            separator = ",\n"
        print("]}")

    def table(self, columns: Columns, rows: Iterable[object]) -> None:
        """Print a short list within a larger answer: as a table, or as tab-separated lines."""
        known = [facts(row) for row in rows]
        if sys.stdout.isatty():
            _table(columns, known)
            return
        for row in known:
            self.line(*(row[column] for column in columns.all))

    def note(self, text: str) -> None:
        """Print a remark on stderr."""
        self._remark("note", text)

    def warning(self, text: str) -> None:
        """Print a remark on stderr that an operator should look at."""
        self._remark("warning", text)

    def unverified(self, refusal: LedgerError) -> None:
        """Print on stderr why the output below was not checked."""
        text = f"{refusal.code}: {refusal.message}"
        if self.as_json:
            to_stderr(_json({"unverified": text, "hint": refusal.hint}))
        else:
            to_stderr(f"unverified: nothing below is authenticated, because {visible(text)}")

    def error(self, error: LedgerError | UsageError) -> None:
        """Print an error and its hint on stderr."""
        if self.as_json:
            known = {"error": error.code, "message": error.message, "hint": error.hint}
            details = {name: _detail(value) for name, value in error.details.items()}
            to_stderr(_json({**known, "exit_code": error.exit_code, "details": details}))
            return
        to_stderr(f"error: {visible(error.message)}")
        if error.hint:
            to_stderr("hint: " + "\n".join(visible(line) for line in error.hint.split("\n")))

    def _remark(self, kind: str, text: str) -> None:
        to_stderr(_json({kind: text}) if self.as_json else f"{kind}: {visible(text)}")


async def each(rows: Iterable[object]) -> AsyncIterator[object]:
    """Yield the rows of a list in hand, as `Output.rows` takes them."""
    for row in rows:
        yield row


def facts(thing: object) -> dict[str, Any]:
    """Return a dataclass's fields as JSON has them: bytes in hex, times as ISO 8601 in UTC.

    Raises TypeError if `thing` is no dataclass, or if a field is of a type that is never shown.
    """
    if not is_dataclass(thing):
        raise TypeError(f"not a fact: {type(thing).__name__}")
    return {field.name: _plain(getattr(thing, field.name)) for field in fields(thing)}


def visible(text: str) -> str:
    """Escape each character that moves a cursor, breaks a line or reverses the writing."""
    return "".join(c if c.isprintable() or c in _JOINERS else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    known = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
    number = ord(character)
    return known.get(character) or (f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}")


def _plain(value: object) -> Any:
    match value:
        case None | str() | bool() | int() | float():
            return value
        case bytes():
            return value.hex()
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
    if is_dataclass(value):
        return facts(value)
    # A Secret gets here only by mistake, and is not shown. Nor is any unknown type.
    raise TypeError(f"{type(value).__name__} is not shown")


def _detail(value: object) -> Any:
    try:
        return _plain(value)
    except TypeError as error:
        return f"({error})"


def _json(value: object) -> str:
    # ASCII survives any locale, and damaged text too.
    return json.dumps(_plain(value), separators=(", ", ": "))


def text_of(value: object) -> str:
    """Return the text of a value in a field of a line, or in a cell of a table."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case list() | dict():
            return _json(value)
    return str(value)


def _cell(column: str, value: object) -> str:
    """A reader of a table needs less than a script: fingerprints and times are shortened."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return visible(", ".join(value))
    text = text_of(value)
    if column.endswith("fingerprint"):
        return text[:SHORT]
    if column.endswith(("_at", "last_seen")) and text:
        return f"{text[:10]} {text[11:19]}Z"
    return visible(text)


async def _tables(columns: Columns, rows: AsyncIterable[object]) -> None:
    source = aiter(rows)
    while batch := [facts(row) async for row in _take(source, BATCH)]:
        _table(columns, batch)


def _table(columns: Columns, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown = columns.of_table(rows)
    for column in shown:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(column, row[column])) for column in shown))
    Console(file=sys.stdout, highlight=False).print(table)


async def _take(source: AsyncIterator[object], most: int) -> AsyncIterator[object]:
    for _ in range(most):
        try:
            yield await anext(source)
        except StopAsyncIteration:
            return


async def _chain(first: Sequence[object], rest: AsyncIterator[object]) -> AsyncIterator[object]:
    for row in first:
        yield row
    async for row in rest:
        yield row


def to_stderr(line: str) -> None:
    """Print a line on stderr. If stderr can't be written, the work under way goes on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)
