"""keys history, keys census: when each key was active, and how much lies under each key."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from secret_ledger.cli.checks import Check, opening, raise_if_any_failed, with_problems
from secret_ledger.cli.opening import look, opened
from secret_ledger.cli.options import DEFAULTS, Common, Moved, moment, register
from secret_ledger.cli.output import Columns, Output, each, facts
from secret_ledger.cli.usage import UsageError
from secret_ledger.errors import UnknownKey

if TYPE_CHECKING:
    from secret_ledger.read.census import Census
    from secret_ledger.rules.key_record import KeyMoment, KeyRecord

__all__ = ["add_to"]


def add_to(family: App) -> None:
    """Register these verbs in the family of `keys`."""
    register(
        family,
        history,
        "secret-ledger keys history --csv > keys.csv",
        "secret-ledger keys history --at 2026-01-31T12:00:00Z",
    )
    register(family, census)


@dataclass(frozen=True, slots=True)
class _Line:
    key_id: str
    key_fingerprint: bytes
    state: str
    epoch: int
    introduced_at: datetime
    activated_at: datetime
    activated_by: str | None
    activated_position: int
    superseded_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    reason: str | None
    events: int
    first: int | None
    last: int | None
    elsewhere: int
    secrets: int
    nodes: int
    refused_boots: int
    check: str
    problem: str | None


_HISTORY: Final = Columns(
    all=tuple(field.name for field in fields(_Line)),
    shown=(
        "key_id", "state", "activated_at", "superseded_at", "events", "secrets", "nodes", "check",
    ),
)  # fmt: skip
_HEAD: Final = Columns(
    all=("kind", "key_id", "key_fingerprint", "secrets", "prefixes"),
    shown=("key_id", "key_fingerprint", "secrets", "prefixes"),
)
_USE: Final = Columns(
    all=(
        "kind", "key_id", "key_fingerprint", "generation", "state", "events", "purged",
        "last_position", "bytes",
    ),
    shown=("key_id", "key_fingerprint", "generation", "state", "events", "purged", "bytes"),
)  # fmt: skip


def _line(record: KeyRecord) -> _Line:
    ended: KeyMoment | None = record.retired or record.lost
    told = ended or record.activated
    return _Line(
        key_id=record.key_id,
        key_fingerprint=record.key_fingerprint,
        state=record.state,
        epoch=record.epoch,
        introduced_at=record.introduced.at,
        activated_at=record.activated.at,
        activated_by=record.activated.actor,
        activated_position=record.activated.position,
        superseded_at=record.superseded.at if record.superseded else None,
        ended_at=ended.at if ended else None,
        ended_by=ended.actor if ended else None,
        reason=told.reason,
        events=record.events,
        first=record.first,
        last=record.last,
        elsewhere=sum(record.elsewhere.values()),
        secrets=record.secrets,
        nodes=len(record.nodes),
        refused_boots=record.refused_boots,
        check=record.check,
        problem=record.problem,
    )


async def history(
    *,
    at: Annotated[
        str | None,
        Parameter(help="Only the key that was active at this time (ISO 8601 with a zone)."),
    ] = None,
    as_csv: Annotated[
        bool,
        Parameter(name="--csv", negative=(), show_default=False, help="CSV, with a header."),
    ] = False,
    check: Check = False,
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """List each key of the ledger: when its state changed, by whom, and what it protects.

    Needs no key. Control events are not opened, so each key says unverified; --check opens
    them. The counted events and secrets are not opened in either case. `elsewhere` counts
    events in closed generations, `nodes` the live nodes that say they hold the key. Fields in a
    pipe: key id, fingerprint, state, epoch, times of introduction and activation, who activated
    it, at which position, time it was superseded, time and author of its end (retired or lost),
    reason, events, first and last position, elsewhere, secrets, nodes, refused boots, check,
    problem.
    """
    from secret_ledger_projections import active_at, key_history

    if as_csv and common.json:
        raise UsageError("--csv and --json exclude each other")
    when = None if at is None else moment(at)
    output = Output(common.json)
    async with look(common, output, read_moved=moved) as seen:
        ledger_id = seen.ledger.ledger_id
        nodes = await seen.ledger.nodes()
        if check:
            records = await opening(seen).key_history(check=True)
        else:
            records = await key_history(seen.ledger.database, bytes.fromhex(ledger_id), nodes)
        if when is not None:
            found = active_at(records, when)
            if found is None:
                raise UnknownKey(
                    "no key was active at that time",
                    hint=f"the ledger began at {records[0].activated.at.isoformat()}",
                )
            records = [found]
        columns = with_problems(_HISTORY, check=check)
        if output.as_json:
            await output.rows("keys", columns, each(records), ledger_id=ledger_id, verified=check)
        elif as_csv:
            _csv([facts(_line(record)) for record in records])
        else:
            await output.rows("keys", columns, each(map(_line, records)))
    raise_if_any_failed([record.check for record in records])


def _csv(rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, _HISTORY.all, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


async def census(*, moved: Moved = False, common: Common = DEFAULTS) -> None:
    """Count the rows under each key: the newest events of secrets, and the whole history.

    Opens no row. Fields in a pipe, by the first field: `secrets` (key id, fingerprint, count,
    counts by the first segment of their names), `events` (key id, fingerprint, generation, its
    state, events that need the key, purged events that need no key, last position, bytes).
    """
    output = Output(common.json)
    async with opened(common, output, read_only=True, read_moved=moved) as ledger:
        found: Census = await ledger.census()
    if output.as_json:
        output.document(facts(found))
        return
    for kind, columns, rows in (("secrets", _HEAD, found.heads), ("events", _USE, found.events)):
        if sys.stdout.isatty():
            print(f"{kind}:")
            output.table(columns, rows)
        else:
            for row in rows:
                known = {"kind": kind, **facts(row)}
                output.line(*(known[column] for column in columns.all))
