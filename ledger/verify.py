"""Verification: does what is stored open, chain and belong, and if not, which row is it?

`control` proves the control stream, `latest` also opens the head of every secret and counts
the rows, `full` opens every event and checks every chain, every position and the projections.
A library function with a progress callback and a report; the command is a thin shell.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from ledger.checking import Rules
from ledger.errors import TamperedEvent
from ledger.findings import Finding, Level, Tally, Tell, VerifyReport, check_level
from ledger.gate import Standing
from ledger.scan import Scan
from ledger.state import Head, Meta
from ledger.store.database import Database
from ledger.store.patience import patiently
from ledger.store.reads import read_state

__all__ = ["CheckedProjection", "check_projections", "verify_ledger"]


@runtime_checkable
class CheckedProjection(Protocol):
    """A projection that can be held against its fold."""

    name: str

    def differences(self, database: Database, head: Head) -> AsyncIterator[str]:
        """Each way in which the table, at `head`, is not what the log folds to."""
        ...


async def verify_ledger(
    database: Database,
    meta: Meta,
    standing: Standing,
    level: Level,
    *,
    projections: Sequence[CheckedProjection] = (),
    on_progress: Tell | None = None,
) -> VerifyReport | None:
    """Check what lies in `database`, whose control stream `standing` has verified already.

    What is written while it runs is never a finding; so None where the control stream has
    grown since `standing`: read on, then try again. Raises LedgerUnavailable, and InvalidValue
    for a level that there is not.
    """
    check_level(level)
    began = time.monotonic()
    tally = Tally()
    control = standing.control
    if level == "control":
        tally.events = len(control.events)
        tally.by_key.update(e.key_id for e in control.events)
        return tally.report(level, time.monotonic() - began)

    state = await patiently(database, lambda c: read_state(c, database, meta), "snapshot")
    head = next((h for h in state.heads if h.generation == control.generation), None)
    if head is None:
        raise TamperedEvent(f"the head row of generation {control.generation} is gone")
    if [e.event_hash for e in state.control] != [e.event_hash for e in control.events]:
        return None
    scan = Scan(database, Rules(control, standing.keys), tally, on_progress)
    if level == "latest":
        await scan.count_rows()
        await scan.heads(head)
        return tally.report(level, time.monotonic() - began)

    tally.heads = await scan.every_event(head)
    await scan.count_rows()
    await scan.other_generations(state.heads, meta)
    await check_projections(database, head, projections, tally)
    return tally.report(level, time.monotonic() - began)


async def check_projections(
    database: Database, head: Head, projections: Sequence[CheckedProjection], tally: Tally
) -> None:
    """Add each way in which a projection, at `head`, is not what the log folds to."""
    for projection in projections:
        async for difference in projection.differences(database, head):
            tally.add(Finding("projection", f"{projection.name}: {difference}"))
