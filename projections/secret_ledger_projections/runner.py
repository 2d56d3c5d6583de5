"""Keeps a projection's table: in the append's own transaction, or later, in pages.

In both ways, a page is one transaction. First the checkpoint moves, by compare-and-set; then the
rows are loaded, folded and written. So if several runners work at once, exactly one of them folds
each event. After a crash, rows and checkpoint agree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from sqlalchemy import Table
from sqlalchemy.schema import CreateIndex, CreateTable

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.model.events import Event
from secret_ledger.model.rows import LogHead
from secret_ledger.rules.findings import Progress
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database, Folded
from secret_ledger.store.driver_errors import fail_in_projection
from secret_ledger.store.retry import through_outages
from secret_ledger_projections import checkpoint, pages
from secret_ledger_projections.comparison import differences_at, has_secrets
from secret_ledger_projections.protocol import Projection
from secret_ledger_projections.table import ProjectionTable

__all__ = ["Inline", "catch_up", "install", "lag"]


FRUITLESS: Final = 20
"""Attempts in a row that don't move the checkpoint, before `catch_up` gives up."""


class Inline:
    """Keeps a projection in the append's own transaction: its rows show each write at once.

    For `SecretLedger.open(…, projections=[*default(), Inline(MyProjection())])`. On PostgreSQL the
    first projection takes no trip of its own, if it has `first_values`. A process that writes
    without the projection leaves its table behind. If the table is behind by a page at most, the
    next append folds the missed events too. If it is further behind, it stays behind until
    `catch_up`, which opening runs.
    """

    def __init__(self, projection: Projection) -> None:
        self.name: str = projection.name
        self.projection = projection
        self._tables: dict[tuple[str, str | None], ProjectionTable] = {}

    def __repr__(self) -> str:
        return f"<Inline {self.name}>"

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        """Fold `events`, which follow `head`'s position, and move the checkpoint along."""
        generation, last = head.generation, events[-1].position
        if not checkpoint.advance(connection, database, self.name, generation, head.position, last):
            missed = self._missed(connection, database, head, last)
            if missed is None:
                return
            events = [*missed, *events]
        self._table(database).apply(connection, generation, events)

    def folded(self, database: Database, events: Sequence[Event]) -> Folded | None:
        """The rows after `events`. Returns None if `apply` must read the rows first."""
        if type(self).apply is not Inline.apply:  # a subclass has an `apply` of its own
            return None
        return self._table(database).folded(events)

    def _missed(
        self, connection: Connection, database: Database, head: LogHead, last: int
    ) -> list[Event] | None:
        """Moves the checkpoint to `last`. Returns the events between it and `head`.

        Returns None, and moves nothing, if they are more than a page, or if the checkpoint is ahead
        of `head`.
        """
        at = checkpoint.read(connection, database, self.name, head.generation)
        if not 0 <= head.position - (at or 0) <= pages.PAGE:
            return None
        if at is None:
            checkpoint.begin(connection, database, self.name, head.generation)
        if not checkpoint.advance(connection, database, self.name, head.generation, at or 0, last):
            return None
        return pages.by_position(connection, database, head.generation, at or 0, head.position)

    async def catch_up(self, database: Database) -> int:
        """Make the table if it is missing, and fold the events that it lacks.

        Returns the number of positions that were folded.
        """
        await install(database, self.projection)
        return await catch_up(database, self.projection)

    def is_installed(self, connection: Connection, database: Database) -> bool:
        """Whether the projection's table exists."""
        return not _is_missing(connection, database, self._table(database).table)

    def forget(
        self, connection: Connection, database: Database, generation: int, limit: int
    ) -> int:
        """Delete up to `limit` rows of a generation. Returns their number.

        If no row is left, the checkpoint is deleted.
        """
        deleted = self._table(database).forget(connection, generation, limit)
        if not deleted:
            checkpoint.forget(connection, database, self.name, generation)
        return deleted

    def lag(self, connection: Connection, database: Database, head: LogHead) -> int:
        """Positions between the checkpoint and the head row."""
        at = checkpoint.read(connection, database, self.name, head.generation) or 0
        if at <= head.position:
            return head.position - at
        # The log has grown since `head` was read, or somebody else wrote the checkpoint.
        return checkpoint.standing(connection, database, self.name, head.generation).lag

    async def differences(self, database: Database, head: LogHead) -> AsyncIterator[str]:
        """Each difference between the table, as far as it is folded, and the fold of the log."""

        def look(connection: Connection) -> int | None:
            """The checkpoint, if the table does not exist."""
            if self.is_installed(connection, database):
                return None
            return checkpoint.read(connection, database, self.name, head.generation) or 0

        without_table = await through_outages(database, look, "snapshot")
        if without_table is not None:  # it was never made, or was dropped
            if without_table:
                yield f"its table is gone; it was folded up to position {without_table}"
            return
        async for difference in differences_at(database, self.projection, head):
            if not difference.is_lag:
                yield str(difference)

    async def behind(self, database: Database, head: LogHead) -> int:
        """Positions that the table is behind `head`; 0 if no secret was written at them."""
        here = await through_outages(
            database,
            lambda c: checkpoint.standing(c, database, self.name, head.generation),
            "snapshot",
        )
        at, end = here.checkpoint or 0, min(head.position, here.end)
        if 0 <= at < end and await has_secrets(database, head.generation, at, end):
            return end - at
        return 0

    def _table(self, database: Database) -> ProjectionTable:
        key = database.name, database.schema
        if key not in self._tables:
            self._tables[key] = ProjectionTable(self.projection, database)
        return self._tables[key]


