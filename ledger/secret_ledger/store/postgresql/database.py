"""PostgreSQL through asyncpg: READ COMMITTED, a head row locked first, a schema of our own.

Every name is qualified: ours with the schema, PostgreSQL's own by `postgresql.names`. Nothing
rests on session state. So a connection pooler in transaction mode may stand in between; then
`postgresql.connecting` turns off named prepared statements.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.schema import DDLElement
from sqlalchemy.util import await_only, greenlet_spawn

from secret_ledger.errors import LedgerError, LedgerUnavailable, NotALedger
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead
from secret_ledger.store.bounds import Bounds
from secret_ledger.store.connection import Connection, Mode, Parameters, Rows, Statement, compiled
from secret_ledger.store.database import Facts, Folded, LockedHead, Replica, Surroundings
from secret_ledger.store.driver_errors import (
    DRIVER_ERRORS,
    closed,
    drivers_own,
    fail_in_projection,
    has_no_connection,
    not_committed,
    others_stored,
    takes_no_writes,
    translate,
)
from secret_ledger.store.identifiers import DEFAULT_SCHEMA, quoted, schema_name
from secret_ledger.store.loop_guard import Home
from secret_ledger.store.postgresql import catalogue as postgresql_catalogue
from secret_ledger.store.postgresql.connecting import Dialler, explain, replace_closed_connections
from secret_ledger.store.postgresql.hosts import connector, place_of
from secret_ledger.store.postgresql.names import qualified
from secret_ledger.store.postgresql.url import read_url
from secret_ledger.store.statements import EVENT_COLUMNS, Statements, advancing, whole

__all__ = ["PostgresqlConnection", "PostgresqlDatabase"]

T = TypeVar("T")

LEAST_WAIT: Final = 1000
"""Milliseconds that a write waits at least for the lock of the head row."""
LAST_WORDS: Final = 2.0
"""Seconds that `close` waits for running units, then for cancelled units, then for the engine."""

_BEGIN: Final[dict[Mode, str]] = {
    "snapshot": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "write": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "note": "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off",
}
_ERRORS: Final = (
    *DRIVER_ERRORS,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_DIALECT: Final[Dialect] = dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_BOUNDS: Final = Bounds("octet_length({})", "octet_length({})")
_AMONG: Final = "= ANY (CAST(:names AS text[]))"
MANY: Final = 200
"""Rows from which on COPY is quicker: it takes more trips, and less work for each row."""
MOST_PREPARED: Final = 200
"""Statements that a connection keeps prepared."""
_CLOCK: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# While a standby is cut off from its primary, it may be old even if it replayed all it received.
_REPLICA: Final = """
SELECT CASE WHEN receiving AND pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() THEN 0
       ELSE greatest(0, extract(epoch FROM clock_timestamp() - coalesce(
           pg_last_xact_replay_timestamp(),
           (SELECT checkpoint_time FROM pg_control_checkpoint())))) END::float8,
       receiving
