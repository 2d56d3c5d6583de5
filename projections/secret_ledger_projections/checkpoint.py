"""How far a projection has folded the log: one position for each projection and generation.

Before a process writes a projection's rows, it moves the checkpoint by compare-and-set, or locks
it. So the checkpoint's row is a lock, and one process writes at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from secret_ledger.errors import NotALedger, TamperedEvent
from secret_ledger.model.rows import LogHead
from secret_ledger.store.bounds import MAX_GENERATIONS, checked_number
from secret_ledger.store.connection import Connection, Statement
from secret_ledger.store.database import Database

__all__ = ["CheckpointState", "advance", "begin", "forget", "lock", "read", "standing"]


class CheckpointState(NamedTuple):
    """How far a projection has folded the log of one generation."""

    generation: int
    checkpoint: int | None
    """Position up to which the projection is folded. None if it was never begun."""
    end: int
    """The position at which the log ends."""

    @property
    def lag(self) -> int:
        """Positions that the projection is behind the log.

        A checkpoint ahead of the log says nothing: then it is behind by all positions.
        """
        at = self.checkpoint or 0
        return self.end if at > self.end else self.end - at


def standing(
    connection: Connection, database: Database, projection: str, generation: int | None = None
) -> CheckpointState:
    """The state of `projection` in `generation`, default the generation in use.

    Raises NotALedger if that generation does not exist.
    """
    if generation is None:
        generation = _head(connection, database, None).generation
    at = read(connection, database, projection, generation)
    # The end is read last: if the log grows in between, the checkpoint is not ahead of it.
    return CheckpointState(generation, at, _head(connection, database, generation).position)


def _head(connection: Connection, database: Database, generation: int | None) -> LogHead:
    heads = [LogHead._make(row) for row in connection.execute(database.statements.heads)]
    checked_number(len(heads), MAX_GENERATIONS, "generations")
    for head in heads:
        numbers: tuple[object, ...] = head[:2]
        if not all(isinstance(number, int) for number in numbers):
            raise TamperedEvent(
                "a head row of the ledger holds another value where a number must be"
            )
        if head.generation == generation:
            return head
        if generation is None and head.state in ("active", "moved"):
            return head
    which = "no generation is in use" if generation is None else f"no generation {generation}"
    raise NotALedger(f"{database.place}: {which}")


def read(
    connection: Connection, database: Database, projection: str, generation: int
) -> int | None:
    """The position up to which the rows are folded. None if the checkpoint does not exist."""
    how = database.statements.checkpoints(projection)
    return _position(connection, how.read, how.place, projection, generation)


def begin(connection: Connection, database: Database, projection: str, generation: int) -> None:
    """Make the checkpoint, at position 0, unless it exists."""
    begin = database.statements.checkpoints(projection).begin
    connection.execute(begin, {**_key(projection, generation), "position": 0})


def advance(
    connection: Connection,
    database: Database,
    projection: str,
    generation: int,
    before: int,
    after: int,
) -> bool:
    """Move the checkpoint from `before` to `after` and lock it. False if it is elsewhere."""
    moved = connection.execute(
        database.statements.checkpoints(projection).advance,
        {**_key(projection, generation), "before": before, "position": after},
    )
    return moved.rowcount == 1


def lock(
    connection: Connection, database: Database, projection: str, generation: int
) -> int | None:
    """Lock the checkpoint until the commit, and return its position. None if it does not exist."""
    how = database.statements.checkpoints(projection)
    return _position(connection, how.lock, how.place, projection, generation)


def forget(connection: Connection, database: Database, projection: str, generation: int) -> None:
    """Delete the checkpoint of a generation whose rows are gone."""
    forget = database.statements.checkpoints(projection).forget
    connection.execute(forget, _key(projection, generation))


def _position(
    connection: Connection, statement: Statement, place: str, projection: str, generation: int
) -> int | None:
    found = [row[0] for row in connection.execute(statement, _key(projection, generation))]
    if not found:
        return None
    if len(found) > 1 or not isinstance(found[0], int):
        raise TamperedEvent(
            f"the checkpoint of projection {projection} is not one whole number",
            hint=f"delete the projection's row in {place}, then rebuild the projection",
        )
    return found[0]


def _key(projection: str, generation: int) -> dict[str, str | int]:
    return {"projection": projection, "generation": generation}
