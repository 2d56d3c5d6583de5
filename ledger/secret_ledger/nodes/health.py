"""The health of a node, as probes and operators see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from secret_ledger.errors import LedgerError
from secret_ledger.model.events import from_microseconds
from secret_ledger.model.rows import LogHead
from secret_ledger.nodes.registry import difference, differing_nodes, several_write
from secret_ledger.rules.gate import Standing, out_of_reach
from secret_ledger.rules.key_record import KeyState, key_state
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.following import Follower
from secret_ledger.session.opened import Identity
from secret_ledger.store.catalogue import deviations
from secret_ledger.store.database import Database
from secret_ledger.store.projection import InlineProjection, Lagging
from secret_ledger.store.reads import ahead_of_clock
from secret_ledger.verify.verified import Verified

__all__ = [
    "Health",
    "KeyStatus",
    "Observation",
    "Observer",
    "assess",
    "key_status",
    "rotation_due",
]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a node is ready, and the reasons. A node that is `degraded` still works."""

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
    """Level of the last verification; `incremental` while the scrub checks the rest."""
    round_trip_seconds: float
    warnings: Sequence[str]
    differing: Sequence[str]
    """Messages about live nodes that announce another active key: no fault of this node.

    If no key proves a node's line, the message says so.
    """
    replica_lag_seconds: float | None = None
    """Seconds that the rows of a standby may be old.

    None on a primary, and on SQLite.
    """
    unwritable: Sequence[str] = ()
    """Why nothing can be written here now.

    This makes a node unready that writes. A node that only reads shows it too.
    """


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key as the ledger knows it, and whether this process holds it."""

    key_id: str
    key_fingerprint: bytes
    state: KeyState | Literal["pending"]
    held: bool
    epoch: int | None
    introduced: int | None
    activated: int | None
    """Position of the key's activation."""
    activated_at: datetime | None
    events: int | None
    """Events under the active key; None for other keys.

    Only for the active key is the number known without counting.
    """
    age_seconds: float | None = None
    """Seconds since the activation of the active key, by this machine's clock.

    None for other keys.
    """


def key_status(standing: Standing, head: LogHead | None) -> Sequence[KeyStatus]:
    """The keys in order of activation. A pending key comes last."""
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
                time.time() - times[key.activated] / 1_000_000 if active else None,
            )
        )
    pending = standing.sealing.pending if standing.sealing else None
    if pending is not None:
        found.append(
            KeyStatus(
                pending.id, pending.fingerprint, "pending", True, None, None, None, None, None
            )
        )
    return found


def rotation_due(keys: Sequence[KeyStatus], *, days: float, events: int) -> str | None:
    """Why the active key should be replaced; None if it need not be.

    It should be if it is older than `days`, or if more than `events` events lie under it. The
    ledger never rotates by itself. See NIST SP 800-57 part 1, 5.3.6, and SP 800-38D, 8.3.
    """
    for key in keys:
        if key.age_seconds is not None and key.age_seconds > days * 86_400:
            return f"key {key.key_id} is {key.age_seconds / 86_400:,.0f} days old"
        if key.events is not None and key.events > events:
            return f"{key.events:,} events lie under key {key.key_id}"
    return None


@dataclass(frozen=True, slots=True)
class Observation:
    """The answers of the database to one look."""

    position: int
    round_trip_seconds: float
    projection_lag: int | None = None
    replica_lag_seconds: float | None = None
    differing: Sequence[str] = ()
    reasons: Sequence[str] = ()
    """Why the ledger can't be worked with."""
    failures: Sequence[str] = ()
    """Other problems, which make a node degraded."""
    unwritable: Sequence[str] = ()
    warnings: Sequence[str] = ()


class Observer:
    """Looks at the database for `health`."""

    def __init__(
        self, follower: Follower, projections: Sequence[InlineProjection], me: Identity
    ) -> None:
        self._follower = follower
        self._projections = projections
        self._me = me
        self._bounded: asyncio.Task[Observation] | None = None

    async def look(self, within: float | None = None) -> Observation:
        """Ask the database. Never raises.

        `within`: seconds. If the database has not answered within them, the observation says so.
        The question stays open, and the next caller with a bound waits for it too. Otherwise a
        database that hangs would be asked again and again, which would take every connection of the
        pool.
        """
        if within is None:
            return await _look(self._follower, self._projections, self._me)
        if self._bounded is None or self._bounded.done():
            self._bounded = asyncio.create_task(
                _look(self._follower, self._projections, self._me), name="secret-ledger health"
            )
        task = self._bounded
        await asyncio.wait({task}, timeout=within)
        if task.done() and not task.cancelled():
            return task.result()
        why = f"the database did not answer within {within:g} s"
        if task.done():
            why = "the ledger was closed"
        return Observation(self._follower.seen, within, reasons=(why,))

    async def close(self) -> None:
        """Give up on a question that is still open."""
        if self._bounded is not None:
            self._bounded.cancel()
            await asyncio.wait({self._bounded})