FROM (SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver)) AS s (receiving)
WHERE pg_is_in_recovery()
"""
_TABLES: Final = Statement(
    "SELECT c.relname FROM pg_catalog.pg_class AS c"
    " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'v')"
)
_SCHEMA: Final = Statement("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema")
_MAY_CREATE: Final = Statement(
    "SELECT current_user, coalesce("
    "(SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
    " AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')"
    " FROM pg_catalog.pg_namespace AS n WHERE n.nspname = :schema),"
    " pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))"
)
# LATERAL: without statistics the planner would join with the whole history instead.
_NEWEST_OF_EACH: Final = """
CROSS JOIN LATERAL (
    SELECT * FROM {s}secret_event AS v
    WHERE v.generation = :generation AND v.stream = names.stream
    ORDER BY v.version DESC LIMIT 1
) AS e
"""
# The subquery hides the generation from the planner. Its statistics say that a new generation is
# nearly empty: so it would take any index, and walk the whole generation for each secret.
_GENERATION: Final = "(SELECT CAST(:generation AS integer))"
_TYPES: Final = (
    "integer", "bigint", "text", "bigint", "text", "text", "bytea",
    "bigint", "text", "bytea", "bytea", "bytea",
)  # fmt: skip
_CELLS: Final = tuple(f"c{number}" for number in range(len(_TYPES)))


class PostgresqlConnection:
    """A connection of asyncpg's, used in a greenlet. Implements `store.connection.Connection`.

    Its transaction begins with the first statement, so that BEGIN and a lock share one trip.
    """

    def __init__(self, raw: Any, info: dict[Any, Any], mode: Mode) -> None:
        self.raw: Final = raw
        self.info = info
        self.mode: Mode = mode
        self.wait = 0.0
        """Seconds that the connection waits for the lock of the head row."""
        self._begun = False
        self._prepared: dict[str, Any] = info.setdefault(PostgresqlConnection, {})

    def execute(self, statement: Statement | ClauseElement, parameters: Parameters = None) -> Rows:
        self.begin()
        if isinstance(statement, DDLElement):
            # A host's own table may have types of an extension, which only the search path finds.
            return Rows(await_only(self.raw.fetch(str(statement.compile(dialect=_DIALECT)))))
        if not isinstance(statement, Statement):
            statement = compiled(statement, _DIALECT)
        if not isinstance(parameters, list):
            return self._execute(statement, statement.numbered, statement.ordered(parameters))
        rows = statement.rows(parameters)
        if len(rows) == 1:
            return self._execute(statement, statement.numbered, rows[0])
        if statement.columnar != statement.numbered:
            return self._execute(statement, statement.columnar, list(zip(*rows, strict=True)))
        await_only(self.raw.executemany(qualified(statement.numbered), rows))
        return Rows((), len(rows))

    def _execute(self, statement: Statement, sql: str, values: Sequence[Any]) -> Rows:
        found, status = await_only(self._fetch(sql, values))
        count = status.rpartition(" ")[2]
        return statement.read(found, int(count) if count.isdigit() else -1)

    async def _fetch(self, sql: str, values: Sequence[Any]) -> tuple[Sequence[Any], str]:
        # A cache of our own, because behind a pooler asyncpg has none. To know the types of a
        # statement saves a trip each time.
        prepared = self._prepared.get(sql)
        if prepared is None:
            if len(self._prepared) >= MOST_PREPARED:
                self._prepared.clear()
            prepared = self._prepared[sql] = await self.raw.prepare(qualified(sql))
        try:
            rows = await prepared.fetch(*values)
        except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
            self._prepared.clear()  # a table was altered meanwhile
            raise
        return rows, prepared.get_statusmsg()

    def run_all(self, statements: Sequence[str]) -> None:
        self.begin()
        await_only(self.raw.execute("\n".join(map(qualified, statements))))

    def exec_driver_sql(self, sql: str) -> Rows:
        self.begin()
        return Rows(await_only(self.raw.fetch(qualified(sql))))

    def copy(self, schema: str, table: str, columns: Sequence[str], rows: Sequence[Any]) -> int:
        """Add many rows with the COPY protocol. Returns their number."""
        self.begin()
        status: str = await_only(
            self.raw.copy_records_to_table(table, records=rows, columns=columns, schema_name=schema)
        )
        return int(status.rpartition(" ")[2])

    def script(self, sql: str) -> str:
        """Run statements without parameters in one trip. All names must be qualified already.

        Returns the status of the last statement.
        """
        if self.mode in _BEGIN and not self._begun:
            self._begun = True
            sql = f"{_BEGIN[self.mode]}; {sql}"
        status: str = await_only(self.raw.execute(sql))
        return status

    def begin(self) -> None:
        """Begin the transaction, unless it has begun. Mode `statement` has none.

        Raises LedgerUnavailable if the server has undone it.
        """
        if self.mode in _BEGIN and not self._begun:
            self._begun = True
            await_only(self.raw.execute(_BEGIN[self.mode]))
        elif self._begun and not (self.raw.is_in_transaction() or self.raw.is_closed()):
            raise not_committed()  # else each further statement would commit by itself

    def commit(self) -> bool:
        """Commit the transaction, if it has begun. Returns False if the server undid it instead.

        If a unit caught an error and went on, the server answers COMMIT with ROLLBACK. After a
        unit's own ROLLBACK it answers with a warning.
        """
        if not self._begun:
            return True
        going_on = self.raw.is_in_transaction()
        answer = await_only(self.raw.execute("COMMIT"))
        return bool(going_on and answer == "COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if it has begun and the connection is still open."""
        if self._begun and not self.raw.is_closed():
            await_only(self.raw.execute("ROLLBACK"))


