"""The target of a move: checks it, makes the target's half of the move, and clears it again.

The half is a building generation, the move's id, the ledger's id and its keys. One transaction
makes the half, and no `open` accepts it. A move changes nothing in a target but its own half.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from secret_ledger.boot.creation import lay_out
from secret_ledger.errors import (
    LedgerError,
    MigrationInProgress,
    NotALedger,
    TamperedEvent,
    WrongLedger,
)
from secret_ledger.generations.builder import kept_in
from secret_ledger.model.control import Control
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead, Meta, Move
from secret_ledger.session.in_progress import moving
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.projection import Forgetting, InlineProjection
from secret_ledger.store.reads import heads_of_generations, moves
from secret_ledger.store.retry import through_outages
from secret_ledger.store.schema import check_version, read_meta, remove

__all__ = [
    "Half",
    "TakenBackError",
    "begin_half",
    "check_clearable",
    "clear_half",
    "find_half",
    "try_half",
]


class Half(NamedTuple):
    """The rows that a move has made in its target."""

    head: LogHead
    move: Move


@dataclass(frozen=True, slots=True)
class There:
    """A ledger, or half of a ledger, that lies in a target."""

    meta: Meta
    heads: Sequence[LogHead]
    keys: frozenset[tuple[object, object]]
    moves: Sequence[Move]

    def half(self, move_id: bytes) -> Half | None:
        """The half that the move of this id has made. Returns None if it has made none."""
        for move in self.moves:
            for head in self.heads:
                if (move.move_id, move.generation) == (move_id, head.generation):
                    return Half(head, move)
        return None

    @property
    def is_in_use(self) -> bool:
        """Whether a generation is in use, so that somebody may have written to it."""
        return any(head.state in ("active", "moved") for head in self.heads)


async def find_half(
    target: Database, control: Control, known: Move | None, *, moved: bool
) -> Half | None:
    """Find the half of the move `known` in `target`.

    `moved`: whether the source is closed already. Returns None if the target is empty and the move
    may begin in it. Raises NotALedger, WrongLedger, MigrationInProgress or TamperedEvent, which say
    the way out.
    """
    if target.in_memory:
        raise NotALedger(
            "a database in memory is gone when it is closed: no ledger is moved there",
            hint="give the URL of a file, or of a PostgreSQL database",
        )
    if not target.exists():
        there = None
    else:
        there = await target.run(lambda c: _look(c, target), "snapshot")
    return _judged(target, control, known, there, moved=moved)


def _look(connection: Connection, target: Database) -> There | None:
    if target.read_only:  # a dry run; any other run makes the settings first
        target.check_settings(connection)
    meta = read_meta(connection, target)
    if meta is None:
        if target.name == "sqlite" and target.tables(connection):
            raise _occupied(target)
        return None
    check_version(meta, upgrading=True)
    return There(
        meta,
        heads_of_generations(connection, target),
        frozenset((row[0], row[1]) for row in connection.execute(target.statements.keys)),
        # A target with an older schema has no table of moves.
        moves(connection, target) if "ledger_move" in target.tables(connection) else (),
    )


def _occupied(target: Database) -> NotALedger:
    return NotALedger(
        f"{target.place} holds another application's tables and no ledger",
        hint="a ledger is moved into a database of its own (on PostgreSQL a schema): give one that"
        " is empty; nothing was written",
    )


def _judged(
    target: Database, control: Control, known: Move | None, there: There | None, *, moved: bool
) -> Half | None:
    if there is None:
        if moved and known is not None:
            raise _not_the_target(target, known)
        if known is not None and known.place != target.address:
            raise moving(known)
        return None
    if there.meta.ledger_id != control.ledger_id:
        raise WrongLedger(
            f"{target.place} holds another ledger, {there.meta.ledger_id.hex()}",
            hint="a ledger is moved into an empty database; nothing was written",
            expected=control.ledger_id.hex(),
            actual=there.meta.ledger_id.hex(),
        )
    half = there.half(known.move_id) if known is not None else None
    if half is None:
        if moved and known is not None:
            raise _not_the_target(target, known)
        _refuse(target, there)
    if half.head.state != "building" and not moved:
        raise TamperedEvent(
            f"{target.place} is in use, and yet the ledger never moved there: an older copy of the"
            " source was put in place",
            hint="stop every process that writes to the source of the move; the target holds the"
            " ledger with all newer events",
        )
    known_keys = {(key.id, key.fingerprint) for key in control.keys}
    if half.head.state == "building" and there.keys != known_keys:
        raise TamperedEvent(
            f"{target.place}: ledger_key does not hold the rows that this move has written",
            hint="run `secret-ledger migrate --abandon --to` with the URL of that database, then"
            " move again",
        )
    return half


def _not_the_target(target: Database, known: Move) -> LedgerError:
    return WrongLedger(
        f"the ledger moved to {printable(known.place)}, not to {target.place} (move"
        f" {known.move_id.hex()})",
        hint="give the URL of that database; if that database is lost, restore it from a backup:"
        " events since the move are stored only there",
        moved_to=printable(known.place),
    )


def _refuse(target: Database, there: There) -> NoReturn:
    building = {head.generation for head in there.heads if head.state == "building"}
    halves = [move for move in there.moves if move.generation in building]
    if halves and not there.is_in_use:
        raise MigrationInProgress(
            f"{target.place} holds the unfinished copy of another move of this ledger, from"
            f" {printable(halves[0].place)}",
            hint="give an empty database; or delete the copy: at the source of that move, run"
            " `secret-ledger migrate --abandon --to` with this URL",
        )
    raise WrongLedger(
        f"{target.place} holds this very ledger, and not as the target of this move",
        hint="it is the source itself, or a copy: give an empty database; nothing was written",
    )


async def begin_half(target: Database, control: Control, known: Move, source: str) -> Half:
    """Make the target's half of a move in one transaction, or find the half that was made.

    `source`: the address of the source, which the half states. Raises the errors of `find_half`.
    """

    def unit(connection: Connection) -> Half:
        found = _judged(target, control, known, _look(connection, target), moved=False)
        if found is not None:
            return found
        return _make(connection, target, control, known._replace(place=source))

    return await through_outages(target, unit, "write")


def _make(connection: Connection, target: Database, control: Control, here: Move) -> Half:
    sql = target.statements
    lay_out(connection, target, control.ledger_id)
    for key in control.keys:
        connection.execute(sql.insert_key, {"key_id": key.id, "key_fingerprint": key.fingerprint})
    head = LogHead(here.generation, 0, 0, control.epoch, "building")
    connection.execute(sql.insert_head, head._asdict())
    connection.execute(sql.insert_move, here._asdict())
    return Half(head, here)


async def try_half(target: Database, control: Control, source: str) -> None:
    """Make a half in the empty target, and take it back in the same transaction.

    Raises the error that keeps the half from being made, such as a missing right or a full disk.
    """

    def unit(connection: Connection) -> None:
        if _look(connection, target) is None:
            _make(connection, target, control, Move(control.generation + 1, bytes(16), source))
        raise TakenBackError

    with suppress(TakenBackError):
        await through_outages(target, unit, "write")


class TakenBackError(Exception):
    """Ends a transaction that must not be committed."""


async def check_clearable(target: Database, known: Sequence[Move], begun: Move | None) -> None:
    """Raises WrongLedger if `clear_half` would raise it.

    Raises WrongLedger also if the target is empty and is not the target of the move under way.
    Raises MigrationInProgress if the target holds the half of another move than the move under way.
    """
    there = None
    if target.exists():
        there = await target.run(lambda c: _look(c, target), "snapshot")
    if there is None:
        if begun is not None and begun.place != target.address:
            raise WrongLedger(
                f"the move under way goes to {printable(begun.place)}; {target.place} holds"
                " nothing of this move",
                hint="give the URL of that database, or leave --to out to abandon the move here"
                " only; nothing was deleted",
                moved_to=printable(begun.place),
            )
        return
    half = _half_of(target, there, known)
    if begun is not None and half.move.move_id != begun.move_id:
        raise moving(begun)


def _half_of(target: Database, there: There, known: Sequence[Move]) -> Half:
    """The half of one of the moves `known`. Raises WrongLedger if the target holds no such half."""
    halves = [there.half(move.move_id) for move in known]
    half = next((half for half in halves if half is not None), None)
    if half is None or there.is_in_use:
        raise WrongLedger(
            f"{target.place} holds no unfinished copy of a move that was abandoned here",
            hint="nothing was deleted there; check the URL",
        )
    return half


async def clear_half(
    target: Database, known: Sequence[Move], projections: Sequence[InlineProjection]
) -> int | None:
    """Delete the half of an abandoned move from its target, with all our tables.

    `known`: the moves that were begun at the source; none of them is under way any more. Returns
    the number of events that the half had, or None if the target is empty. Raises WrongLedger if
    the target holds anything else, or is in use.
    """
    if not target.exists():
        return None

    def unit(connection: Connection) -> int | None:
        there = _look(connection, target)
        if there is None:
            return None
        connection.execute(target.statements.lock_meta)
        half = _half_of(target, there, known)
        for projection in kept_in(connection, target, projections):
            if isinstance(projection, Forgetting):
                while projection.forget(connection, target, half.head.generation, 2000):
                    pass
        remove(connection, target)
        return half.head.position

    return await through_outages(target, unit, "write")
