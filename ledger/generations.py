"""Generations: what exists, and how one that is not in use any more is taken out.

Purging is the one place where events are deleted. The database's own trigger allows it only
while the generation's head row says `purging`; what was there is said before, in the control
stream: the counts, and a hash over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

from ledger.append import Attempt, InlineProjection, enter
from ledger.census import KeyUse, uses
from ledger.committing import commit
from ledger.control import Control
from ledger.control_log import Entry, control_events, lock_control
from ledger.errors import InvalidValue, MigrationInProgress
from ledger.events import EventType, from_microseconds
from ledger.findings import Progress, Tell
from ledger.following import Follower
from ledger.gate import Standing
from ledger.log import log
from ledger.metadata import encode_metadata, parse_metadata
from ledger.state import Head
from ledger.store.connection import Connection
from ledger.store.database import Database
from ledger.store.reads import heads_of_generations, moves
from ledger.store.transitions import replace_head

__all__ = ["GenerationInfo", "PurgeReport", "abandon", "list_generations", "purge"]

BATCH = 2000
"""Rows that one transaction deletes, or reads the hashes of."""


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """One complete copy of the history."""

    generation: int
    state: str
    """active, building, closed, purging, purged or moved."""
    position: int
    """Where its log ends."""
    opened_at: datetime | None
    closed_at: datetime | None
    needs: Sequence[str]
    """The ids of the keys that something in it needs."""
    keys: Sequence[KeyUse]
    """What lies under which key; empty where it was purged."""
    bytes: int
    """Of sealed values; the database takes about 300 bytes more for each event."""


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge did."""

    changed: bool
    """False where there was nothing to do: it was purged before, or nothing was building."""
    generation: int | None
    deleted: int
    """Rows that this run deleted."""
    left_at: str | None = None
    """The address of the target of an abandoned move, where its other half lies still."""


@runtime_checkable
class Forgetting(Protocol):
    """A projection that can drop its rows of a generation."""

    def forget(
        self, connection: Connection, database: Database, generation: int, limit: int
    ) -> int:
        """Delete up to `limit` rows; how many there were. None are left after 0."""
        ...


async def list_generations(database: Database, control: Control) -> Sequence[GenerationInfo]:
    """Every generation there ever was, oldest first. Raises LedgerUnavailable."""
    heads = await database.run(lambda c: heads_of_generations(c, database), "statement")
    opened: dict[int, int] = {0: control.events[0].recorded_at}
    closed: dict[int, int] = {}
    for event in control.events:
        about = parse_metadata(event.metadata).ledger
        if event.event_type == EventType.GENERATION_OPENED:
            opened[about["generation"]] = event.recorded_at
            closed[about["from"]] = event.recorded_at
    found = await uses(database, [head for head in heads if head.state != "purged"])
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
    follower: Follower,
    projections: Sequence[InlineProjection],
    generation: int,
    *,
    actor: str | None,
    on_progress: Tell | None,
    patience: float,
) -> PurgeReport:
    """Delete a closed generation, so that nothing needs its keys any more.

    Resumable: until its last row is gone it counts as it was. Raises InvalidValue for a
    generation that is in use or never was, MigrationInProgress for one that is being built.
    """
    database = follower.database
    await follower.follow()
    head = await _head(database, generation)
    if head.state == "purged":
        return PurgeReport(changed=False, generation=generation, deleted=0)
    if head.state == "building":
        raise MigrationInProgress(
            f"generation {generation} is being built",
            hint="to throw it away: secret-ledger migrate --abandon",
            generation=generation,
        )
    if head.state not in ("closed", "purging"):
        raise InvalidValue(f"generation {generation} is {head.state}: only a closed one is purged")
    if head.state == "closed":
        about = await _certificate(database, head)
        metadata = encode_metadata(actor=actor, ledger=about)

        def begin(connection: Connection, standing: Standing) -> Attempt | tuple[()] | None:
            control, held = standing.control, standing.held
            locked = lock_control(connection, database, control)
            if locked is None or held is None:
                return None
            if not replace_head(connection, database, head, head._replace(state="purging")):
                return ()  # somebody else has begun
            entry = Entry(EventType.GENERATION_PURGED, metadata)
            events = control_events(control, held, locked, [entry])
            return enter(connection, database, locked, events, projections)

        await commit(follower, begin, patience=patience)
        await follower.follow()
    deleted = await _delete(database, head._replace(state="purging"), projections, on_progress)
    log.info("generation_purged", generation=generation, deleted=deleted, actor=actor)
    return PurgeReport(changed=True, generation=generation, deleted=deleted)


