"""Deletes the rows of a generation whose head row says `purging`; then that row says `purged`.

The database's own trigger allows the deletion only in that state. Each batch locks the head row
first, so each of two processes sees which rows the other has left. The head row becomes `purged`
only if no row is left under the same lock.
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
"""Rows that one transaction deletes at most."""


def has_rows(connection: Connection, database: Database, generation: int) -> bool:
    """Whether a generation has any event, at whatever position."""
    place = {"generation": generation}
    return connection.execute(database.statements.ends, place).one()[0] is not None


async def empty(
    database: Database,
    generation: int,
    projections: Sequence[InlineProjection],
    on_progress: OnProgress | None,
) -> int:
    """Delete all rows of a generation that is `purging`, then set its head row to `purged`.

    Returns the number of events that this run has deleted. Several processes may run it at once.
    Raises MigrationInProgress if the generation is in another state, and LedgerUnavailable if the
    database keeps rows that it was told to delete.
    """
    forgetting = [each for each in projections if isinstance(each, Forgetting)]
    total = await through_outages(
        database, lambda c: _last(c, database, generation) or 0, "statement"
    )
    deleted = 0

    def batch(connection: Connection) -> int | None:
        """Returns the number of deleted events; None once the head row says that none is left."""
        head = database.lock_generation(connection, generation)
        if head is None or head.state not in ("purging", "purged"):
            raise MigrationInProgress(
                f"generation {generation} became {head.state if head else 'lost'} while it was"
                " purged: the purge has stopped",
                generation=generation,
            )
        last = _last(connection, database, generation)
        if last is not None and head.state == "purging":
            return _delete(connection, database, generation, last)
        if head.state == "purged":
            return None  # another process has finished the purge
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
    """Deletes from the end, so that the rows left are always the beginning of a history."""
    parameters = {"generation": generation, "after": max(last - BATCH, -(2**63))}
    deleted = connection.execute(database.statements.delete_events, parameters).rowcount
    if not deleted:
        raise LedgerUnavailable(
            f"the database keeps the rows of generation {generation} that it was told to delete",
            hint="look for triggers and rules on secret_event that the ledger has not made",
        )
    return deleted
