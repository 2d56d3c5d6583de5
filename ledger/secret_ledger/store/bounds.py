"""Largest sizes of columns, which each statement checks before it fetches a value.

Anybody who can write to the database can put 400 MB into a row. No such row opens, but a process
that fetches it runs out of memory before it can say so. So every statement checks lengths. If a
value is longer than a ledger ever writes, it comes back as NULL, which no seal covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.format import sealed_size
from secret_ledger.model.metadata import MAX_METADATA
from secret_ledger.model.names import MAX_NAME_BYTES
from secret_ledger.model.secret import MAX_VALUE

__all__ = [
    "MAX_GENERATIONS",
    "MAX_KEYS",
    "MAX_SEALED",
    "MAX_STREAM_BYTES",
    "SMALL",
    "Bounds",
    "behind",
    "checked_number",
]

MAX_SEALED: Final = sealed_size(MAX_VALUE)
SMALL: Final = 16 * 1024
"""Bytes: a sealed value up to this size comes with its page.

Larger values are fetched row by row, so that a page of any values fits into memory.
"""
SECRET_METADATA: Final = 3 * MAX_METADATA
"""Largest number of bytes of the metadata of a secret's event.

It holds the caller's part, the author of a re-encryption, and the ledger's own facts.
"""
CONTROL_METADATA: Final = 1024 * 1024
"""Largest number of bytes of the metadata of a control event.

A certificate counts every key that the ledger ever had.
"""
MAX_STREAM_BYTES: Final = 64 * 1024 * 1024
"""Largest number of bytes of a whole control stream, which a process keeps in memory."""
MAX_GENERATIONS: Final = 10_000
MAX_KEYS: Final = 10_000

_WORD: Final = 64
"""Largest number of bytes of an event's type, a key id, or a state."""
_HASH: Final = 32
_TOP: Final = "\U0010ffff" * 4

Sealed = Literal["whole", "small", "none"]


class Bounds:
    """The SQL with which one database returns only values in bounds."""

    def __init__(self, text_size: str, bytes_size: str) -> None:
        """`text_size`, `bytes_size`: SQL that counts the bytes of a column, written `{}`."""
        self._text_size = text_size
        self._bytes_size = bytes_size

    def text(self, column: str, most: int, other: str = "NULL") -> str:
        """The text in `column`; `other` if it has more than `most` bytes."""
        return self._bounded(self._text_size, column, most, other)

    def bytes(self, column: str, most: int, other: str = "NULL") -> str:
        """The bytes in `column`; `other` if they are more than `most`."""
        return self._bounded(self._bytes_size, column, most, other)

    def begun(self, column: str, most: int) -> str:
        """The text in `column`; its first `most` + 1 characters if its bytes exceed `most`."""
        size = self._text_size.format(column)
        cut = f"substr({column}, 1, {most + 1})"
        return f"CASE WHEN {size} <= {most} THEN {column} ELSE {cut} END"

    def name(self, column: str) -> str:
        """A stream's name; a name that is too long is cut.

        So the next page can begin behind it. The cut name is still too long for a name.
        """
        return self.begun(column, MAX_NAME_BYTES)

    def _bounded(self, size: str, column: str, most: int, other: str) -> str:
        if other == "NULL":
            return f"CASE WHEN {size.format(column)} <= {most} THEN {column} END"
        # A NULL stays NULL: its length is unknown, so the comparison is not true.
        return f"CASE WHEN {size.format(column)} > {most} THEN {other} ELSE {column} END"

    def event(
        self, alias: str, sealed: Sealed = "whole", metadata: int = CONTROL_METADATA
    ) -> dict[str, str]:
        """The columns of an event by name, in order; without `sealed` if that is "none"."""
        words = {"event_type": _WORD, "key_id": _WORD, "metadata": metadata}
        hashes = {"key_fingerprint": _HASH, "prev_hash": _HASH, "event_hash": _HASH}
        largest = {"whole": MAX_SEALED, "small": SMALL, "none": 0}[sealed]
        columns: dict[str, str] = {}
        for name in (
            "generation", "position", "stream", "version", "event_type", "key_id",
            "key_fingerprint", "recorded_at", "metadata", "prev_hash", "sealed", "event_hash",
        ):  # fmt: skip
            column = f"{alias}.{name}"
            if name == "stream":
                column = self.name(column)
            elif name in words:
                column = self.text(column, words[name])
            elif name in hashes:
                column = self.bytes(column, hashes[name])
            elif name == "sealed":
                column = self.bytes(column, largest)
            columns[name] = column
        if sealed == "none":
            del columns["sealed"]
        return columns

    def row(self, alias: str) -> str:
        """The columns of one event, for a statement that returns one row."""
        return selected(self.event(alias))

    def paged(self, alias: str) -> str:
        """The columns of an event in a page.

        `sealed` is NULL if it has more than `SMALL` bytes. `metadata` is NULL if it has more bytes
        than a secret's event can have; a control event can.
        """
        return selected(self.event(alias, "small", SECRET_METADATA))

    def folded(self, alias: str) -> str:
        """The columns that a projection folds: all but `sealed`, which needs a key."""
        return selected(self.event(alias, "none", SECRET_METADATA))

    def head(self, alias: str) -> str:
        """The columns of a head row."""
        plain = [f"{alias}.{name}" for name in ("generation", "position", "recorded_at")]
        return ", ".join([*plain, f"{alias}.key_epoch", self.text(f"{alias}.state", _WORD)])

    def key(self, alias: str) -> str:
        """A key id and its fingerprint."""
        label = self.text(f"{alias}.key_id", _WORD)
        return f"{label} AS key_id, {self.bytes(f'{alias}.key_fingerprint', _HASH)}"

    def columns(
        self, texts: Mapping[str, int], raw: Mapping[str, int], order: Iterable[str]
    ) -> str:
        """These columns, in order: texts and bytes with their bounds, numbers as they are.

        `texts`, `raw`: the largest number of bytes, by the name of the column.
        """
        return ", ".join(
            self.begun(name, texts[name])
            if name in texts
            else self.bytes(name, raw[name])
            if name in raw
            else name
            for name in order
        )


def selected(columns: Mapping[str, str]) -> str:
    """A select list in which each column has its own name."""
    return ", ".join(f"{column} AS {name}" for name, column in columns.items())


def behind(name: str) -> str:
    """The name above which the next page begins, if the last page ended with `name`.

    A name that was cut stands for all names that begin like it: none of them is a secret's name.
    """
    # If a table lost its types, it gives values that are no text, and these are never cut.
    if type(name) is not str or len(name) <= MAX_NAME_BYTES // 4:
        return name
    return name if len(name.encode(errors="replace")) <= MAX_NAME_BYTES else name + _TOP


def checked_number(rows: int, most: int, what: str) -> None:
    """Raises TamperedEvent if a table has more rows than a ledger can have written."""
    if rows > most:
        raise TamperedEvent(
            f"there are more than {most:,} {what}: a ledger never writes so many",
            hint="somebody else writes to the database; restore it from a backup",
        )
