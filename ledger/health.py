"""What a probe and an operator see of a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from sqlalchemy.engine import Connection

from ledger.append import InlineProjection
from ledger.events import from_microseconds
from ledger.gate import Standing
from ledger.state import Head
from ledger.store.database import Database

__all__ = ["Health", "KeyStatus", "key_status", "projection_lag"]


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
    replica_lag_seconds: float | None = None
    """On a standby, how old what it shows may be; None on a primary, and on SQLite."""


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key as the ledger knows it, and whether it is in hand."""

    key_id: str
    key_fingerprint: bytes
    state: Literal["active", "superseded", "retired", "lost", "pending"]
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
        state: Literal["active", "superseded", "retired", "lost"] = "superseded"
        if active:
            state = "active"
        elif key.lost is not None:
            state = "lost"
        elif key.retired is not None:
            state = "retired"
        found.append(
            KeyStatus(
                key.id,
                key.fingerprint,
                state,
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


@runtime_checkable
class Lagging(Protocol):
    """A projection that can say how far it is behind."""

    def lag(self, connection: Connection, database: Database, head: Head) -> int:
        """Positions between its checkpoint and the head row."""
        ...


async def projection_lag(
    database: Database, head: Head, projections: Sequence[InlineProjection]
) -> int | None:
    """How far the slowest of `projections` is behind; None where there are none."""
    lagging = [p for p in projections if isinstance(p, Lagging)]
    if not lagging:
        return None
    return await database.run(lambda c: max(p.lag(c, database, head) for p in lagging), "statement")
