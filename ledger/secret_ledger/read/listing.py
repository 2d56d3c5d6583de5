"""Listings: rows as they lie in the log, page by page, so that one bad row hides no other.

A listing needs no key. Its rows are `unverified`: anybody with access to the database may have
written their columns. A `Checker` opens each row and marks it; a row that fails is shown too. Only
a verification tells whether a listing misses a row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from anyio import to_thread

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.model.control import Control, fold_control
from secret_ledger.model.events import CONTROL_STREAM, Event, EventType
from secret_ledger.model.names import normalise_prefix
from secret_ledger.model.rows import CheckedRow, LogHead
from secret_ledger.model.versions import Check, SecretInfo, info_of
from secret_ledger.rules.authority import check_control_seals
from secret_ledger.rules.findings import Finding, finding_of
from secret_ledger.rules.key_record import KeyRecord
from secret_ledger.rules.read_checks import not_found
from secret_ledger.rules.row_checks import Rules
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import (
    control_stream,
    destroyed_of,
    event_of_version,
    head_in_use,
    heads_page,
    stream_page,
)
from secret_ledger.store.retry import patiently

__all__ = ["Checker", "list_history", "list_secrets"]


LARGEST: Final = 2**63 - 1
"""The largest version that a column holds."""


class _Page(NamedTuple):
    """Rows of one snapshot, and the rows around them, which a check needs."""

    head: LogHead
    events: Sequence[Event]
    rows: Sequence[CheckedRow] = ()
    before: Event | None = None
    """The version before the first event of the page."""
    following: Event | None = None
    """The version after the last event of the page."""
    in_stream: bool = False
    """Whether the events are the versions of one secret."""


async def list_history(
    database: Database,
    stream: str,
    lost: Collection[bytes] = (),
    checker: Checker | None = None,
) -> AsyncIterator[SecretInfo]:
    """List every version of a secret, oldest first.

    `lost`: fingerprints of lost keys; a version under a lost key is shown as destroyed. Raises
    SecretNotFound if the secret has no version, and TamperedEvent if no generation is in use.
    """
    after = 0
    while True:

        def unit(connection: Connection, after: int = after) -> _Page:
            head = _in_use(connection, database)
            events = stream_page(connection, database, head.generation, stream, after)
            page = _Page(head, events)
            if not events or checker is None:
                return page
            return _with_neighbours(connection, database, page, stream, after)

        page = await patiently(database, unit, "snapshot")
        if not page.events:
            if after == 0:
                raise not_found(stream)
            return
        if checker is not None and not await checker.covers(page.head):
            continue  # a migration put another generation in use meanwhile
        infos = [info_of(e, key_lost=e.key_fingerprint in lost) for e in page.events]
        if checker is not None:
            infos = await checker.marked(page, infos)
        for info in infos:
            yield info
        last = page.events[-1].version
        if last <= after:
            return  # damage: a version that is no number sorts last
        after = last


async def list_secrets(
    database: Database,
    prefix: str,
    *,
    deleted: bool,
    lost: Collection[bytes] = (),
    checker: Checker | None = None,
) -> AsyncIterator[SecretInfo]:
    """List the newest version of each secret, in order of the names' bytes.

    `deleted` adds deleted and destroyed secrets. If `checker` can't open a row, the row is listed
    in any case: anybody may have written its state. `lost`: fingerprints of lost keys; a version
    under a lost key is shown as destroyed. Raises TamperedEvent if no generation is in use.
    """
    prefix = normalise_prefix(prefix)
    after: str | None = None
    while True:

        def unit(connection: Connection, after: str | None = after) -> _Page:
            head = _in_use(connection, database)
            events = heads_page(connection, database, head.generation, after, prefix)
            return _Page(head, events)

        page = await patiently(database, unit, "snapshot")
        if checker is not None and not await checker.covers(page.head):
            continue
        infos = [info_of(e, key_lost=e.key_fingerprint in lost) for e in page.events]
        if checker is not None and infos:
            infos = await checker.marked(page, infos)
        for info in infos:
            if not info.name.startswith(prefix):
                return
            shown = deleted or info.state == "live" or info.problem is not None
            if info.name != CONTROL_STREAM and shown:
                yield info
        if not infos or infos[-1].name == after:  # damage: a name that is no text sorts last
            return
        after = infos[-1].name


def _in_use(connection: Connection, database: Database) -> LogHead:
    head = head_in_use(connection, database)
    if head is None:
        raise TamperedEvent(f"{database.place}: no generation says that it is in use")
    return head


def _with_neighbours(
    connection: Connection, database: Database, page: _Page, stream: str, after: int
) -> _Page:
    generation, last = page.head.generation, page.events[-1].version

    def version(number: int) -> Event | None:
        if not 0 < number <= LARGEST:
            return None
        return event_of_version(connection, database, generation, stream, number)

    before = previous = version(after)
    ended_before = destroyed_of(connection, database, generation, stream, after)
    ended = destroyed_of(connection, database, generation, stream, LARGEST)
    rows: list[CheckedRow] = []
    for event in page.events:
        row = CheckedRow(event, None, None, ended, destroyed_before=ended_before)
        if previous is not None and previous.version == event.version - 1:
            row = row._replace(
                previous_position=previous.position,
                previous_hash=previous.event_hash,
                previous_type=previous.event_type,
                previous_facts=previous.metadata,
            )
        rows.append(row)
        if event.event_type == EventType.DESTROYED:
            ended_before = event.version
        previous = event
    following = version(last + 1)
    return page._replace(rows=rows, before=before, following=following, in_stream=True)


@dataclass(frozen=True, slots=True)
class Checker:
    """Opens the rows of a listing with the keys in hand."""

    follower: Follower

    async def covers(self, head: LogHead) -> bool:
        """Follows the control stream if `head` is new. Returns whether its generation is in use."""
        standing = self.follower.standing
        if not self.follower.is_current(head):
            standing = await self.follower.follow(standing)
        return standing.control.generation == head.generation

    def _rules(self) -> Rules:
        standing = self.follower.standing
        return Rules(standing.control, standing.keys)

    async def marked(self, page: _Page, infos: Sequence[SecretInfo]) -> list[SecretInfo]:
        """Returns the rows of a page, each marked with the result of opening it."""
        findings = await to_thread.run_sync(_check, self._rules(), page)
        if any(findings):
            # The known control stream may be old: follow it before a row is called damaged.
            await self.follower.follow(self.follower.standing)
            findings = await to_thread.run_sync(_check, self._rules(), page)
        return [_marked(*pair) for pair in zip(infos, findings, strict=True)]

    async def keys(self, records: Sequence[KeyRecord]) -> list[KeyRecord]:
        """Returns the audit of the keys, each marked with the result of opening its control events.

        Raises TamperedEvent if the control stream breaks a rule, or if no generation is in use.
        """
        database, standing = self.follower.database, self.follower.standing
        ledger_id = standing.control.ledger_id

        def unit(connection: Connection) -> Control:
            head = _in_use(connection, database)
            events = list(control_stream(connection, database, head.generation))
            return fold_control(ledger_id, head.generation, events)

        control = await patiently(database, unit, "snapshot")
        opened: set[int] = set()
        failed: dict[int, str] = {}
        for event in control.events:
            if event.key_fingerprint not in standing.keys:
                continue
            try:
                check_control_seals(replace(control, events=(event,)), standing.keys)
            except LedgerError as error:
                failed[event.position] = str(error.details.get("reason", error.message))
            else:
                opened.add(event.position)
        return [_marked_key(record, max(opened, default=0), failed) for record in records]


def _marked(info: SecretInfo, finding: Finding | None) -> SecretInfo:
    if finding is None:
        return replace(info, check="ok")
    kind: Check = "missing_key" if finding.kind == "missing_key" else "tampered"
    return replace(info, check=kind, problem=finding.reason)


def _check(rules: Rules, page: _Page) -> list[Finding | None]:
    if not page.in_stream:
        return [_newest(rules, event) for event in page.events]
    found = rules.each_in_stream(page.rows)
    if page.following is None:
        found[-1] = found[-1] or _newest(rules, page.events[-1])
    around = (page.before, *page.events, page.following)
    return [
        None if finding and _ended(rules, *around[number : number + 3]) else finding
        for number, finding in enumerate(found)
    ]


def _newest(rules: Rules, event: Event) -> Finding | None:
    problem = rules.open_newest(event)
    return None if problem is None else finding_of(event, problem)


def _ended(rules: Rules, before: Event | None, event: Event | None, after: Event | None) -> bool:
    """Whether a `secret.destroyed` over damage accounts for the damage.

    The destruction is `event` itself or the version after it.
    """
    if event is None:
        return False
    if event.event_type == EventType.DESTROYED and before is not None:
        return rules.ends(event, before)
    return after is not None and rules.ends(after, event)


def _marked_key(record: KeyRecord, proven: int, failed: dict[int, str]) -> KeyRecord:
    """The event at position `proven` opened: the chain of hashes proves each event below it."""
    moments = (record.introduced, record.activated, record.superseded, record.retired, record.lost)
    places = [moment.position for moment in moments if moment is not None]
    for place in places:
        if place in failed:
            return replace(record, check="tampered", problem=failed[place])
    return replace(record, check="ok" if max(places) <= proven else "unverified")
