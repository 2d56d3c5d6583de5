"""Moves a ledger into another database, which gets the next generation of the same ledger.

::

    begin      a `building` head row and a random move id here, then the same in the target
    build      pages are copied and proven while writers go on: `generations.builder`
    close      one transaction here, under the head row's lock: the last events are read, sealed
               anew and compared in memory; `generation.closed`; the head row says `moved`
    open       the last events are copied and proven in the target; then one transaction:
               `generation.opened`; the head row says `active`

If the command is killed at any moment, the same command goes on. Between close and open nobody can
write to either database, so the ledger is never writable in two places. After the close, the
command goes on with one target only: the target that holds the id of the sealed
`generation.closed`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import URL

from secret_ledger.boot.boot import check_not_ephemeral
from secret_ledger.errors import MigrationInProgress, TamperedEvent
from secret_ledger.generations.builder import Builder, another_builder, sealing_keys, why_not_opened
from secret_ledger.generations.migration import (
    MigrationReport,
    check_current_key,
    migrate,
    rehearse,
)
from secret_ledger.generations.move_target import (
    Half,
    TakenBackError,
    begin_half,
    check_clearable,
    clear_half,
    find_half,
    try_half,
)
from secret_ledger.generations.purge import PurgeReport, abandon
from secret_ledger.log import log
from secret_ledger.model.control import Control, generation_metadata
from secret_ledger.model.events import CONTROL_STREAM, Event, EventType
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.rows import LogHead, Move
from secret_ledger.model.secret import Secret
from secret_ledger.rotation.rotation import Takeover
from secret_ledger.rules.decide import Draft
from secret_ledger.rules.findings import OnProgress
from secret_ledger.rules.gate import Standing
from secret_ledger.session.in_progress import begin_building, in_progress
from secret_ledger.session.opened import Session
from secret_ledger.store.address import address_of, connect, is_engine
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations, moves
from secret_ledger.store.retry import through_outages
from secret_ledger.store.transitions import replace_head
from secret_ledger.write.append import Attempt, append_events, seal_draft
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Destination", "abandon_move", "migrate_or_move", "move"]

_MEDDLING: Final = "look for triggers and rules that the ledger has not made"


@dataclass(frozen=True, slots=True)
class Destination:
    """The database that a ledger moves to. Its repr shows no password."""

    where: URL | AsyncEngine | None
    schema: str | None
    """PostgreSQL's schema. None: the schema of the source, if the source has a schema."""

    @classmethod
    def of(cls, url: str | URL | AsyncEngine, schema: str | None) -> Destination:
        """The destination that a caller names. Never raises: `connect` refuses a bad URL."""
        return cls(url if is_engine(url) else address_of(url), schema)

    def connect(self, source: Database, *, read_only: bool, patience: float) -> Database:
        """The destination's database. Nothing is connected yet.

        `patience`: seconds to wait for another process's lock. Raises LedgerUnavailable if the URL
        is of no kind that the ledger knows.
        """
        schema = self.schema or source.schema
        return connect(self.where, schema=schema, read_only=read_only, patience=patience)


async def migrate_or_move(
    session: Session,
    target: Destination | None,
    *,
    dry_run: bool,
    actor: str | None,
    force_reason: str | None,
    on_progress: OnProgress | None,
) -> MigrationReport:
    """Migrate within the database, or move into `target`. Rotate to a pending key first, if any."""
    standing = await session.follower.follow(read=through_outages)
    if not dry_run and not (target is not None and standing.moved):
        session.check_writable()
    takeover = None
    if not dry_run and standing.sealing is not None and standing.sealing.pending is not None:
        takeover = Takeover(session, actor, force_reason)
    if target is not None:
        return await move(
            session, target, takeover, dry_run=dry_run, actor=actor, on_progress=on_progress
        )
    if dry_run:
        return await rehearse(session.follower, on_progress=on_progress)
    return await migrate(session, takeover, actor=actor, on_progress=on_progress)


