"""The audit of the keys: a fold of the control stream, with counts of events and secrets.

Counts of events follow from the positions of the activations: each event is sealed under the key
that was active at its position. `verify --level full` checks that rule for every row. So the audit
takes no scan and no counter, however long the log is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from secret_ledger.errors import NotALedger
from secret_ledger.model.control import Control, ControlKey, fold_control
from secret_ledger.model.events import Event, from_microseconds
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.rows import LogHead
from secret_ledger.nodes.registry import NodeInfo
from secret_ledger.read.census import heads_by_key
from secret_ledger.rules.key_record import KeyMoment, KeyRecord, key_state
from secret_ledger.store.bounds import MAX_KEYS, checked_number
from secret_ledger.store.connection import Connection, Statement
from secret_ledger.store.database import Database
from secret_ledger.store.reads import control_stream, heads_of_generations
from secret_ledger_projections import checkpoint
from secret_ledger_projections.sys_secret import SysSecret

__all__ = ["active_at", "key_history"]

_PRESENT: Final = ("active", "moved", "closed")
FEW: Final = 3
"""Earlier keys up to which the secrets under each key are counted by themselves."""


async def key_history(
    database: Database, ledger_id: bytes, nodes: Sequence[NodeInfo]
) -> Sequence[KeyRecord]:
    """The records of a ledger's keys, in order of activation. This needs no key.

    Raises TamperedEvent if the hashes or rules of a control stream are broken, NotALedger if no
    generation is in use, and LedgerUnavailable.
    """

    def unit(connection: Connection) -> tuple[Control, LogHead, list[tuple[Control, LogHead]], Any]:
        present = [
            head for head in heads_of_generations(connection, database) if head.state in _PRESENT
        ]
        controls = [
            (
                fold_control(
                    ledger_id,
                    head.generation,
                    list(control_stream(connection, database, head.generation)),
                ),
                head,
            )
            for head in present
        ]
        in_use = [pair for pair in controls if pair[1].state in ("active", "moved")]
        if len(in_use) != 1:
            raise NotALedger(f"{database.place}: no generation is in use")
        ((control, head),) = in_use
        others = [pair for pair in controls if pair[1] is not head]
        return control, head, others, _current_secrets(connection, database, control, head)

    control, head, others, secrets = await database.run(unit, "snapshot")
    if secrets is None:  # the projection is behind: count from the log, which takes longer
        counts = await heads_by_key(database, control.generation)
        secrets = Counter({count.key_fingerprint: count.secrets for count in counts})
    moments = {event.position: _moment(event) for event in control.events}
    records: list[KeyRecord] = []
    for number, key in enumerate(control.keys):
        successor = control.keys[number + 1] if key != control.active else None
        own = control.positions_under(key, head.position)
        mark = key.fingerprint
        records.append(
            KeyRecord(
                key_id=key.id,
                key_fingerprint=mark,
                state=key_state(control, key),
                epoch=key.epoch,
                introduced=moments[key.introduced],
                activated=moments[key.activated],
                superseded=moments[successor.activated] if successor else None,
                retired=moments[key.retired] if key.retired else None,
                lost=moments[key.lost] if key.lost else None,
                events=len(own),
                first=own[0] if own else None,
                last=own[-1] if own else None,
                elsewhere=_elsewhere(key, others),
                secrets=secrets[mark],
                nodes=[
                    node.label
                    for node in nodes
                    if node.state == "live" and mark.hex() in [held for _, held in node.readable]
                ],
                refused_boots=sum(
                    node.refusals
                    for node in nodes
                    if node.state == "refused" and node.key_fingerprint == mark
                ),
            )
        )
    return records


def active_at(records: Sequence[KeyRecord], at: datetime) -> KeyRecord | None:
    """The key that was active at a time; None before the first activation."""
    before = [r for r in records if r.activated.at <= at]
    return before[-1] if before else None


def _current_secrets(
    connection: Connection, database: Database, control: Control, head: LogHead
) -> Counter[bytes] | None:
    """How many secrets have their newest event under each key, from `sys_secret`.

    Returns None if `sys_secret` is not folded up to the end of the log.
    """
    if checkpoint.read(connection, database, SysSecret.name, head.generation) != head.position:
        return None
    place = {"generation": head.generation}
    earlier = [key.fingerprint for key in control.keys[:-1]]
    if len(earlier) > FEW:
        rows = connection.execute(database.statements.current_by_key, place)
        checked_number(len(rows), MAX_KEYS, "keys")
        return Counter({row[0]: row[1] for row in rows})
    # One pass: to group the rows, SQLite would sort them all. Rows under no earlier key lie under
    # the active key.
    counts = ["count(*)"] + [
        f"count(*) FILTER (WHERE key_fingerprint = :k{number})" for number in range(len(earlier))
    ]
    sql = f"SELECT {', '.join(counts)} {database.statements.current_of_generation}"
    keys = {f"k{number}": key for number, key in enumerate(earlier)}
    total, *found = connection.execute(Statement(sql), {**place, **keys}).one()
    return Counter(dict(zip(earlier, found, strict=True))) + Counter(
        {control.active.fingerprint: total - sum(found)}
    )


def _moment(event: Event) -> KeyMoment:
    facts = parse_metadata(event.metadata)
    return KeyMoment(
        event.position, from_microseconds(event.recorded_at), facts.actor, facts.reason
    )


def _elsewhere(key: ControlKey, others: Sequence[tuple[Control, LogHead]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for control, head in others:
        there = control.key(key.fingerprint)
        count = len(control.positions_under(there, head.position)) if there is not None else 0
        if count:
            found[head.generation] = count
    return found
