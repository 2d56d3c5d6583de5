"""The generations that are not in use, compared with the sealed control events.

The control stream of the generation in use seals which generations were in use, and where each
ended (`openings`). So a closed generation that was emptied or cut is found, whatever its head row
says. A generation that no sealed event names is not the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.control import Control, fold_control
from secret_ledger.model.rows import LogHead, Meta
from secret_ledger.rules.findings import Finding
from secret_ledger.rules.openings import openings_of, unaccounted
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations, read_state
from secret_ledger.verify.scan import Scan

__all__ = ["check_other_generations"]


async def check_other_generations(scan: Scan, meta: Meta, *, missing_keys_matter: bool) -> None:
    """Check every generation but the generation of `scan`; findings go to its tally.

    `missing_keys_matter`: whether a row of another generation is a finding if its key is not in
    hand.
    """
    database, openings = scan.database, openings_of(scan.rules.control)
    heads, found = await scan.read(database, partial(_look, database=database), "snapshot")
    scan.tally.add_all(unaccounted(openings, heads, {number: row[0] for number, row in found}))
    rows = dict(found)
    rules = replace(scan.rules, missing_keys_matter=missing_keys_matter)
    in_use = next((h for h in heads if h.generation == openings.in_use), None)
    before = in_use.position if in_use is not None else 0
    for head in heads:
        end = openings.kept.get(head.generation)
        if end is not None and head.generation in rows:
            _check_count(scan, head.generation, rows[head.generation], end)
            closed = replace(scan, rules=rules, before=before)
            await _check_closed(closed, meta, head._replace(position=end))
            before += end


def _look(
    connection: Connection, database: Database
) -> tuple[Sequence[LogHead], list[tuple[int, tuple[int, int, int]]]]:
    """Returns, of one snapshot, the head rows; and by generation the count, lowest and highest
    position of its rows."""
    found = connection.execute(database.statements.generations_of_events)
    return (
        heads_of_generations(connection, database),
        [(row[0], (row[1], row[2], row[3])) for row in found],
    )


def _check_count(scan: Scan, generation: int, row: tuple[int, int, int], end: int) -> None:
    count, first, last = row
    if row != (end, 1, end):
        reason = (
            f"generation {generation} has {count} rows at positions {first} to {last}; it was"
            f" closed at position {end}"
        )
        scan.tally.add(Finding("tampered", reason, generation=generation))


async def _check_closed(scan: Scan, meta: Meta, head: LogHead) -> None:
    """`head`: the head row of a closed generation, with the sealed end as its position."""
    database, in_use = scan.database, scan.rules.control
    state = await scan.read(
        database, lambda c: read_state(c, database, meta, head.generation), "snapshot"
    )
    try:
        control = fold_control(meta.ledger_id, head.generation, state.control)
        _check_same_history(in_use, control, head)
    except TamperedEvent as error:
        scan.tally.add(Finding("tampered", error.message, generation=head.generation))
        return
    await replace(scan, rules=replace(scan.rules, control=control)).every_event(head)


def _check_same_history(in_use: Control, closed: Control, head: LogHead) -> None:
    """Raises TamperedEvent unless the control stream in use has grown from the closed stream."""
    if closed.closed != head.position:
        raise TamperedEvent(
            f"generation {head.generation} was closed at position {head.position}; its control"
            f" stream ends at {closed.last.position}"
        )
    if not in_use.extends(closed):
        raise TamperedEvent(
            f"the control stream of generation {head.generation} differs from the one that the"
            " generation in use was copied from"
        )
