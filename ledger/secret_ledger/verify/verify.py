"""Verification: does what is stored open, chain and belong, and if not, which row is it?

`control` proves the control stream, `latest` also opens the head of every secret and holds their
versions against the log's length, `full` opens every event and checks every chain, every position
and the projections.
A library function with a progress callback and a report; the command is a thin shell.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.rows import Head, Meta, State
from secret_ledger.rules.attestation import Proof
from secret_ledger.rules.findings import Finding, Level, Tally, Tell, VerifyReport, check_level
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.openings import openings_of
from secret_ledger.rules.row_checks import Rules
from secret_ledger.store.database import Database
from secret_ledger.store.projection import CheckedProjection
from secret_ledger.store.reads import read_state
from secret_ledger.store.retry import Read, patiently
from secret_ledger.verify.other_generations import check_other_generations
from secret_ledger.verify.scan import Scan

__all__ = [
    "Checked",
    "Others",
    "check_projections",
    "has_changed",
    "unchanged",
    "verify_ledger",
]


Others = Literal["none", "rows", "keys"]
"""Of the other generations: nothing, all but rows under keys that are not in hand, or all."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a verification."""

    report: VerifyReport
    proof: Proof | None = None
    """What a later boot can build on; None where something was found, or too little looked at."""
    warnings: Sequence[str] = ()


async def verify_ledger(
    database: Database,
    meta: Meta,
    standing: Standing,
    level: Level,
    *,
    projections: Sequence[CheckedProjection] = (),
    on_progress: Tell | None = None,
    read: Read = patiently,
    others: Others = "rows",
) -> Checked | None:
    """Check what lies in `database`, whose control stream `standing` has verified already.

    What is written while it runs is never a finding, nor is what a migration or a purge does
    meanwhile. Before anything is said to be wrong, the state is read again; so None where the
    control stream has grown since `standing`: read on, then try again. `others`: how far
    `full` looks at the other generations. Raises LedgerUnavailable, and InvalidValue for a
    level that there is not.
    """
    check_level(level)
    began, verified_at = time.monotonic(), time.time_ns() // 1000
    tally = Tally()
    control = standing.control
    if level == "control":
        tally.events = len(control.events)
        tally.by_key.update(e.key_id for e in control.events)
        return Checked(tally.report(level, time.monotonic() - began))

    state = await read(database, lambda c: read_state(c, database, meta), "snapshot")
    head = unchanged(state, control)
    if head is None:
        return None
    scan = Scan(database, Rules(control, standing.keys), tally, on_progress, read)
    if level == "latest":
        await scan.heads(head)
    else:
        closed = openings_of(control).kept if others != "none" else {}
        scan.whole = head.position + sum(closed.values())
        tally.heads = await scan.every_event(head)
        tally.add_all(await scan.count_rows())
        if others != "none":
            await check_other_generations(scan, meta, missing_keys_matter=others == "keys")
        await check_projections(database, head, projections, tally)
    report = tally.report(level, time.monotonic() - began)
    if not report.ok and await has_changed(database, meta, control, read):
        return None
    if not report.ok or state.last is None:
        return Checked(report)
    proof = Proof(
        generation=head.generation,
        position=head.position,
        level=level,
        heads=report.heads,
        event_hash=state.last.event_hash,
        control_hash=control.last.event_hash,
        head_keys=tuple(key.fingerprint for key in control.keys if key.id in report.by_key),
        verified_at=verified_at,
    )
    return Checked(report, proof)


async def has_changed(
    database: Database, meta: Meta, control: Control, read: Read = patiently
) -> bool:
    """Whether the control stream has grown since it was read as `control`: a flip, a purge or a
    lost key makes rows other than they were, and what was found of them may be no damage."""
    now = await read(database, lambda c: read_state(c, database, meta), "snapshot")
    return not now.in_use or unchanged(now, control) is None


def unchanged(state: State, control: Control) -> Head | None:
    """The head row, where the control stream is the one that was verified; None where it has
    grown. Raises TamperedEvent."""
    head = next((h for h in state.heads if h.generation == control.generation), None)
    if head is None:
        raise TamperedEvent(f"the head row of generation {control.generation} is gone")
    if [e.event_hash for e in state.control] != [e.event_hash for e in control.events]:
        return None
    return head


async def check_projections(
    database: Database, head: Head, projections: Sequence[CheckedProjection], tally: Tally
) -> None:
    """Add each way in which a projection, at `head`, is not what the log folds to.

    A table that is only behind is no damage: that is a warning.
    """
    for projection in projections:
        behind = await projection.behind(database, head)
        if behind:
            tally.warnings.append(
                f"{projection.name} is {behind} positions behind the log: the next node that opens"
                " the ledger to write folds them"
            )
        async for difference in projection.differences(database, head):
            tally.add(Finding("projection", f"{projection.name}: {difference}"))
