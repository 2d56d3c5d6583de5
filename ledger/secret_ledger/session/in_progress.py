"""A generation that is being built: its `building` head row, and for a move the `ledger_move` row.

While a generation is being built, no key is rotated and no other generation is begun. The row is
made under the active head row's lock, and only a look under that lock decides.
"""

from __future__ import annotations

from typing import NamedTuple

from secret_ledger.errors import MigrationInProgress, TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.rows import LogHead, Move
from secret_ledger.rules.gate import check_seals_left
from secret_ledger.rules.openings import openings_of
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations, moves

__all__ = ["InProgress", "begin_building", "check_not_building", "in_progress"]


class InProgress(NamedTuple):
    """A generation that is being built, here or in another database."""

    head: LogHead
    move: Move | None
    """The other side of a move. None if the generation is built in this database."""


def in_progress(connection: Connection, database: Database, control: Control) -> InProgress | None:
    """Find the generation that is being built. Returns None if no generation is.

    Raises MigrationInProgress if it was begun under another key than the active key, and
    TamperedEvent if its number is not the next number.
    """
    heads = heads_of_generations(connection, database)
    head = next((head for head in heads if head.state == "building"), None)
    if head is None:
        return None
    others = {other.generation for other in heads if other != head}
    openings = openings_of(control)
    if head.generation != openings.next(others):
        way_out = "migrate --abandon"
        if head.generation in openings.used:
            way_out = f"generations purge {head.generation}"
        raise TamperedEvent(
            f"generation {head.generation} says that it is being built, but the next generation is"
            f" {openings.next(others)}: somebody else wrote its head row",
            hint=f"throw generation {head.generation} away with `secret-ledger {way_out}`, then"
            " migrate again",
            generation=head.generation,
        )
    found = [move for move in moves(connection, database) if move.generation == head.generation]
    if head.key_epoch != control.epoch:
        raise MigrationInProgress(
            f"generation {head.generation} was begun under another key than the active one",
            hint="secret-ledger migrate --abandon, then migrate again",
            generation=head.generation,
        )
    return InProgress(head, found[0] if found else None)


def begin_building(connection: Connection, database: Database, control: Control) -> LogHead:
    """Make the head row of the next generation, and return it.

    The caller holds the active head row's lock, and has checked that nothing is being built.
    Raises KeyExhausted if the active key may not seal a copy of the history any more.
    """
    heads = heads_of_generations(connection, database)
    end = next(head.position for head in heads if head.generation == control.generation)
    check_seals_left(control, end + 1, end + 1)  # the copy, the closing and the opening
    number = openings_of(control).next({head.generation for head in heads})
    head = LogHead(number, 0, 0, control.epoch, "building")
    connection.execute(database.statements.insert_head, head._asdict())
    return head


def check_not_building(connection: Connection, database: Database, control: Control) -> None:
    """Raises MigrationInProgress while the next generation is being built, here or elsewhere."""
    found = in_progress(connection, database, control)
    if found is None:
        return
    if found.move is None:
        raise MigrationInProgress(
            f"generation {found.head.generation} is being built under the active key",
            hint="let `secret-ledger migrate` finish, or `secret-ledger migrate --abandon` it",
            generation=found.head.generation,
        )
    raise moving(found.move)


def moving(move: Move) -> MigrationInProgress:
    """The refusal of anything else while a move is under way."""
    return MigrationInProgress(
        f"the ledger is being moved to {move.place}",
        hint="let `secret-ledger migrate --to` finish, or abandon the move with `secret-ledger"
        " migrate --abandon --to`: both with the URL of that database",
        generation=move.generation,
        moved_to=move.place,
    )
