"""The protocol of a projection: a table, and a pure fold of each secret's events into its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy import Table

from secret_ledger.model.events import Event

__all__ = ["Projection"]


class Projection(Protocol):
    """A table that is a fold of the log: one row for each secret, always rebuildable.

    Implement it to keep a read side of your own; the runner does the rest.

    A projection may also have `first_values`, a sequence of column names. These columns stay as a
    secret's first event set them. Then `fold` needs no other columns of `row`, and may be given
    None in place of `row`. So an append can write the row without reading it first.
    """

    @property
    def name(self) -> str:
        """Names its checkpoint, which says how far the table is folded. Never reuse a name."""
        ...

    @property
    def table(self) -> Table:
        """The table of the rows.

        The primary key is (generation, name): a whole number and the secret's name. The other
        columns are the projection's own. A table without a schema lies beside the ledger's tables.
        Give columns plain types (numbers, text, bytes): a value must be read back equal to the
        value that was written.
        """
        ...

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
        """The row after `event`, without the key columns; None for no row.

        `row`: the result of the earlier events of the same secret; None before the first event.

        Pure: the same events give the same row. `event.sealed` is always empty. Events of the
        control stream are not folded. Text that no database takes (a NUL, damaged UTF-8) is stored
        escaped. A number beyond 64 bits is stored as the nearest number that fits.
        """
        ...