async def catch_up(
    database: Database,
    projection: Projection,
    *,
    generation: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Fold the events beyond the checkpoint. Returns the number of positions that were folded.

    `generation`: the generation to fold; default the generation in use, also if that changes
    meanwhile. A checkpoint ahead of the log says nothing about the table: it is set back, and all
    events are folded anew. Several processes may run this at once. Raises LedgerUnavailable,
    NotALedger, ProjectionFailed.
    """
    table = ProjectionTable(projection, database)

    def look(connection: Connection) -> checkpoint.CheckpointState:
        return checkpoint.standing(connection, database, projection.name, generation)

    def page(connection: Connection) -> tuple[int, checkpoint.CheckpointState]:
        here = look(connection)
        if here.checkpoint is None:
            checkpoint.begin(connection, database, projection.name, here.generation)
        at = here.checkpoint or 0

        def move(to: int) -> bool:
            return checkpoint.advance(
                connection, database, projection.name, here.generation, at, to
            )

        if at > here.end:
            move(0)
            return 0, here
        events = pages.by_position(connection, database, here.generation, at, here.end)
        to = events[-1].position if len(events) >= pages.PAGE else here.end
        if not move(to):  # another runner was faster
            return 0, here
        try:
            table.apply(connection, here.generation, events)
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            fail_in_projection(error, projection.name, f", at positions {at + 1} to {to}")
        return to - at, here._replace(checkpoint=to)

    folded = fruitless = 0
    here = await through_outages(database, look, "snapshot")
    while here.lag or here.checkpoint is None:
        before = here.checkpoint
        done, here = await through_outages(database, page, "write")
        folded += done
        # If another runner is faster, the checkpoint moves all the same.
        fruitless = 0 if done or here.checkpoint != before else fruitless + 1
        if fruitless > FRUITLESS:
            raise LedgerUnavailable(
                f"the checkpoint of projection {projection.name} does not move: the database"
                " takes the statement and changes nothing",
                hint="look for triggers, rules and policies on "
                + database.statements.checkpoints(projection.name).place.partition(".")[0],
            )
        if on_progress is not None:
            on_progress(Progress(here.end - here.lag, here.end))
        if not here.lag:  # the end as it was then: look again
            here = await through_outages(database, look, "snapshot")
    return folded


async def lag(database: Database, projection: Projection) -> int:
    """How many positions the table is behind the log. Raises LedgerUnavailable, NotALedger."""
    here = await through_outages(
        database, lambda c: checkpoint.standing(c, database, projection.name), "snapshot"
    )
    return here.lag


def _is_missing(connection: Connection, database: Database, table: Table) -> bool:
    return table.name not in database.tables(connection, table.schema)


async def install(database: Database, projection: Projection) -> bool:
    """Make the projection's table if it does not exist. Returns whether it was made now.

    On PostgreSQL it lies in the ledger's schema, unless the table names another schema. Raises
    LedgerUnavailable, ProjectionFailed.
    """
    table = ProjectionTable(projection, database).table

    def missing(connection: Connection) -> bool:
        return _is_missing(connection, database, table)

    def create(connection: Connection) -> None:
        try:
            connection.execute(CreateTable(table))
            for index in table.indexes:
                connection.execute(CreateIndex(index))
        except Exception as error:  # noqa: BLE001  # whatever its code raises
            fail_in_projection(error, projection.name, f", table {table.name}")

    if not await through_outages(database, missing, "snapshot"):
        return False
    try:
        await through_outages(database, create, "write")
    except LedgerUnavailable:
        if await through_outages(database, missing, "snapshot"):
            raise
        return False  # another process made it meanwhile
    return True
