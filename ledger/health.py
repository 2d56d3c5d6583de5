"""What a probe and an operator see of a node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from sqlalchemy.engine import Connection

from ledger.append import InlineProjection, check_not_behind
from ledger.errors import LedgerError
from ledger.events import from_microseconds
from ledger.findings import VerifyReport
from ledger.following import Follower
from ledger.gate import Standing
from ledger.key_record import KeyState, key_state
from ledger.state import Head
from ledger.store.database import Database
from ledger.store.reads import head_in_use

__all__ = ["Health", "KeyStatus", "Lagging", "Verified", "assess", "key_status"]


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness, and the reasons. `degraded` still works."""

    ready: bool
    state: Literal["ready", "degraded", "unready"]
    reasons: Sequence[str]
    ledger_id: str
    node: str
    read_only: bool
    position: int
    key_epoch: int
    active_key_id: str
    active_fingerprint: str
    pending_fingerprint: str | None
    projection_lag: int | None
    """Positions that the slowest inline projection is behind; None if unknown."""
    verified_seconds_ago: float
    verified_level: str
    round_trip_seconds: float
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key as the ledger knows it, and whether it is in hand."""

    key_id: str
    key_fingerprint: bytes
    state: KeyState | Literal["pending"]
    held: bool
    epoch: int | None
    introduced: int | None
    activated: int | None
    """Position of its activation."""
    activated_at: datetime | None
    events: int | None
    """Events under it; known without counting for the active key only."""


def key_status(standing: Standing, head: Head | None) -> Sequence[KeyStatus]:
    """The keys in order of activation; last, a configured one that the ledger has not seen."""
    control = standing.control
    times = {e.position: e.recorded_at for e in control.events}
    found: list[KeyStatus] = []
    for key in control.keys:
        active = key == control.active
        found.append(
            KeyStatus(
                key.id,
                key.fingerprint,
                key_state(control, key),
                key.fingerprint in standing.keys,
                key.epoch,
                key.introduced,
                key.activated,
                from_microseconds(times[key.activated]),
                control.events_under_active(head.position) if active and head else None,
            )
        )
    if standing.held is not None and standing.held.pending is not None:
        pending = standing.held.pending
        found.append(
            KeyStatus(
                pending.id, pending.fingerprint, "pending", True, None, None, None, None, None
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Verified:
    """The last verification, and when it was: seconds of the monotonic clock."""

    report: VerifyReport
    at: float


async def assess(
    follower: Follower,
    projections: Sequence[InlineProjection],
    verified: Verified,
    *,
    node: str,
    read_only: bool,
    failures: Sequence[str],
    warnings: Sequence[str],
) -> Health:
    """Whether a node can do its work, and why not. `failures` degrade it; never raises."""
    database = follower.database
    began = time.monotonic()
    reasons: list[str] = []
    lag: int | None = None
    position = seen = follower.seen
    try:
        head = await database.run(lambda c: head_in_use(c, database), "statement")
        trip = time.monotonic() - began
        if head is None:
            reasons.append("no generation is in use")
        else:
            position = head.position
            check_not_behind(head, seen)
            if follower.in_doubt or not follower.is_current(head):
                await follower.follow()
            lag = await _projection_lag(database, head, projections)
    except LedgerError as error:
        trip = time.monotonic() - began
        reasons.append(f"{error.code}: {error.message}")
    standing = follower.standing
    control, held = standing.control, standing.held
    if standing.refusal is not None:
        reasons.append(f"{standing.refusal.code}: {standing.refusal.message}")
    if not verified.report.ok:
        reasons.append(f"{len(verified.report.findings)} findings at the last verify")
    return Health(
        ready=not reasons,
        state="unready" if reasons else "degraded" if failures else "ready",
        reasons=(*reasons, *failures),
        ledger_id=control.ledger_id.hex(),
        node=node,
        read_only=read_only,
        position=position,
        key_epoch=control.epoch,
        active_key_id=control.active.id,
        active_fingerprint=control.active.fingerprint.hex(),
        pending_fingerprint=held.pending.fingerprint.hex() if held and held.pending else None,
        projection_lag=lag,
        verified_seconds_ago=time.monotonic() - verified.at,
        verified_level=verified.report.level,
        round_trip_seconds=trip,
        warnings=warnings,
    )


@runtime_checkable
class Lagging(Protocol):
    """A projection that can say how far it is behind."""

    def lag(self, connection: Connection, database: Database, head: Head) -> int:
        """Positions between its checkpoint and the head row."""
        ...


async def _projection_lag(
    database: Database, head: Head, projections: Sequence[InlineProjection]
) -> int | None:
    """How far the slowest of `projections` is behind; None where there are none."""
    lagging = [p for p in projections if isinstance(p, Lagging)]
    if not lagging:
        return None
    return await database.run(lambda c: max(p.lag(c, database, head) for p in lagging), "statement")