@lru_cache(maxsize=16)  # schemas of one process
def _statements(prefix: str) -> Statements:
    return Statements(prefix, _AMONG, _BOUNDS, newest=_NEWEST_OF_EACH, generation=_GENERATION)


class PostgresqlDatabase:
    """A ledger in a PostgreSQL schema. Implements `store.database.Database`."""

    name: Final = "postgresql"
    dialect: Final[Dialect] = _DIALECT
    in_memory: Final = False
    race: Final = None

    def __init__(
        self,
        url: URL,
        engine: AsyncEngine | None,
        *,
        schema: str | None,
        read_only: bool,
        patience: float,
    ) -> None:
        self.schema: str | None = schema_name(schema)
        self.read_only = read_only
        # A text, not the URL, which holds the password.
        self.place = place_of(url)
        if self.schema != DEFAULT_SCHEMA:
            self.place += f" (schema {self.schema})"
        self.home = Home(self.place)
        self.on_connection: Callable[[Connection], None] | None = None
        self._owned = engine is None
        self._closed = False
        self._files: Mapping[str, str] = {}
        self._lost_one: Callable[[dict[Any, Any]], None] = lambda info: None
        self._engine = engine or self._make_engine(url)
        self._under_way: set[asyncio.Task[Any]] = set()
        prefix = f"{quoted(self.schema)}."
        self.statements = _statements(prefix)
        self.patience = patience
        lock = (
            f"SET LOCAL lock_timeout = {{wait}}; SELECT 1 FROM {prefix}ledger_head"
            " WHERE generation = {generation}%s FOR UPDATE"
        )
        self._lock_any = qualified(lock % "")
        self._lock_active = qualified(lock % " AND state = 'active' AND key_epoch = {epoch}")
        self._locked = Statement(
            f"SELECT h.*, {_CLOCK}, current_setting('synchronous_commit'),"
            f" (SELECT max(version) FROM {prefix}secret_event WHERE"
            f"  generation = {_GENERATION} AND stream = '{CONTROL_STREAM}'), e.*"
            f" FROM (SELECT {_BOUNDS.head('u')} FROM {prefix}ledger_head AS u"
            "  WHERE generation = :generation LIMIT 1) AS h"
            f" LEFT JOIN ({_newest(prefix)}) AS e ON true"
        )
        """The read behind the lock: so it sees all rows as the lock's last holder left them."""
        self._head = Statement(
            f"SELECT {_BOUNDS.head('h')} FROM {prefix}ledger_head AS h"
            " WHERE generation = :generation LIMIT 1"
        )
        self._insert = Statement(_insertion(prefix, one=False))
        self._extend = {one: Statement(self._extending(one=one)) for one in (False, True)}
        self._extend_folding: dict[tuple[tuple[Statement, ...], bool], Statement | None] = {}
        self._heads_of = Statement(_newest(prefix))
        # LIMIT: else the planner joins with the whole generation.
        self._hashes_of = Statement(
            f"SELECT e.stream, {_BOUNDS.bytes('e.event_hash', 32)}"
            " FROM unnest(CAST(:streams AS text[]), CAST(:versions AS bigint[]))"
            " AS s (stream, version)"
            f" CROSS JOIN LATERAL (SELECT stream, event_hash FROM {prefix}secret_event AS v"
            f"  WHERE v.generation = {_GENERATION} AND v.stream = s.stream"
            "  AND v.version = s.version LIMIT 1) AS e"
        )

    def _make_engine(self, url: URL) -> AsyncEngine:
        dialling = read_url(url, self.place)
        dialler = Dialler(dialling, connector(read_only=self.read_only))
        self._files = dialling.files
        engine = create_async_engine(
            dialling.url,
            connect_args={
                "async_creator_fn": dialler,
                "prepared_statement_name_func": dialler.statement_name,
            },
            hide_parameters=True,
            pool_size=5,
            max_overflow=10,
        )
        self._lost_one = replace_closed_connections(engine)
        return engine

    @property
    def address(self) -> str:
        return re.sub("//[^/]*@", "//", self.place)

    async def run(
        self, unit: Callable[[Connection], T], mode: Mode, *, wait: float | None = None
    ) -> T:
        if self._closed:
            raise closed(self.place)
        self.home.check()
        # Shielded: a cancelled caller does not tear down a connection of the pool.
        task = asyncio.create_task(self._run(unit, mode, wait))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not task.cancelled() or (caller is not None and caller.cancelling()):
                raise
        # Only the task was cancelled, and not its caller: a host cancels every task of the loop.
        raise LedgerUnavailable(f"{self.place}: the statement was cancelled", transient=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, even if nobody waits for the task

    async def _run(self, unit: Callable[[Connection], T], mode: Mode, wait: float | None) -> T:
        return await greenlet_spawn(self._on_connection, unit, mode, wait)

    def _on_connection(
        self, unit: Callable[[Connection], T], mode: Mode, wait: float | None = None
    ) -> T:
        failure: LedgerError
        try:
            borrowed = self._borrow(self.patience if wait is None else wait)
        except Exception as error:  # noqa: BLE001  # whatever asyncpg says of its parameters
            own = drivers_own(error)
            if isinstance(own, _ERRORS):
                failure = explain(own, self.place, self._files) or translate(own, self.place)
            else:
                failure = LedgerUnavailable(
                    f"{self.place}: no connection can be set up ({type(error).__name__})",
                    hint="check the parameters of the URL: they are those of asyncpg.connect",
                )
        else:
            return self._in_transaction(borrowed, unit, mode, wait)
        # Raised outside the handler: so the driver's exception is not even its context.
        raise failure

    def _borrow(self, wait: float) -> PoolProxiedConnection:
        """A connection of the pool, new or free again. `wait`: seconds to try again.

        If the server has no free connection, open connections still work, and others may end.
        """
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + wait, 0.02
        while not self._closed:
            try:
                return self._engine.sync_engine.raw_connection()
            except Exception as error:  # whatever asyncpg says of its parameters
                if not has_no_connection(error) or loop.time() + pause > until:
                    raise
            await_only(asyncio.sleep(pause))  # until another session frees a connection
            pause = min(pause * 2, 0.5)
        raise closed(self.place)

    def _in_transaction(
        self,
        borrowed: PoolProxiedConnection,
        unit: Callable[[Connection], T],
        mode: Mode,
        wait: float | None,
    ) -> T:
        failure: LedgerError
        connection = PostgresqlConnection(borrowed.driver_connection, borrowed.info, mode)
        connection.wait = self.patience if wait is None else wait
        try:
            if self.on_connection is not None:
                self.on_connection(connection)
            done = unit(connection)
            if connection.commit():
                return done
            failure = not_committed()
        except _ERRORS as error:
            lost = connection.raw.is_closed()
            failure = translate(error, self.place, lost=lost)
            self._undo(borrowed, connection, keep=not lost and not takes_no_writes(error))
        except RecursionError:
            # asyncpg reads unknown types by a query of its own, which it can't qualify. To decode
            # the answer it reads types again, without end.
            failure = _unknown_types(self.place)
            self._undo(borrowed, connection, keep=False)
        except BaseException as error:
            self._undo(borrowed, connection, keep=isinstance(error, Exception))
            raise
        finally:
            borrowed.close()
        raise failure

    def _undo(
        self, borrowed: PoolProxiedConnection, connection: PostgresqlConnection, *, keep: bool
    ) -> None:
        """Undo a failed transaction.

        Ends the connection too, unless `keep` and the connection is as good as new afterwards.
        """
        if keep:
            try:
                connection.rollback()
                return
            except _ERRORS:
                pass
        if connection.raw.is_closed():
            self._lost_one(borrowed.info)
        borrowed.invalidate()

    async def watch(self) -> None:
        """Returns None: only a statement can ask a server."""

    async def close(self) -> None:
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=LAST_WORDS)
        cancelled = tuple(self._under_way)
        for task in cancelled:
            task.cancel()
        if cancelled:  # cancelled units give their connections back
            await asyncio.wait(cancelled, timeout=LAST_WORDS)
        if self._owned:
            await self._dispose()

    async def _dispose(self) -> None:
        # A server that no longer answers does not answer a goodbye either.
        disposing = asyncio.create_task(self._engine.dispose())
        done, _ = await asyncio.wait([disposing], timeout=LAST_WORDS)
        if not done:
            disposing.cancel()
            await asyncio.wait([disposing], timeout=LAST_WORDS)
        if disposing.done() and not disposing.cancelled():
            disposing.exception()  # marks it as retrieved: closing is over either way

    async def prepare_creation(self, *, beside_other_tables: bool) -> bool:
        return True

    async def settle(self) -> None:
        """Nothing to do: the server recovers what was committed."""

    def exists(self) -> bool:
        return True

    def tables(self, connection: Connection, schema: str | None = None) -> frozenset[str]:
        rows = connection.execute(_TABLES, {"schema": schema or self.schema})
        return frozenset(name for (name,) in rows)

    def begin_creation(self, connection: Connection) -> None:
        self.check_settings(connection)
        self._check_may_create(connection)
        # Racing creators queue on the catalogue's unique index; a loser is refused there,
        # and starts over.
        there = connection.execute(_SCHEMA, {"schema": self.schema})
        if not there:  # asked first: IF NOT EXISTS needs the right to create a schema
            connection.exec_driver_sql(f'CREATE SCHEMA "{self.schema}"')

    def _check_may_create(self, connection: Connection) -> None:
        role, allowed = connection.execute(_MAY_CREATE, {"schema": self.schema}).one()
        if not allowed:
            raise NotALedger(
                f"{self.place} holds no ledger, and role {printable(role)} may not make one",
                hint="check the URL and the schema; for a new ledger, run `secret-ledger init` as"
                " its future owner, then run as that owner the SQL that `secret-ledger schema"
                " grants` prints",
                role=role,
            )

    def surroundings(self) -> Surroundings:
        return Surroundings()

    def check_settings(self, connection: Connection) -> tuple[str, ...]:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise NotALedger(
                f"{self.place} is encoded in {encoding}, not UTF8",
                hint="create the database with ENCODING 'UTF8'",
            )
        replica = self.replica(connection)
        if replica is None:
            return ()
        if not self.read_only:
            raise LedgerUnavailable(
                f"{self.place} is a standby, which takes no writes",
                hint="open it with read_only=True (the command line's reading verbs do), or name"
                " its primary",
            )
        age = f"its data may be {replica.lag_seconds:.1f} s old"
        cut_off = "" if replica.receiving else "; it receives nothing from its primary"
        return (f"{self.place} is a standby: {age}{cut_off}",)

    def facts(self, connection: Connection) -> Facts:
        assert self.schema is not None  # noqa: S101
        return postgresql_catalogue.facts(connection, self.schema)

    def made(self) -> Facts:
        return postgresql_catalogue.made()

    def clock(self, connection: Connection) -> int:
        return int(connection.exec_driver_sql(f"SELECT {_CLOCK}").scalar_one())

    def replica(self, connection: Connection) -> Replica | None:
        row = connection.exec_driver_sql(_REPLICA).first()
        return None if row is None else Replica(row[0], row[1])

    def lock_head(
        self,
        connection: Connection,
        generation: int,
        epoch: int,
        streams: Sequence[str] = (),
    ) -> LockedHead | None:
        if not self._take(connection, self._lock_active, generation=generation, epoch=epoch):
            return None
        given = {"generation": generation, "names": self.names(streams)}
        rows = connection.execute(self._locked, given)
        *columns, now, synchronous, control = rows[0][:8]
        if synchronous == "off":
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        head = LogHead.of_row(columns)
        events = (row[8:20] for row in rows if row[8] is not None)
        newest = map(Event.of_row, whole(connection, self.statements, events))
        return LockedHead(head, max(head.recorded_at, now), newest, control)

    def lock_generation(self, connection: Connection, generation: int) -> LogHead | None:
        if not self._take(connection, self._lock_any, generation=generation):
            return None
        return LogHead.of_row(connection.execute(self._head, {"generation": generation}).one())

    def run_deferred(self, connection: Connection) -> None:
        assert isinstance(connection, PostgresqlConnection)  # noqa: S101  # `run` made it
        connection.script("SET CONSTRAINTS ALL IMMEDIATE")

    def _take(self, connection: Connection, lock: str, **numbers: int) -> bool:
        """Lock a head row. Returns False if no head row matches."""
        assert isinstance(connection, PostgresqlConnection)  # noqa: S101  # `run` made it
        # The wait is bounded for this transaction only.
        wait = max(LEAST_WAIT, int(connection.wait * 1000))
        return connection.script(lock.format(wait=wait, **numbers)) == "SELECT 1"

    def extend(
        self,
        connection: Connection,
        before: LogHead,
        after: LogHead,
        events: Sequence[Event],
        folded: Folded | None = None,
    ) -> tuple[bool, bool]:
        given: dict[str, Any] = {**advancing(before, after)}
        if len(events) >= MANY:
            moved = connection.execute(self.statements.advance_head, given)
            self.insert_events(connection, events)
            return moved.rowcount == 1, False
        upserts = folded.upserts if folded else ()
        one = len(events) == 1 and all(len(rows) == 1 for _, rows in upserts)
        folding = self._folding(tuple(upsert for upsert, _ in upserts), one=one)
        given |= zip(_CELLS, events[0] if one else zip(*events, strict=True), strict=True)
        if folded and folding:
            given["projection"] = folded.projection
            for number, (upsert, rows) in enumerate(upserts):
                values = upsert.rows(rows)
                cells = values[0] if one else zip(*values, strict=True)
                given |= zip((f"r{number}_{name}" for name in upsert.names), cells, strict=True)
        try:
            moves, entered, folds = connection.execute(folding or self._extend[one], given).one()
        except _ERRORS as error:
            if folded and folding:
                where = f", written with the events from position {events[0].position} on"
                fail_in_projection(error, folded.projection, where)
            raise
        if entered != len(events):
            raise others_stored()
        return moves == 1, folds == 1

    def _folding(self, upserts: tuple[Statement, ...], *, one: bool) -> Statement | None:
        """The statement that adds events and writes a projection's rows; None if it can't."""
        if (upserts, one) not in self._extend_folding:
            parts = [
                upsert.part("EXISTS (SELECT 1 FROM checkpoint)", f"r{number}_", one=one)
                for number, upsert in enumerate(upserts)
            ]
            whole = [part for part in parts if part is not None]
            can = len(whole) == len(parts) > 0
            self._extend_folding[upserts, one] = (
                Statement(self._extending(whole, one=one)) if can else None
            )
        return self._extend_folding[upserts, one]

    def _extending(self, folds: Sequence[str] = (), *, one: bool) -> str:
        sql = self.statements
        parts = {"moved": sql.advance_head.sql, "entered": _insertion(sql.prefix, one=one)}
        if folds:
            parts["checkpoint"] = sql.advance_checkpoint.sql
            parts |= {f"folded_{number}": fold for number, fold in enumerate(folds)}
        tables = ", ".join(f"{name} AS ({part} RETURNING 1)" for name, part in parts.items())
        counted = ("moved", "entered", "checkpoint") if folds else ("moved", "entered")
        counts = [f"(SELECT count(*) FROM {name})" for name in counted]
        return f"WITH {tables} SELECT {', '.join(counts if folds else [*counts, '0'])}"

    def insert_events(self, connection: Connection, events: Sequence[Event]) -> None:
        if len(events) < MANY:
            columns = dict(zip(_CELLS, zip(*events, strict=True), strict=True))
            entered = connection.execute(self._insert, columns).rowcount
        else:
            assert isinstance(connection, PostgresqlConnection)  # noqa: S101  # `run` made it
            assert self.schema is not None  # noqa: S101
            entered = connection.copy(self.schema, "secret_event", Event._fields, events)
        if entered != len(events):
            raise others_stored()

    def heads_of(
        self, connection: Connection, generation: int, streams: Sequence[str]
    ) -> Iterator[Event]:
        rows = connection.execute(
            self._heads_of, {"names": self.names(streams), "generation": generation}
        ).all()
        return map(Event.of_row, whole(connection, self.statements, rows))

    def hashes_of(
        self, connection: Connection, generation: int, versions: Mapping[str, int]
    ) -> dict[str, bytes]:
        asked = {"streams": list(versions), "versions": list(versions.values())}
        return dict(connection.execute(self._hashes_of, {**asked, "generation": generation}))

    def names(self, values: Sequence[str]) -> list[str]:
        return list(values)

    def text(self, value: str) -> str | bytes:
        # No row here holds text that UTF-8 can't encode: such text stands for a NULL.
        return value.encode("utf-8", "replace").decode()


