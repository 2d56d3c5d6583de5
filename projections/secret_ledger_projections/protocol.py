"""What a projection is: a table, and a pure fold of each secret's events into its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy import Table

from secret_ledger.model.events import Event

__all__ = ["Projection"]


class Projection(Protocol):
    """A table that is a fold of the log: one row a secret, always rebuildable.

    Implement it to keep a read side of your own; the runner does the rest.

    A projection may also have `first_values`, a sequence of column names: those that stay as a
    secret's first event gave them. `fold` then needs nothing else of `row`, and may be given None
    in its place. So an append can write the row without reading it first.
    """

    @property
    def name(self) -> str:
        """The key of its checkpoint: how far the table has got. Never reuse one."""
        ...

    @property
    def table(self) -> Table:
        """Where the rows lie. The primary key is (generation, name): a whole number and the
        secret's name; the other columns are the projection's own. Without a schema it lies
        beside the ledger's tables. Give columns plain types (numbers, text, bytes): a value
        must be read back equal to what was written.
        """
        ...

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
        """The row after `event`, without the key columns; None for no row.

        `row` is what the earlier events of the same secret gave, None before the first one.
        Pure: the same events give the same row. `event.sealed` is always empty, and events
        of the control stream are not folded. Text that no database takes (a NUL, damaged
        UTF-8) is stored escaped, a number beyond 64 bits as the nearest that fits.
        """
        ...
