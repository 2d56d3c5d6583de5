"""Logs that the library does not write yet, made with the format's own functions.

A builder writes straight into a database: rotations, re-encryptions, keys retired and lost,
generations migrated, a ledger moved or half moved. What it writes is what docs/format.md and
DESIGN.md say, head row and `ledger_key` included; so it is also how a test changes a ledger
behind a running process's back, and how it writes what must be refused.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text

from inside import (
    CONTROL_STREAM,
    GENESIS_EPOCH,
    SCHEMA_VERSION,
    Connection,
    Control,
    Database,
    Event,
    EventType,
    Key,
    LogHead,
    base_version,
    connect,
    encode_metadata,
    genesis,
    key_metadata,
    parse_metadata,
    read_meta,
    state_of,
)
from log_rows import Entry, LogRows


@asynccontextmanager
async def building(url: str, *keys: Key, upto: int = SCHEMA_VERSION) -> AsyncIterator[LogBuilder]:
    """A builder that knows `keys`. The first one makes the ledger, where there is none, with
    the schema files up to number `upto`."""
    database = connect(url)
    try:
        meta = None
        if database.exists():
            meta = await database.run(lambda c: read_meta(c, database), "snapshot")
        if meta is not None:
            yield LogBuilder(database, meta.ledger_id, keys)
            return
        log = LogBuilder(database, uuid.uuid4().bytes, keys)
        await log.begin(upto)
        yield log
    finally:
        await database.close()


class LogBuilder:
    """Writes into one database. Each method is one transaction and returns what it wrote."""

    def __init__(self, database: Database, ledger_id: bytes, keys: Sequence[Key]) -> None:
        self.database = database
        self.ledger_id = ledger_id
        self.rows = LogRows(database, ledger_id, keys)

    async def begin(self, upto: int = SCHEMA_VERSION) -> None:
        """The schema and genesis, under the first of the keys."""
        first = next(iter(self.rows.keys.values()))

        def unit(connection: Connection) -> None:
            self.rows.make_schema(connection, upto)
            self.rows.add_key(connection, first)
            now = self.database.clock(connection)
            events, epoch = genesis(first, self.ledger_id, now), GENESIS_EPOCH
            if upto < SCHEMA_VERSION:  # as an older release began a ledger
                events, epoch = events[:2], 1
            self.database.insert_events(connection, events)
            self.rows.insert_head(connection, LogHead(0, len(events), now, epoch, "active"))

        await self.database.prepare_creation(beside_other_tables=False)
        await self.database.run(unit, "write")

    # --- secrets ---------------------------------------------------------------------

    async def append(self, *entries: Entry) -> list[Event]:
        """Events at the end of the generation in use."""
        return await self.database.run(
            lambda c: self.rows.append(c, self.rows.in_use(c), entries), "write"
        )

    async def put(self, stream: str, data: bytes, **metadata: Any) -> Event:
        return await self._one(EventType.WRITTEN, stream, data, **metadata)

    async def delete(self, stream: str, **metadata: Any) -> Event:
        return await self._one(EventType.DELETED, stream, **metadata)

    async def restore(self, stream: str, data: bytes, **metadata: Any) -> Event:
        return await self._one(EventType.RESTORED, stream, data, **metadata)

    async def destroy(self, stream: str, **metadata: Any) -> Event:
        return await self._one(EventType.DESTROYED, stream, **metadata)

    async def _one(self, event_type: str, stream: str, data: bytes = b"", **metadata: Any) -> Event:
        (event,) = await self.append(Entry(stream, event_type, data, encode_metadata(**metadata)))
        return event

    async def rekey(self, stream: str, by: str = "operator") -> Event:
        """The head of `stream` again, under the active key: same value, actor, reason, user."""

        def unit(connection: Connection) -> Event:
            head = self.rows.in_use(connection)
            events = self.rows.events(connection, head.generation)
            old = [e for e in events if e.stream == stream][-1]
            base = next(e for e in events if (e.stream, e.version) == (stream, base_version(old)))
            about = {
                "of": base.version, "at": base.recorded_at, "state": state_of(base), "by": by,
            }  # fmt: skip
            said = parse_metadata(base.metadata)
            metadata = encode_metadata(
                actor=said.actor, reason=said.reason, user=said.user, ledger=about
            )
            entry = Entry(stream, EventType.REKEYED, self.rows.opened(old), metadata)
            return self.rows.append(connection, head, [entry])[0]

        return await self.database.run(unit, "write")

    # --- keys ------------------------------------------------------------------------

    async def rotate(self, new: Key) -> list[Event]:
        """Introduced under the key that is active so far, activated under the new one."""
        key = self.rows.bound(new)
        self.rows.keys[key.fingerprint] = key

        def unit(connection: Connection) -> list[Event]:
            head = self.rows.in_use(connection)
            metadata = key_metadata(key.id, key.fingerprint, head.key_epoch + 1)
            self.rows.add_key(connection, key)
            return self.rows.append(
                connection,
                head,
                [
                    Entry(CONTROL_STREAM, EventType.KEY_INTRODUCED, metadata=metadata),
                    Entry(CONTROL_STREAM, EventType.KEY_ACTIVATED, metadata=metadata, key=key),
                ],
                activations=1,
            )

        return await self.database.run(unit, "write")

    async def retire(self, key: Key) -> Event:
        return await self._end(key, EventType.KEY_RETIRED)

    async def lose(self, key: Key) -> Event:
        """The secrets that go with a key are ended, then it is lost."""
        bound = self.rows.bound(key)

        def unit(connection: Connection) -> Event:
            head = self.rows.in_use(connection)
            ends = self.rows.ends(connection, head, bound)
            rows = self.rows.under(connection, head, {bound.fingerprint})
            about = {**self.rows.about(bound), "counts": {}, "ends": len(ends), "rows": rows}
            lost = Entry(CONTROL_STREAM, EventType.KEY_LOST, metadata=encode_metadata(ledger=about))
            return self.rows.append(connection, head, [*ends, lost])[-1]

        return await self.database.run(unit, "write")

    async def _end(self, key: Key, event_type: str) -> Event:
        about = {**self.rows.about(self.rows.bound(key)), "counts": {}}
        (event,) = await self.append(
            Entry(CONTROL_STREAM, event_type, metadata=encode_metadata(ledger=about))
        )
        return event

    # --- generations -----------------------------------------------------------------

    async def migrate(self, **about: object) -> Control:
        """The whole history under the active key in the next generation, and the flip.

        `about` is what else `generation.opened` says. Returns the control stream of the new
        generation.
        """

        def unit(connection: Connection) -> Control:
            old = self.rows.in_use(connection)
            control = self.rows.control(connection, old.generation)
            copied = self.rows.copied(connection, old.generation, old.generation + 1)
            new = old._replace(generation=old.generation + 1)
            self.rows.insert_head(connection, new._replace(state="building"))
            self.database.insert_events(connection, copied)
            lost = {key.fingerprint for key in control.keys if key.lost is not None}
            purged = self.rows.under(connection, new, lost)
            closed, opened = (
                Entry(
                    CONTROL_STREAM,
                    event_type,
                    metadata=self.rows.about_generation(control, new.generation, **more),
                )
                for event_type, more in (
                    (EventType.GENERATION_CLOSED, {}),
                    (EventType.GENERATION_OPENED, {"purged": purged, **about}),
                )
            )
            self.rows.append(connection, old, [closed], state="closed")
            self.rows.append(connection, new, [opened])
            return self.rows.control(connection, new.generation)

        return await self.database.run(unit, "write")

    async def build_at(self, target_url: str) -> None:
        """A half-made move: a building copy of everything at `target_url`, and a building
        head row for it here."""

        def read(connection: Connection) -> tuple[LogHead, list[Event], Control]:
            here = self.rows.in_use(connection)
            new = here._replace(generation=here.generation + 1, state="building")
            self.rows.insert_head(connection, new)
            copied = self.rows.copied(connection, here.generation, new.generation)
            return new, copied, self.rows.control(connection, here.generation)

        new, copied, control = await self.database.run(read, "write")
        target = LogRows(connect(target_url), self.ledger_id)

        def write(connection: Connection) -> None:
            target.make_schema(connection, SCHEMA_VERSION)
            for key in control.keys:
                target.add_key(connection, self.rows.keys[key.fingerprint])
            target.insert_head(connection, new)
            target.database.insert_events(connection, copied)

        try:
            await target.database.prepare_creation(beside_other_tables=False)
            await target.database.run(write, "write")
        finally:
            await target.database.close()

    async def move_away(self) -> Event:
        """The source's side of a finished move: closed, and its head row `moved`."""

        def unit(connection: Connection) -> Event:
            here = self.rows.in_use(connection)
            control = self.rows.control(connection, here.generation)
            about = self.rows.about_generation(control, here.generation + 1)
            closed = Entry(CONTROL_STREAM, EventType.GENERATION_CLOSED, metadata=about)
            return self.rows.append(connection, here, [closed], state="moved")[0]

        return await self.database.run(unit, "write")

    # --- the rows --------------------------------------------------------------------

    async def set_head(self, generation: int, **columns: object) -> None:
        """Change columns of a head row, as somebody with SQL could."""
        await self.database.run(lambda c: self.rows.set_head(c, generation, columns), "write")

    async def execute(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Any SQL, `{s}` standing for the schema; the rows, if it gives any."""
        statement = text(sql.replace("{s}", self.database.statements.prefix))

        def unit(connection: Connection) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(statement, parameters)]

        return await self.database.run(unit, "write")
