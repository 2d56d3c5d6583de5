"""Deleting the rows of a generation whose head row says `purging`, and what that ends in.

The database's own trigger allows the deletion only in that state. Each batch takes the head
row's lock first, so that of two processes each sees what the other one has left; and the head
row says `purged` only where, under the same lock, no row is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from secret_ledger.errors import LedgerUnavailable, MigrationInProgress, TamperedEvent
from secret_ledger.rules.findings import OnProgress, Progress
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.projection import Forgetting, InlineProjection
from secret_ledger.store.retry import through_outages
from secret_ledger.store.transitions import replace_head

__all__ = ["BATCH", "empty", "has_rows"]

BATCH = 2000
"""Rows that one transaction deletes."""


def has_rows(connection: Connection, database: Database, generation: int) -> bool:
    """Whether any event lies in a generation, at whatever position."""
    place = {"generation": generation}
    return connection.execute(database.statements.ends, place).one()[0] is not None


async def empty(
    database: Database,
    generation: int,
    projections: Sequence[InlineProjection],
    on_progress: OnProgress | None,
) -> int:
    """Delete all that lies in a generation that is `purging`, then say that it is purged; how
    many events this run has deleted.

    Several may run at once. Raises MigrationInProgress where the generation is in another state.
    """
    forgetting = [each for each in projections if isinstance(each, Forgetting)]
    total = await through_outages(
        database, lambda c: _last(c, database, generation) or 0, "statement"
    )
    deleted = 0

    def batch(connection: Connection) -> int | None:
        """How many events were deleted. None where nothing is left, and the head row says so."""
        head = database.lock_generation(connection, generation)
        if head is None or head.state not in ("purging", "purged"):
            raise MigrationInProgress(
                f"generation {generation} is {head.state if head else 'gone'} by now: nothing more"
                " of it is deleted",
                generation=generation,
            )
        last = _last(connection, database, generation)
        if last is not None and head.state == "purging":
            return _delete(connection, database, generation, last)
        if head.state == "purged":
            return None  # another process has ended it
        if any(each.forget(connection, database, generation, BATCH) for each in forgetting):
            return 0
        if not replace_head(connection, database, head, head._replace(state="purged")):
            raise TamperedEvent(f"the head row of generation {generation} changed under its lock")
        return None

    while (done := await through_outages(database, batch, "write")) is not None:
        deleted += done
        if on_progress is not None and done:
            on_progress(Progress(min(deleted, total), total))
    return deleted


def _last(connection: Connection, database: Database, generation: int) -> int | None:
    place = {"generation": generation}
    last = connection.execute(database.statements.ends, place).one()[1]
    return last if isinstance(last, int) else None


def _delete(connection: Connection, database: Database, generation: int, last: int) -> int:
    """Delete from the end, so that what is left is always the beginning of a history."""
    parameters = {"generation": generation, "after": max(last - BATCH, -(2**63))}
    deleted = connection.execute(database.statements.delete_events, parameters).rowcount
    if not deleted:
        raise LedgerUnavailable(
            f"the database keeps the rows of generation {generation} that it was told to delete",
            hint="look for triggers and rules on secret_event that the ledger has not made",
        )
    return deleted
