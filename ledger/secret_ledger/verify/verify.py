"""Verification: does each stored row open, chain and belong; and if not, which row is it?

`control` proves the control stream. `latest` also opens the newest event of every secret, and
compares their versions with the log's length. `full` opens every event, and checks every chain,
every position and the projections. All this is a library function with a progress callback and a
report; the command is a thin shell.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.control import Control
from secret_ledger.model.rows import LogHead, Meta, State
from secret_ledger.rules.attestation import FORMAT, Attestation
from secret_ledger.rules.findings import (
    Finding,
    Level,
    OnProgress,
    Tally,
    VerifyReport,
    check_level,
)
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
"""How far `full` checks the other generations.

"none": not at all. "rows": all rows, but a key that is not in hand is no finding. "keys": such a
key is a finding too.
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a verification."""

    report: VerifyReport
    proof: Attestation | None = None
    """The base of a later boot. None if anything was found, or if too little was checked."""
    warnings: Sequence[str] = ()


async def verify_ledger(
    database: Database,
    meta: Meta,
    standing: Standing,
    level: Level,
    *,
    projections: Sequence[CheckedProjection] = (),
    on_progress: OnProgress | None = None,
    read: Read = patiently,
    others: Others = "rows",
) -> Checked | None:
    """Check the rows in `database`, whose control stream `standing` has verified already.

    Writes, migrations and purges that happen meanwhile never cause a finding: before a finding is
    reported, the state is read again. Returns None if the control stream has grown since
    `standing`: follow it, then try again. `others`: how far `full` checks the other generations.

    Raises LedgerUnavailable, InvalidValue for an unknown level, and TamperedEvent if the head row
    is gone.
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
    proof = Attestation(
        generation=head.generation,
        format=FORMAT,
        position=head.position,
        level=level,
        heads=report.heads,
        event_hash=state.last.event_hash,
        control_hash=control.last.event_hash,
        head_keys=b"".join(
            sorted(key.fingerprint for key in control.keys if key.id in report.by_key)
        ),
        verified_at=verified_at,
    )
    return Checked(report, proof)


async def has_changed(
    database: Database, meta: Meta, control: Control, read: Read = patiently
) -> bool:
    """Whether the control stream has grown since `control`, or no generation is in use.

    If so, a finding may be no damage: a migration, a purge or a lost key has changed the rows.
    Raises TamperedEvent if the head row is gone.
    """
    now = await read(database, lambda c: read_state(c, database, meta), "snapshot")
    return not now.in_use or unchanged(now, control) is None


def unchanged(state: State, control: Control) -> LogHead | None:
    """Returns the head row, or None if the control stream has grown since `control`.

    Raises TamperedEvent if the head row is gone.
    """
    head = next((h for h in state.heads if h.generation == control.generation), None)
    if head is None:
        raise TamperedEvent(f"the head row of generation {control.generation} is gone")
    if [e.event_hash for e in state.control] != [e.event_hash for e in control.events]:
        return None
    return head


async def check_projections(
    database: Database, head: LogHead, projections: Sequence[CheckedProjection], tally: Tally
) -> None:
    """Add a finding for each difference, at `head`, between a projection and the fold of the log.

    If a table is only behind, it is not damaged: that gives a warning.
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