async def _look(
    follower: Follower, projections: Sequence[InlineProjection], me: Identity
) -> Observation:
    database = follower.database
    began = time.monotonic()
    trip: float | None = None
    position = follower.seen
    lag: int | None = None
    behind: float | None = None
    differing: Sequence[str] = ()
    reasons: list[str] = []
    failures: list[str] = []
    warnings: list[str] = []
    unwritable = [] if follower.unwritable is None else [follower.unwritable]
    try:
        replica, around = await database.run(
            lambda c: (database.replica(c), database.surroundings()), "statement"
        )
        failures += around.dangers
        unwritable += around.hindrances
        if replica is not None:
            behind = replica.lag_seconds
            if not replica.receiving:
                failures.append("this standby receives nothing from its primary")
        began = time.monotonic()
        met = await database.run(follower.lineage.recognise, "statement")
        trip = time.monotonic() - began
        if met is None:
            reasons.append("no generation is in use")
        else:
            head = met.head
            position = head.position
            if follower.in_doubt or not follower.is_current(head, met.control):
                await follower.follow()
            lag, untold = await _projection_lag(database, head, projections)
            failures += untold
            ahead, schema = await database.run(
                lambda c: (ahead_of_clock(c, database, head), deviations(c, database)), "statement"
            )
            warnings += ahead
            failures += schema.warnings
            if schema.reason is not None:
                reasons.append(schema.reason)
            differing, untold = await _differing(follower, me)
            failures += untold
            warnings += await _race(follower, me)
    except LedgerError as error:
        reasons.append(f"{error.code}: {error.message}")
        behind = error.details.get("replica_lag_seconds", behind)
    except Exception as error:  # noqa: BLE001  # an instrumentation's, say; it may quote anything
        reasons.append(f"looking at the database failed: {type(error).__name__}")
    trip = time.monotonic() - began if trip is None else trip
    return Observation(
        position, trip, lag, behind, differing, reasons, failures, unwritable, warnings
    )


async def _race(follower: Follower, me: Identity) -> list[str]:
    """Returns how the database can be damaged, if several processes write it now."""
    database = follower.database
    if database.race is None:
        return []
    try:
        writer = None if database.read_only else me
        several = await database.run(lambda c: several_write(c, database, writer), "statement")
    except LedgerError:  # `_differing` has reported it
        return []
    return [database.race] if several else []


async def _differing(follower: Follower, me: Identity) -> tuple[list[str], list[str]]:
    """Returns messages about the nodes that differ, and why they are unknown, if they are.

    A node works without the registry, so an error is no reason to be unready.
    """
    database = follower.database
    standing = follower.standing
    active, judge = standing.control.active.fingerprint, Judge(standing.control, standing.keys)
    try:
        nodes = await database.run(
            lambda c: differing_nodes(c, database, judge, besides=me.node_id), "statement"
        )
    except LedgerError as error:
        return [], [f"nodes: {error.message}"]
    return [difference(node, active) for node in nodes], []


def assess(
    follower: Follower,
    verified: Verified,
    look: Observation,
    *,
    node: str,
    read_only: bool,
    failures: Sequence[str],
    warnings: Sequence[str],
) -> Health:
    """Judge whether a node can do its work, and why not. `failures` only degrade it."""
    standing = follower.standing
    control, sealing = standing.control, standing.sealing
    pending = sealing.pending if sealing else None
    reasons = list(look.reasons)
    if not read_only:
        reasons += look.unwritable
    if standing.refusal is not None:
        reasons.append(f"{standing.refusal.code}: {standing.refusal.message}")
    reasons += verified.reasons()
    failures = (*failures, *look.failures)
    return Health(
        ready=not reasons,
        state="unready" if reasons else "degraded" if failures else "ready",
        reasons=(*reasons, *failures),
        ledger_id=control.ledger_id.hex(),
        node=node,
        read_only=read_only,
        position=look.position,
        key_epoch=control.epoch,
        active_key_id=control.active.id,
        active_fingerprint=control.active.fingerprint.hex(),
        pending_fingerprint=pending.fingerprint.hex() if pending else None,
        projection_lag=look.projection_lag,
        verified_seconds_ago=time.monotonic() - verified.at,
        verified_level=verified.report.level,
        round_trip_seconds=look.round_trip_seconds,
        warnings=(
            *warnings,
            *look.warnings,
            *(sealing.warnings if sealing else ()),
            *out_of_reach(standing, look.position),
        ),
        differing=look.differing,
        replica_lag_seconds=look.replica_lag_seconds,
        unwritable=look.unwritable,
    )


async def _projection_lag(
    database: Database, head: LogHead, projections: Sequence[InlineProjection]
) -> tuple[int | None, list[str]]:
    """Returns how many positions the slowest projection is behind, and why that is unknown.

    A node works without that number, so an error is no reason to be unready.
    """
    lags: list[int] = []
    untold: list[str] = []
    for projection in projections:
        if not isinstance(projection, Lagging):
            continue
        try:
            lags.append(
                await database.run(
                    lambda c, it=projection: it.lag(c, database, head),  # type: ignore[misc]
                    "statement",
                )
            )
        except LedgerError as error:
            untold.append(f"projection {projection.name}: {error.message}")
        except Exception as error:  # noqa: BLE001  # its own code
            untold.append(f"projection {projection.name}: {type(error).__name__}")
    return (max(lags) if lags and not untold else None), untold