def _unknown_types(place: str) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"{place}: the driver can't tell the types of this database: a type on the search path has"
        " the name of one of PostgreSQL's own, such as text",
        hint="put pg_catalog first on the search path of this role or database, or leave it out",
    )


def _newest(prefix: str) -> str:
    """The newest event of each of the streams `:names`.

    The subquery hides from the planner how many streams that are. Else it makes a plan each time,
    because a plan for their number looks better than a plan for any number.
    """
    return (
        f"SELECT {_BOUNDS.paged('n')} FROM unnest((SELECT CAST(:names AS text[]))) AS s (stream)"
        f" CROSS JOIN LATERAL (SELECT {EVENT_COLUMNS} FROM {prefix}secret_event AS v"
        f" WHERE v.generation = {_GENERATION} AND v.stream = s.stream"
        " ORDER BY v.version DESC LIMIT 1) AS n"
    )


def _insertion(prefix: str, *, one: bool) -> str:
    """The INSERT of one event, or of many: then each parameter is an array of a column's values."""
    many = "" if one else "[]"
    cells = ", ".join(
        f"CAST(:{cell} AS {kind}{many})" for cell, kind in zip(_CELLS, _TYPES, strict=True)
    )
    rows = f"SELECT {cells}" if one else f"SELECT * FROM unnest({cells})"
    return f"INSERT INTO {prefix}secret_event ({EVENT_COLUMNS}) {rows}"
