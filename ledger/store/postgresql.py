"""PostgreSQL through asyncpg: READ COMMITTED, a head row locked first, a schema of our own.

Every name is qualified with the schema, and nothing rests on session state, so that a
connection pooler in transaction mode may sit in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.errors import InvalidName, LedgerError, LedgerUnavailable, NotALedger
from ledger.events import Event
from ledger.state import Head
from ledger.store.database import LockedHead, Mode
from ledger.store.statements import EVENT_COLUMNS, HEAD_COLUMNS, Statements, paged, whole
from ledger.store.translate import DRIVER_ERRORS, closed, translate

__all__ = ["DEFAULT_SCHEMA", "PostgresqlDatabase"]

T = TypeVar("T")

DEFAULT_SCHEMA: Final = "secret_ledger"
LAST_WORDS: Final = 2.0
"""Seconds that closing waits for what cancelled callers have left under way."""

_ISOLATION: Final[dict[Mode, dict[str, Any]]] = {
    "statement": {"isolation_level": "AUTOCOMMIT"},
    "snapshot": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    "write": {"isolation_level": "READ COMMITTED"},
    "note": {"isolation_level": "READ COMMITTED"},
}
_ERRORS: Final = (*DRIVER_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError)
_CLOCK: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_TYPES: Final = (
    "integer", "bigint", "text", "bigint", "text", "text", "bytea",
    "bigint", "text", "bytea", "bytea", "bytea",
)  # fmt: skip


class PostgresqlDatabase:
    """A ledger in a PostgreSQL schema. Implements `ledger.store.database.Database`."""

    name: Final = "postgresql"
    in_memory: Final = False

    def __init__(
        self, url: URL, engine: AsyncEngine | None, *, schema: str | None, read_only: bool
    ) -> None:
        self.schema: str | None = schema or DEFAULT_SCHEMA
        if not self.schema.isidentifier() or len(self.schema.encode()) > 63:
            raise InvalidName("a schema's name is letters, digits and _, at most 63 bytes")
        self.read_only = read_only
        # A text, not the URL: that one holds the password.
        self.place = url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        self._owned = engine is None
        self._closed = False
        self._engine = engine or create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            hide_parameters=True,
            pool_size=5,
            max_overflow=10,
        )
        self._under_way: set[asyncio.Task[Any]] = set()
        prefix = f'"{self.schema}".'
        self.statements = Statements(prefix)
        # The clock is read above the lock, so that it is the time after the wait.
        self._lock = text(
            f"SELECT h.*, {_CLOCK}, current_setting('synchronous_commit') FROM ("
            f"SELECT {HEAD_COLUMNS} FROM {prefix}ledger_head WHERE generation = :generation"
            " AND state = 'active' AND key_epoch = :epoch FOR UPDATE) AS h"
        )
        self._lock_generation = text(
            f"SELECT {HEAD_COLUMNS} FROM {prefix}ledger_head"
            " WHERE generation = :generation FOR UPDATE"
        )
        arrays = ", ".join(f"CAST(:c{i} AS {kind}[])" for i, kind in enumerate(_TYPES))
        self._insert = text(
            f"INSERT INTO {prefix}secret_event ({EVENT_COLUMNS}) SELECT * FROM unnest({arrays})"
        )
        self._heads_of = text(
            f"SELECT {paged('e')} FROM unnest(CAST(:streams AS text[])) AS s (stream)"
            f" CROSS JOIN LATERAL (SELECT {EVENT_COLUMNS} FROM {prefix}secret_event AS v"
            " WHERE v.generation = :generation AND v.stream = s.stream"
            " ORDER BY v.version DESC LIMIT 1) AS e"
        )

    async def run(self, unit: Callable[[Connection], T], mode: Mode) -> T:
        if self._closed:
            raise closed(self.place)
        # Shielded: a caller that is cancelled does not tear down a connection of the pool.
        task = asyncio.create_task(self._run(unit, mode))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits for it any more

    async def _run(self, unit: Callable[[Connection], T], mode: Mode) -> T:
        failure: LedgerError
        connected = False
        try:
            async with self._engine.connect() as connection:
                connected = True
                await connection.execution_options(**_ISOLATION[mode])
                async with connection.begin():
                    if mode == "note":
                        await connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                    return await connection.run_sync(unit)
        except _ERRORS as error:
            failure = translate(error, self.place)
        except Exception as error:
            if connected:
                raise
            failure = LedgerUnavailable(
                f"{self.place}: no connection can be set up ({type(error).__name__})",
                hint="check the parameters of the URL: they are those of asyncpg.connect",
            )
        # Raised outside the handler: the driver's exception is no context of it either.
        raise failure

    async def close(self) -> None:
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=LAST_WORDS)
        for task in tuple(self._under_way):
            task.cancel()
        if self._owned:
            await self._engine.dispose()

    async def prepare_creation(self, *, beside_other_tables: bool) -> bool:
        return True

    def exists(self) -> bool:
        return True

    def tables(self, connection: Connection) -> frozenset[str]:
        rows = connection.execute(
            text(
                "SELECT c.relname FROM pg_catalog.pg_class AS c"
                " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'v')"
            ),
            {"schema": self.schema},
        )
        return frozenset(name for (name,) in rows)

    def begin_creation(self, connection: Connection) -> None:
        self.check_settings(connection)
        # Racing creators queue on the catalogue's unique index; a loser is refused there,
        # and starts over.
        there = connection.execute(
            text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema"),
            {"schema": self.schema},
        ).first()
        if there is None:  # asked first, for IF NOT EXISTS wants the right to create one
            connection.exec_driver_sql(f'CREATE SCHEMA "{self.schema}"')

    def check_settings(self, connection: Connection) -> tuple[str, ...]:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise NotALedger(
                f"{self.place} is encoded in {encoding}, not UTF8",
                hint="create the database with ENCODING 'UTF8'",
            )
        return ()

    def clock(self, connection: Connection) -> int:
        return int(connection.exec_driver_sql(f"SELECT {_CLOCK}").scalar_one())

    def lock_head(self, connection: Connection, generation: int, epoch: int) -> LockedHead | None:
        row = connection.execute(self._lock, {"generation": generation, "epoch": epoch}).first()
        if row is None:
            return None
        *columns, now, synchronous = row
        if synchronous == "off":
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        head = Head.of_row(columns)
        return LockedHead(head, max(head.recorded_at, now))

    def lock_generation(self, connection: Connection, generation: int) -> Head | None:
        row = connection.execute(self._lock_generation, {"generation": generation}).first()
        return None if row is None else Head.of_row(row)

    def insert_events(self, connection: Connection, events: Sequence[Event]) -> None:
        columns = zip(*events, strict=True)
        done = connection.execute(self._insert, {f"c{i}": list(c) for i, c in enumerate(columns)})
        if done.rowcount != len(events):
            raise LedgerUnavailable(
                "the database stored another number of events than it was given"
            )

    def heads_of(
        self, connection: Connection, generation: int, streams: Sequence[str]
    ) -> Iterator[Event]:
        rows = connection.execute(
            self._heads_of, {"streams": list(streams), "generation": generation}
        ).all()
        return map(Event.of_row, whole(connection, self.statements, rows))

    def text(self, value: str) -> str | bytes:
        # What UTF-8 can't encode is in no row here; it stands for a NULL.
        return value.encode("utf-8", "replace").decode()