async def move(
    session: Session,
    target: Destination,
    takeover: Takeover | None,
    *,
    dry_run: bool,
    actor: str | None,
    on_progress: OnProgress | None,
) -> MigrationReport:
    """Move the ledger into the database `target`. If that was done before, the report says so.

    `takeover` rotates to a pending key, once nothing about the target could refuse the move. If a
    move was begun before that key came, it is finished under the active key.

    Raises the errors of `migrate`. Raises NotALedger if the target lies in memory, or is a SQLite
    file with tables of another application. Raises WrongLedger if the target holds another ledger,
    or this ledger but not as this move's other half. Raises MigrationInProgress if another move is
    under way, and LedgerUnavailable.
    """
    database = target.connect(session.database, read_only=dry_run, patience=session.patience)
    try:
        check_not_ephemeral(session.follower.keyring, database)
        mover = Mover(session, database, takeover, actor=actor, on_progress=on_progress)
        return await (mover.rehearse() if dry_run else mover.run())
    finally:
        await database.close()


async def abandon_move(
    session: Session, *, target: Destination, on_progress: OnProgress | None
) -> PurgeReport:
    """Give up a move on both sides: the source first, so that it can't be handed over any more.

    The target is checked before, because rows that are deleted at the source can't be brought back.
    Raises LedgerMoved if the source has moved. Raises WrongLedger if the target is in use, or holds
    anything else than the half of a move. Raises WrongLedger also if it is empty and not this
    move's target. Raises MigrationInProgress if the target holds the half of an earlier move.
    """
    database = target.connect(session.database, read_only=False, patience=session.patience)
    try:
        (await session.follower.follow(read=through_outages)).check_not_moved()
        source = session.database
        await check_clearable(
            database, *await through_outages(source, lambda c: _begun(c, source), "statement")
        )
        here = await abandon(session, on_progress=on_progress)
        begun, _ = await through_outages(source, lambda c: _begun(c, source), "statement")
        deleted = await clear_half(database, begun, session.projections)
        return replace(
            here,
            changed=here.changed or deleted is not None,
            deleted=here.deleted + (deleted or 0),
            left_at=None,
        )
    finally:
        await database.close()


def _begun(connection: Connection, source: Database) -> tuple[Sequence[Move], Move | None]:
    """Returns the moves that this database knows, and the move that is under way."""
    known = moves(connection, source)
    heads = heads_of_generations(connection, source)
    building = {head.generation for head in heads if head.state == "building"}
    return known, next((move for move in known if move.generation in building), None)


