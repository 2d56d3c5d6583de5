"""An older ledger begins to seal facts for readers: `ledger.upgraded`, in one transaction.

The transaction raises the format and the head row's epoch, so no older release can append after it.
It also ends each secret whose newest event lies under a lost key: for such a secret, an older
release relied on the key columns. Afterwards nobody can prove a column that names a lost key. So
the whole log is verified first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import LedgerUnavailable
from secret_ledger.model.control import Control, upgrade_metadata
from secret_ledger.model.events import Event, EventType
from secret_ledger.model.rows import LogHead
from secret_ledger.read.found_rows import rows_of
from secret_ledger.rotation.losing import end_drafts
from secret_ledger.rules.findings import Tally
from secret_ledger.rules.gate import Standing, check_not_moved, check_state, judge_keys
from secret_ledger.rules.row_checks import Rules
from secret_ledger.session.following import snapshot
from secret_ledger.session.in_progress import check_not_building
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_page
from secret_ledger.store.retry import patiently
from secret_ledger.store.schema import FORMAT
from secret_ledger.verify.scan import Scan
from secret_ledger.write.append import Overtaken, append_events, seal_draft
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = ["seal_facts"]

ROUNDS: Final = 20
"""Times that one upgrade starts over because an older release has written meanwhile."""
_REASON: Final = "its key was lost before the ledger's upgrade"


async def seal_facts(database: Database, keyring: Keyring) -> bool:
    """Seal `ledger.upgraded`, unless that was done: then return False.

    The schema must already be this release's. Raises the refusals of the gate; TamperedEvent if the
    log is damaged; MigrationInProgress, LedgerMoved, LedgerUnavailable.
    """
    for _ in range(ROUNDS):
        state = await snapshot(database, upgrading=True)
        if state is None:
            raise LedgerUnavailable(f"{database.place} holds no ledger any more")
        control = check_state(state)
        standing = judge_keys(control, keyring)
        if control.upgrades:
            return False
        check_not_moved(state)
        await patiently(database, lambda c: check_not_building(c, database, control))  # noqa: B023
        await _verify(database, standing, state.in_use[0])
        lost = await _newest_under_lost_keys(database, control)
        if await database.run(lambda c: _seal(c, database, standing, lost), "write"):  # noqa: B023
            return True
    raise LedgerUnavailable(
        "the ledger kept changing while it was being upgraded",
        hint="stop the writers of the older release, then run `secret-ledger schema upgrade` again",
    )


async def _verify(database: Database, standing: Standing, head: LogHead) -> None:
    scan = Scan(
        database, Rules(standing.control, standing.keys, missing_keys_matter=False), Tally()
    )
    await scan.every_event(head)
    scan.tally.report("full", 0).raise_if_not_ok()


async def _newest_under_lost_keys(database: Database, control: Control) -> Mapping[str, bytes]:
    """The secrets to end, each with the hash of its newest event."""
    lost = {key.fingerprint for key in control.keys if key.lost is not None}
    found: dict[str, bytes] = {}
    after: str | None = None
    while lost:

        def read(connection: Connection, after: str | None = after) -> Sequence[Event]:
            return heads_page(connection, database, control.generation, after)

        page = await patiently(database, read, "snapshot")
        if not page or page[-1].stream == after:
            break
        after = page[-1].stream
        found |= {e.stream: e.event_hash for e in page if e.key_fingerprint in lost}
    return found


def _seal(
    connection: Connection, database: Database, standing: Standing, lost: Mapping[str, bytes]
) -> bool:
    """Returns False if the control stream, or a secret to end, has grown meanwhile."""
    control, sealing = standing.control, standing.check_may_write()
    try:
        locked = lock_control(connection, database, standing)
    except Overtaken:
        return False
    check_not_building(connection, database, control)
    events = list(
        control_events(
            control, sealing, locked, [Entry(EventType.LEDGER_UPGRADED, upgrade_metadata())]
        )
    )
    newest = list(database.heads_of(connection, control.generation, list(lost))) if lost else []
    if {event.stream: event.event_hash for event in newest} != lost:
        return False
    for key in control.keys:
        if key.lost is None:
            continue
        rows = rows_of(connection, database, newest)
        for draft in end_drafts(control, key, newest, rows, _REASON, None):
            position = locked.head.position + len(events) + 1
            events.append(
                seal_draft(
                    control.ledger_id, control.generation, draft, position, locked.now,
                    sealing.active, sealing.active_id,
                )
            )  # fmt: skip
    append_events(connection, database, locked, events, (), epoch=control.epoch + 1)
    connection.execute(database.statements.set_format, {"format": FORMAT})
    return True
