"""Lists generations, purges a closed generation, and abandons a generation that is being built.

Before a generation is purged, the control stream states its contents: the counts, and a hash over
all its events. The sealed events of the control stream decide which steps are left. If a head row
says `purged` while its generation has rows, the purge is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from secret_ledger.errors import InvalidValue, MigrationInProgress
from secret_ledger.generations.emptying import empty, has_rows
from secret_ledger.log import log
from secret_ledger.model.control import Control, abandoned_metadata
from secret_ledger.model.events import EventType, from_microseconds
from secret_ledger.model.metadata import encode_metadata, parse_metadata
from secret_ledger.model.rows import LogHead
from secret_ledger.read.census import KeyUse, uses
from secret_ledger.rules.findings import OnProgress
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.openings import openings_of
from secret_ledger.session.following import Follower
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations, moves
from secret_ledger.store.retry import through_outages
from secret_ledger.store.transitions import replace_head
from secret_ledger.verify.proving import check_whole, prove_without
from secret_ledger.write.append import Attempt, append_events
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = [
    "GenerationInfo",
    "PurgeReport",
    "abandon",
    "list_generations",
    "purge",
]

PAGE = 2000
"""Rows whose hashes one transaction reads."""


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """One complete copy of the history."""

    generation: int
    state: str
    """active, building, closed, purging, purged or moved."""
    position: int
    """The position at which the generation's log ends, as its head row says."""
    opened_at: datetime | None
    closed_at: datetime | None
    needs: Sequence[str]
    """Ids of the keys that an event of the generation needs."""
    keys: Sequence[KeyUse]
    """Counts of the generation's rows under each key. Empty if no row is left."""
    bytes: int
    """Bytes of the sealed values.

    The database takes about 300 bytes more for each event.
    """


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """The result of a purge, or of an abandoned migration."""

    changed: bool
    """False if the generation was purged before, or if no generation was being built."""
    generation: int | None
    deleted: int
    """Rows that this run deleted."""
    left_at: str | None = None
    """Address of the target of an abandoned move, if the other half still lies in it."""


async def list_generations(database: Database, control: Control) -> Sequence[GenerationInfo]:
    """Every generation with a head row in this database, oldest first. Raises LedgerUnavailable."""
    heads = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    opened: dict[int, int] = {0: control.events[0].recorded_at}
    closed: dict[int, int] = {}
    for event in control.events:
        about = parse_metadata(event.metadata).ledger
        if event.event_type == EventType.GENERATION_OPENED:
            opened[about["generation"]] = event.recorded_at
            closed[about["from"]] = event.recorded_at
    found = await uses(database, heads)
    listed: list[GenerationInfo] = []
    for head in heads:
        keys = [use for use in found if use.generation == head.generation]
        listed.append(
            GenerationInfo(
                generation=head.generation,
                state=head.state,
                position=head.position,
                opened_at=_time(opened.get(head.generation)),
                closed_at=_time(closed.get(head.generation)),
                needs=[use.key_id for use in keys if use.events],
                keys=keys,
                bytes=sum(use.bytes for use in keys),
            )
        )
    return listed


def _time(at: int | None) -> datetime | None:
    return None if at is None else from_microseconds(at)


async def purge(
    session: Session,
    generation: int,
    *,
    actor: str | None,
    on_progress: OnProgress | None,
) -> PurgeReport:
    """Delete a closed generation, so that nothing needs its keys any more.

    The generation in use is verified first, without the keys that it does not need: if its rows are
    damaged, the closed generation may hold the last good copy. If the purge is interrupted, run it
    again: until its last row is gone, the generation still needs its keys.

    Raises InvalidValue if the generation is in use or never existed, and MigrationInProgress if it
    is being built. Raises TamperedEvent or MissingKey if an event of the generation in use does not
    open.
    """
    database, follower = session.database, session.follower
    control = (await follower.follow(read=through_outages)).control
    openings = openings_of(control)
    # If its head row is gone, sealed events still say at which position it was closed.
    end = openings.kept.get(generation)
    instead = None if end is None else LogHead(generation, end, 0, control.epoch, "closed")
    head = await _head(database, generation, instead)
    left = await through_outages(database, lambda c: has_rows(c, database, generation), "statement")
    used, begun = generation in openings.used, generation in openings.purged
    if head.state == "purged" and not left and (begun or not used):
        return PurgeReport(changed=False, generation=generation, deleted=0)
    if head.state == "building" and not used:
        raise MigrationInProgress(
            f"generation {generation} is being built",
            hint="to throw it away: secret-ledger migrate --abandon",
            generation=generation,
        )
    if head.state in ("active", "moved") or generation == openings.in_use:
        raise InvalidValue(
            f"generation {generation} is {head.state}: only a closed generation can be purged",
            hint="`secret-ledger migrate` puts the next generation in use, and closes this"
            " generation",
        )
    certificate = None
    if used and not begun:
        await _check_what_stays(follower, generation, on_progress)
        end = openings.end(generation) or head.position
        certificate = encode_metadata(
            actor=actor, ledger=await _certificate(database, head._replace(position=end))
        )

    def begin(connection: Connection, standing: Standing) -> Attempt | None:
        control = standing.control
        locked = lock_control(connection, database, standing)
        if generation in openings_of(control).purged and certificate is not None:
            return None  # another process has begun the purge
        now = database.lock_generation(connection, generation)
        if now is None and instead is not None:
            now = instead
            connection.execute(database.statements.insert_head, now._asdict())
        if now is None or now.state in ("active", "moved"):
            return None
        replace_head(connection, database, now, now._replace(state="purging"))
        if certificate is None:  # stated before, or never in use
            return None
        entry = Entry(EventType.GENERATION_PURGED, certificate)
        events = control_events(control, standing.check_may_write(), locked, [entry])
        return append_events(connection, database, locked, events, session.projections)

    await commit(follower, begin, patience=session.patience)
    await follower.follow(read=through_outages)
    deleted = await empty(database, generation, session.projections, on_progress)
    log.info("generation_purged", generation=generation, deleted=deleted, actor=actor)
    return PurgeReport(changed=True, generation=generation, deleted=deleted)


