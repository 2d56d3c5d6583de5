"""How far a projection has got: one number for each projection and generation.

Whoever writes a projection's rows first moves its checkpoint by compare-and-set, or locks
it: the row is the lock that makes one writer at a time of many processes.
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
    """A projection's place in the log of one generation."""

    generation: int
    checkpoint: int | None
    """None: it was never begun."""
    end: int
    """The position at which the log ends."""

    @property
    def lag(self) -> int:
        """Positions behind. A checkpoint ahead of the log says nothing: all of them."""
        at = self.checkpoint or 0
        return self.end if at > self.end else self.end - at


def standing(
    connection: Connection, database: Database, projection: str, generation: int | None = None
) -> CheckpointState:
    """Where `projection` stands in `generation`, default the one in use. Raises NotALedger."""
    if generation is None:
        generation = _head(connection, database, None).generation
    at = read(connection, database, projection, generation)
    # Read in this order: the log may grow in between, and is then not found to be too short.
    return CheckpointState(generation, at, _head(connection, database, generation).position)


def _head(connection: Connection, database: Database, generation: int | None) -> LogHead:
    heads = [LogHead._make(row) for row in connection.execute(database.statements.heads)]
    checked_number(len(heads), MAX_GENERATIONS, "generations")
    for head in heads:
        numbers: tuple[object, ...] = head[:2]
        if not all(isinstance(number, int) for number in numbers):
            raise TamperedEvent("a head row of the ledger holds what is no number")
        if head.generation == generation:
            return head
        if generation is None and head.state in ("active", "moved"):
            return head
    which = "no generation is in use" if generation is None else f"no generation {generation}"
    raise NotALedger(f"{database.place}: {which}")


def read(
    connection: Connection, database: Database, projection: str, generation: int
) -> int | None:
    """The position up to which the rows are folded; None where there is no checkpoint."""
    how = database.statements.checkpoints(projection)
    return _position(connection, how.read, how.place, projection, generation)


def begin(connection: Connection, database: Database, projection: str, generation: int) -> None:
    """Make the checkpoint, before the first position, unless there is one."""
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
    """Move the checkpoint from `before` to `after` and lock it; False where it is elsewhere."""
    moved = connection.execute(
        database.statements.checkpoints(projection).advance,
        {**_key(projection, generation), "before": before, "position": after},
    )
    return moved.rowcount == 1


def lock(
    connection: Connection, database: Database, projection: str, generation: int
) -> int | None:
    """Lock the checkpoint where it is, until commit."""
    how = database.statements.checkpoints(projection)
    return _position(connection, how.lock, how.place, projection, generation)


def forget(connection: Connection, database: Database, projection: str, generation: int) -> None:
    """Drop the checkpoint of a generation that is no more."""
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
            hint=f"take it out of {place}, then rebuild the projection",
        )
    return found[0]


def _key(projection: str, generation: int) -> dict[str, str | int]:
    return {"projection": projection, "generation": generation}