async def abandon(
    follower: Follower,
    projections: Sequence[InlineProjection],
    *,
    on_progress: Tell | None,
    patience: float,
) -> PurgeReport:
    """Throw the generation that is being built away; the one in use is untouched.

    Of a move this is the source's side. Interrupted, it is run again. Raises LedgerMoved once
    the source has moved, MigrationInProgress where it was put in use meanwhile.
    """
    database = follower.database
    standing = await follower.follow()
    if standing.moved and standing.refusal is not None:
        raise copy(standing.refusal)
    control = standing.control
    heads = await database.run(lambda c: heads_of_generations(c, database), "statement")
    purged = _purged(control)
    building = next(
        (
            head for head in heads
            if head.state == "building"
            # Begun and interrupted; `purge` says it in the control stream before it begins.
            or (head.state == "purging" and head.generation not in purged)
        ),
        None,
    )  # fmt: skip
    if building is None:
        return PurgeReport(changed=False, generation=None, deleted=0)

    def begin(connection: Connection, standing: Standing) -> Attempt | tuple[()] | None:
        if lock_control(connection, database, standing.control) is None:
            return None
        now = next(
            h for h in heads_of_generations(connection, database)
            if h.generation == building.generation
        )  # fmt: skip
        if now.state == "building":
            replace_head(connection, database, now, now._replace(state="purging"))
        return ()

    await commit(follower, begin, patience=patience)
    head = await _head(database, building.generation)
    if head.state not in ("purging", "purged"):
        raise MigrationInProgress(
            f"generation {head.generation} was put in use meanwhile", generation=head.generation
        )
    deleted = await _delete(database, head, projections, on_progress)
    begun = await database.run(lambda c: moves(c, database), "statement")
    left_at = next((m.place for m in begun if m.generation == building.generation), None)
    return PurgeReport(True, building.generation, deleted, left_at)


def _purged(control: Control) -> set[int]:
    """The generations whose purge was begun."""
    return {
        parse_metadata(event.metadata).ledger["generation"]
        for event in control.events
        if event.event_type == EventType.GENERATION_PURGED
    }


async def _head(database: Database, generation: int) -> Head:
    heads = await database.run(lambda c: heads_of_generations(c, database), "statement")
    for head in heads:
        if head.generation == generation:
            return head
    raise InvalidValue(
        f"there is no generation {generation}",
        hint=f"there are: {', '.join(str(head.generation) for head in heads)}",
    )


async def _certificate(database: Database, head: Head) -> dict[str, Any]:
    """What is about to be deleted: counts by fingerprint, the last position, and SHA-256 over
    the event hashes in order of position."""
    digest = sha256()
    sql = database.statements
    for after in range(0, head.position, BATCH):
        bounds = {"after": after, "bound": min(after + BATCH, head.position)}

        def page(connection: Connection, bounds: dict[str, int] = bounds) -> list[bytes]:
            rows = connection.execute(sql.event_hashes, {"generation": head.generation, **bounds})
            return [row[0] for row in rows]

        for event_hash in await database.run(page, "statement"):
            digest.update(event_hash)
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


async def _delete(
    database: Database,
    head: Head,
    projections: Sequence[InlineProjection],
    on_progress: Tell | None,
) -> int:
    """Delete what lies in a generation that is `purging`, then say that it is purged."""
    sql = database.statements
    generation = head.generation

    def batch(connection: Connection) -> int:
        last = connection.execute(sql.last_position, {"generation": generation}).scalar_one()
        done = connection.execute(
            sql.delete_events, {"generation": generation, "after": last - BATCH}
        )
        return done.rowcount

    def forget(connection: Connection) -> int:
        return sum(
            projection.forget(connection, database, generation, BATCH)
            for projection in projections
            if isinstance(projection, Forgetting)
        )

    def end(connection: Connection) -> None:
        replace_head(connection, database, head, head._replace(state="purged"))

    deleted = 0
    while done := await database.run(batch, "write"):
        deleted += done
        if on_progress is not None:
            on_progress(Progress(min(deleted, head.position), head.position))
    while await database.run(forget, "write"):
        pass
    await database.run(end, "write")
    return deleted