async def _check_what_stays(follower: Follower, generation: int, tell: OnProgress | None) -> None:
    """Raises TamperedEvent or MissingKey if the generation in use is not whole by itself.

    Other closed generations are not checked: if two were damaged, neither could be purged.
    """
    control = follower.standing.control
    end = max(follower.seen, control.last.position)
    going = {key.fingerprint for key in control.keys if not control.positions_under(key, end)}
    proven = await prove_without(follower, going, "none", tell)
    check_whole(
        proven,
        f"generation {generation} was not purged, because the verification of the"
        " generation in use found a problem",
    )


async def abandon(
    session: Session,
    *,
    on_progress: OnProgress | None,
) -> PurgeReport:
    """Delete the generation that is being built. The generation in use is untouched.

    `generation.abandoned` says how many events at most were sealed in it: they count for the bound
    of its key. Of a move, this is the source's side. If it is interrupted, run it again. Raises
    LedgerMoved if the source has moved, and MigrationInProgress if the generation was put in use
    meanwhile.
    """
    database, follower = session.database, session.follower
    standing = await follower.follow(read=through_outages)
    standing.check_not_moved()
    control = standing.control
    heads = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    used = openings_of(control).used
    # Only `purge` deletes a generation that was in use, whatever its head row says.
    building = next(
        (h for h in heads if h.state in ("building", "purging") and h.generation not in used), None
    )
    if building is None:
        return PurgeReport(changed=False, generation=None, deleted=0)

    def begin(connection: Connection, standing: Standing) -> Attempt | None:
        control = standing.control
        locked = lock_control(connection, database, standing)
        now = database.lock_generation(connection, building.generation)
        if now is None or now.state != "building":
            return None
        replace_head(connection, database, now, now._replace(state="purging"))
        # The copies of a move lie in the target; at most the whole log was sealed.
        is_move = now.generation in {move.generation for move in moves(connection, database)}
        end = locked.head.position
        count = end if is_move else max(0, min(now.position, end))
        entry = Entry(
            EventType.GENERATION_ABANDONED, abandoned_metadata(control, now.generation, count)
        )
        events = control_events(control, standing.check_may_write(), locked, [entry])
        return append_events(connection, database, locked, events, session.projections)

    await commit(follower, begin, patience=session.patience)
    head = await _head(database, building.generation)
    if head.state not in ("purging", "purged"):
        raise MigrationInProgress(
            f"generation {head.generation} was put in use meanwhile", generation=head.generation
        )
    deleted = await empty(database, head.generation, session.projections, on_progress)
    begun = await through_outages(database, lambda c: moves(c, database), "statement")
    left_at = next((m.place for m in begun if m.generation == building.generation), None)
    return PurgeReport(True, building.generation, deleted, left_at)


async def _head(database: Database, generation: int, instead: LogHead | None = None) -> LogHead:
    """The head row of a generation. Without a row: `instead`, or if that is None, InvalidValue."""
    heads = await through_outages(
        database, lambda c: heads_of_generations(c, database), "statement"
    )
    for head in heads:
        if head.generation == generation:
            return head
    if instead is not None:
        return instead
    raise InvalidValue(
        f"there is no generation {generation}",
        hint=f"the generations of this ledger: {', '.join(str(head.generation) for head in heads)}",
    )


async def _certificate(database: Database, head: LogHead) -> dict[str, Any]:
    """The facts of `generation.purged`, taken before anything is deleted.

    They are the counts by fingerprint, the last position, and SHA-256 over the event hashes in
    order of position.
    """
    digest, sql, after = sha256(), database.statements, 0
    while True:

        def page(connection: Connection, after: int = after) -> list[tuple[int, bytes]]:
            place = {"generation": head.generation, "after": after, "limit": PAGE}
            found = connection.execute(sql.event_hashes, place)
            return [(row[0], row[1] or b"") for row in found]

        rows = await through_outages(database, page, "statement")
        for _, event_hash in rows:
            digest.update(event_hash)
        if len(rows) < PAGE:
            break
        after = rows[-1][0]
    counts = {
        use.key_fingerprint.hex(): {"events": use.events, "purged": use.purged}
        for use in await uses(database, [head])
    }
    return {
        "generation": head.generation,
        "position": head.position,
        "counts": counts,
        "sha256": digest.hexdigest(),
    }
