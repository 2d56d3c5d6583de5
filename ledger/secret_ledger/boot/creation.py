"""Makes a new ledger, and upgrades an older schema: each in one transaction.

If a process is killed at any moment, the next start finds no ledger or a whole ledger. If several
processes race for an empty database, one of them wins. The others find its ledger, and the gate
judges them by it.
"""

from __future__ import annotations

import uuid
from typing import Final

from secret_ledger.errors import NotALedger
from secret_ledger.model.control import key_metadata, upgrade_metadata
from secret_ledger.model.events import CONTROL_STREAM, NO_HASH, Event, EventType
from secret_ledger.model.keys import Key, LedgerKey
from secret_ledger.model.rows import LogHead
from secret_ledger.model.secret import Secret
from secret_ledger.rules.decide import Draft
from secret_ledger.store.catalogue import deviations
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.schema import (
    FORMAT,
    GUARDS,
    OUR_TABLES,
    SCHEMA_VERSION,
    apply,
    put_guards,
    read_meta,
)
from secret_ledger.write.append import seal_draft

__all__ = ["GENESIS_EPOCH", "create_ledger", "genesis", "lay_out", "upgrade"]


GENESIS_EPOCH: Final = 2
"""The key epoch of a new ledger: one activation and one upgrade."""


def genesis(key: LedgerKey, ledger_id: bytes, recorded_at: int) -> tuple[Event, ...]:
    """The first three events of a ledger, at positions 1 to 3.

    The first key is introduced and activated; then the ledger says which facts its events seal.
    `recorded_at`: microseconds since 1970.
    """
    about = key_metadata(key.id, key.fingerprint, epoch=1)
    entries = (
        (EventType.KEY_INTRODUCED, about),
        (EventType.KEY_ACTIVATED, about),
        (EventType.LEDGER_UPGRADED, upgrade_metadata()),
    )
    events: list[Event] = []
    for number, (event_type, metadata) in enumerate(entries, 1):
        before = events[-1].event_hash if events else NO_HASH
        draft = Draft(CONTROL_STREAM, number, event_type, Secret(b""), metadata, before)
        events.append(seal_draft(ledger_id, 0, draft, number, recorded_at, key))
    return tuple(events)


def lay_out(connection: Connection, database: Database, ledger_id: bytes) -> None:
    """Make the tables of a ledger, and the row that holds the ledger's id."""
    database.begin_creation(connection)
    apply(connection, database, after=0)
    connection.execute(
        database.statements.insert_meta,
        {"ledger_id": ledger_id, "format": FORMAT, "schema_version": SCHEMA_VERSION},
    )


async def create_ledger(
    database: Database, key: Key, *, beside_other_tables: bool = False
) -> bytes | None:
    """Make a ledger whose first key is `key`, and return its id: 16 bytes.

    Returns None if another process has made a ledger meanwhile. Raises NotALedger if the database
    holds other tables (SQLite), unless `beside_other_tables`.
    """
    if not await database.prepare_creation(beside_other_tables=beside_other_tables):
        existing = await database.run(lambda c: database.tables(c) & OUR_TABLES, "statement")
        if existing:
            return None
        raise _occupied(database)
    ledger_id = uuid.uuid4().bytes

    def unit(connection: Connection) -> bytes | None:
        sql = database.statements
        tables = database.tables(connection)
        if tables & OUR_TABLES:
            return None
        if database.name == "sqlite" and tables and not beside_other_tables:
            raise _occupied(database)
        lay_out(connection, database, ledger_id)
        ledger_key = key.for_ledger(ledger_id)
        now = database.clock(connection)
        events = genesis(ledger_key, ledger_id, now)
        connection.execute(
            sql.insert_key,
            {"key_id": ledger_key.id, "key_fingerprint": ledger_key.fingerprint},
        )
        database.insert_events(connection, events)
        head = LogHead(0, len(events), now, GENESIS_EPOCH, "active")
        connection.execute(sql.insert_head, head._asdict())
        return ledger_id

    made = await database.run(unit, "write")
    if made is not None:
        await database.settle()
    return made


def _occupied(database: Database) -> NotALedger:
    return NotALedger(
        f"{database.place} holds another application's tables and no ledger",
        hint="check OS_SECRET_LEDGER_URL; to keep a ledger beside those tables, run:"
        " secret-ledger init",
    )


async def upgrade(database: Database) -> list[str]:
    """Apply the numbered schema files that this database lacks. Returns their names.

    If the triggers that keep the log append-only are not as they were made, they are put back too:
    then `guards.sql` is among the names.

    The caller has passed the gate: a start without the right key changes no schema.
    """

    def unit(connection: Connection) -> list[str]:
        meta = read_meta(connection, database)
        if meta is None:
            raise NotALedger(f"{database.place} holds no ledger")
        # Two upgraders queue here: every ledger has this row, whatever its generations are.
        connection.execute(database.statements.lock_meta)
        meta = read_meta(connection, database) or meta
        done = apply(connection, database, after=meta.schema_version)
        if not done and deviations(connection, database).mendable:
            put_guards(connection, database)
            done.append(GUARDS)
        connection.execute(
            database.statements.set_schema_version,
            {"schema_version": max(SCHEMA_VERSION, meta.schema_version)},
        )
        return done

    return await database.run(unit, "write")