class Mover:
    """One run of a move."""

    def __init__(
        self,
        session: Session,
        target: Database,
        takeover: Takeover | None,
        *,
        actor: str | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._follower = session.follower
        self._takeover = takeover
        self._source = session.database
        self._target = target
        self._projections = session.projections
        self._builder = Builder(session, target, on_progress=on_progress)
        self._actor = actor
        self._on_progress = on_progress
        self._patience = session.patience
        self._closing = 0.0

    async def run(self) -> MigrationReport:
        """Do the steps that are left: begin, build, close, open."""
        began = time.monotonic()
        standing = await self._follower.follow(read=through_outages)
        known, half = await self._look(standing)
        if half is not None and half.head.state != "building":
            return self._report(standing.control, half.head, began, changed=False)
        if not standing.moved:
            if known is None:
                standing = await self._get_ready(standing)
            await self._target.run(self._target.check_settings, "statement")
            known = known or await self._begin(standing)
            half = half or await begin_half(
                self._target, standing.control, known, self._source.address
            )
        assert known is not None and half is not None  # noqa: PT018, S101  # `_look` ensures it
        building = half.head
        if not standing.moved:
            building = await self._close(known, building)
        head = await self._open(known, building)
        log.info(
            "ledger_moved",
            source=self._source.address,
            moved_to=self._target.address,
            generation=head.generation,
            key_id=standing.control.active.id,
            actor=self._actor,
        )
        return self._report(self._follower.standing.control, head, began, changed=True)

    async def _get_ready(self, standing: Standing) -> Standing:
        """Meets every refusal of this move, then rotates to a pending key.

        Before the rotation, nothing is written but the target's empty file on SQLite.
        """
        target, takeover = self._target, self._takeover
        check_current_key(standing, self._follower, may_pend=takeover is not None)
        if takeover is not None:
            await takeover.check()
        await target.prepare_creation(beside_other_tables=False)
        await target.run(target.check_settings, "statement")
        await try_half(target, standing.control, self._source.address)
        if takeover is not None:
            await takeover.rotate()
            standing = await self._follower.follow(read=through_outages)
            check_current_key(standing, self._follower)
        return standing

    async def rehearse(self) -> MigrationReport:
        """Read all events, and look at the target. Write nothing on either side."""
        began = time.monotonic()
        standing = await self._follower.follow(read=through_outages)
        _, half = await self._look(standing)
        if half is not None and (standing.moved or half.head.state != "building"):
            changed = half.head.state == "building"
            report = self._report(standing.control, half.head, began, changed=changed)
            return replace(report, dry_run=True)
        return await rehearse(
            self._follower, on_progress=self._on_progress, moved_to=self._target.address
        )

    def _report(
        self, control: Control, head: LogHead, began: float, *, changed: bool
    ) -> MigrationReport:
        now = time.monotonic()
        return MigrationReport(
            changed=changed,
            generation=head.generation,
            replaced=control.generation if changed else None,
            key_id=control.active.id,
            key_fingerprint=control.active.fingerprint,
            events=max(head.position, self._follower.seen),
            copied=self._builder.copied,
            purged=self._builder.purged,
            seconds=now - began,
            locked_seconds=now - self._closing if self._closing else 0.0,
            moved_to=self._target.address,
        )

    # --- begin -----------------------------------------------------------------------

    async def _look(self, standing: Standing) -> tuple[Move | None, Half | None]:
        """Returns the move under way here, or done, and its half in the target.

        Raises the refusal if the ledger can't move into this target.
        """
        database, control = self._source, standing.control
        if standing.moved:
            known: Move | None = _sealed(control)
        else:
            found = await through_outages(
                database, lambda c: in_progress(c, database, control), "statement"
            )
            if found is not None and found.move is None:
                raise MigrationInProgress(
                    f"generation {found.head.generation} is being built here",
                    hint="let `secret-ledger migrate` finish, or `secret-ledger migrate --abandon`"
                    " it, then move the ledger",
                    generation=found.head.generation,
                )
            known = found.move if found else None
        return known, await find_half(self._target, control, known, moved=standing.moved)

    async def _begin(self, standing: Standing) -> Move:
        database = self._source
        move_id = secrets.token_bytes(16)

        def begin(connection: Connection, standing: Standing) -> Attempt | Move:
            lock_control(connection, database, standing)
            found = in_progress(connection, database, standing.control)
            if found is not None:
                if found.move is None or found.move.move_id != move_id:
                    raise another_builder(found.head.generation)
                return found.move  # an earlier try, whose outcome was unknown
            head = begin_building(connection, database, standing.control)
            begun = Move(head.generation, move_id, self._target.address)
            connection.execute(database.statements.insert_move, begun._asdict())
            return begun

        begun = await commit(self._follower, begin, patience=self._patience)
        assert isinstance(begun, Move)  # noqa: S101  # `begin` appends nothing
        return begun

    # --- close -----------------------------------------------------------------------

    async def _close(self, known: Move, building: LogHead) -> LogHead:
        """Ends the writing here, once the target is close behind the source."""
        closed = False
        while not closed:
            building = await self._builder.approach(building)
            await self._try_opening(known, building)
            closed = await self._hand_over(known, building)
        await self._follower.follow(read=through_outages)
        return building

    async def _hand_over(self, known: Move, building: LogHead) -> bool:
        """Returns False if the last events need a closer look by `approach` first."""
        database = self._source
        here = LogHead(known.generation, 0, 0, building.key_epoch, "building")

        def hand_over(connection: Connection, standing: Standing) -> Attempt | None:
            control, sealing = standing.control, sealing_keys(standing)
            locked = lock_control(connection, database, standing)
            self._closing = time.monotonic()
            if self._builder.last_stretch(connection, standing, building, locked.head) is None:
                return None
            metadata = self._metadata(control, known, "to", self._target.address)
            entry = Entry(EventType.GENERATION_CLOSED, metadata)
            events = control_events(control, sealing, locked, [entry])
            attempt = append_events(connection, database, locked, events, self._projections)
            moved = attempt.head._replace(state="moved")
            if not replace_head(connection, database, attempt.head, moved):
                raise TamperedEvent(f"the head row of generation {control.generation} changed")
            if not replace_head(connection, database, here, here._replace(state="purged")):
                raise another_builder(known.generation)  # the move was abandoned meanwhile
            problem = why_not_opened(connection, database, self._follower.keyring)
            if problem is not None:
                raise TamperedEvent(
                    f"{database.place} could not be opened any more once it is closed:"
                    f" {problem.message}",
                    hint=f"nothing was handed over; {_MEDDLING}",
                )
            return replace(attempt, head=moved)

        return isinstance(await commit(self._follower, hand_over, patience=self._patience), Attempt)

    def _metadata(
        self,
        control: Control,
        known: Move,
        side: str,
        address: str,
        purged: Mapping[str, Any] | None = None,
    ) -> str:
        return generation_metadata(
            known.generation,
            control.generation,
            control.active.id,
            control.active.fingerprint,
            actor=self._actor,
            move={"id": known.move_id.hex(), side: address},
            purged=purged,
        )

    # --- open ------------------------------------------------------------------------

    async def _try_opening(self, known: Move, building: LogHead) -> None:
        """Puts the target in use, checks it as the boot gate would, and rolls all of that back.

        Once the source is closed, it is too late to find that nobody can open the target.
        """
        target = self._target
        opened = await self._opening(
            known, building, building.position + 1, building.recorded_at, self._builder.left_out()
        )
        after = building._replace(
            position=opened.position, recorded_at=opened.recorded_at, state="active"
        )

        def unit(connection: Connection) -> None:
            if not replace_head(connection, target, building, after):
                raise another_builder(building.generation)
            self._builder.append_copies(connection, building, [opened])
            self._check_opens(connection, f"nothing was handed over; {_MEDDLING}")
            raise TakenBackError

        with suppress(TakenBackError):
            await target.run(unit, "write")

    def _check_opens(self, connection: Connection, hint: str) -> None:
        problem = why_not_opened(connection, self._target, self._follower.keyring)
        if problem is not None:
            raise TamperedEvent(
                f"{self._target.place} could not be opened: {problem.message}",
                hint=hint,
                **problem.details,
            )

    async def _open(self, known: Move, building: LogHead) -> LogHead:
        """Catches the target up with the source, which is closed, and puts it in use."""
        self._closing = self._closing or time.monotonic()
        building = await self._builder.complete(building)
        closed = self._follower.standing.control.last
        opened = await self._opening(
            known, building, closed.position, closed.recorded_at, self._builder.left_out()
        )

        def check(connection: Connection) -> None:
            self._check_opens(connection, f"{_MEDDLING}, then run the same command again")

        return await self._builder.append(building, [opened], state="active", check=check)

    async def _opening(
        self,
        known: Move,
        building: LogHead,
        position: int,
        not_before: int,
        left_out: Mapping[str, Any] | None,
    ) -> Event:
        """The sealed `generation.opened` that follows the control stream in the target."""
        target = self._target
        standing = self._follower.standing
        control, sealing = standing.control, sealing_keys(standing)
        now = await through_outages(target, target.clock, "statement")
        (end,) = await through_outages(
            target,
            lambda c: list(target.heads_of(c, building.generation, [CONTROL_STREAM])),
            "statement",
        )
        draft = Draft(
            CONTROL_STREAM,
            end.version + 1,
            EventType.GENERATION_OPENED,
            Secret(b""),
            self._metadata(control, known, "from", self._source.address, left_out),
            end.event_hash,
        )
        return seal_draft(
            control.ledger_id,
            building.generation,
            draft,
            position,
            max(not_before, now),
            sealing.active,
            sealing.active_id,
        )


def _sealed(control: Control) -> Move:
    """The move as a moved ledger's `generation.closed` states it. Raises TamperedEvent."""
    facts = parse_metadata(control.last.metadata).ledger
    about = facts.get("move")
    if isinstance(about, dict):
        try:
            return Move.of_row(
                (facts.get("generation"), bytes.fromhex(about.get("id", "")), about.get("to"))
            )
        except (ValueError, TypeError):
            pass
    raise TamperedEvent("generation.closed does not say where this ledger moved to")
