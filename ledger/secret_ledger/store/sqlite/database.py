"""SQLite: WAL, `synchronous=FULL`, one thread that writes, four threads that read.

Durability rests on settings of the connections. So this module opens its own connections: a
host's engine lends its URL, not its pool. A unit of work runs in one hop to a thread. Write
transactions begin IMMEDIATE, so that SQLite never has to upgrade a read lock half-way.
"""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import chain
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sqlalchemy import ClauseElement
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.engine import URL, Dialect

from secret_ledger.errors import LedgerError, LedgerUnavailable, NotALedger, TamperedEvent
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.rows import LogHead
from secret_ledger.store.bounds import MAX_STREAM_BYTES, Bounds
from secret_ledger.store.connection import Connection, Mode, Parameters, Rows, Statement, compiled
from secret_ledger.store.database import Facts, Folded, LockedHead, Replica, Surroundings
from secret_ledger.store.driver_errors import (
    DRIVER_ERRORS,
    closed,
    not_committed,
    others_stored,
    translate,
)
from secret_ledger.store.identifiers import quoted
from secret_ledger.store.loop_guard import Home
from secret_ledger.store.schema import OUR_TABLES, OUR_VIEWS
from secret_ledger.store.sqlite import catalogue as sqlite_catalogue
from secret_ledger.store.sqlite.files import OpenFiles
from secret_ledger.store.sqlite.place import (
    check_names,
    explained,
    file_exists,
    hindrances,
    names_warning,
)
from secret_ledger.store.sqlite.race import wal_reset_race
from secret_ledger.store.sqlite.running import Job
from secret_ledger.store.sqlite.url import read_path
from secret_ledger.store.statements import EVENT_COLUMNS, Checkpoints, Statements, advancing, whole

__all__ = ["SqliteConnection", "SqliteDatabase"]

T = TypeVar("T")

_WRITES: Final = ("write", "note")
READERS: Final = 4
UNDECODED: Final = "Could not decode to UTF-8"
MANY: Final = 250
"""Rows that one statement inserts, if the caller adds at least so many."""
PAGE_CACHE_KIB: Final = 8192
WAIT_STEPS: Final = 10
"""Steps of a second: the time to wait for a lock is rounded up to whole steps."""
NOTE_TIMEOUT: Final = 1500
"""Milliseconds that a `note` waits for another process's write lock."""

LARGEST: Final = MAX_STREAM_BYTES
"""Bytes of the largest value that SQLite reads or takes.

Every row of a ledger, and every list of names in a statement, is far smaller.
"""
# `octet_length` does not load the value that it counts. Nor does `length`, if it counts bytes.
_BOUNDS: Final = Bounds(
    "octet_length({})" if sqlite3.sqlite_version_info >= (3, 43) else "length(CAST({} AS BLOB))",
    "length({})",
)
GRACE: Final = 3.0
"""Seconds that `close` waits for running units to end by themselves."""

_INSERT: Final = Statement(
    f"INSERT INTO secret_event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# CROSS JOIN fixes the order: else the planner walks the whole log and looks for each stream.
_HEADS_OF: Final = Statement(
    f"SELECT {_BOUNDS.paged('e')} FROM json_each(:names) AS s CROSS JOIN secret_event AS e"
    " WHERE e.generation = :generation AND e.stream = s.value AND e.version ="
    " (SELECT max(v.version) FROM secret_event AS v"
    "  WHERE v.generation = :generation AND v.stream = s.value)"
)
_HASHES_OF: Final = Statement(
    f"SELECT e.stream, {_BOUNDS.bytes('e.event_hash', 32)}"
    " FROM json_each(:versions) AS s CROSS JOIN secret_event AS e"
    " WHERE e.generation = :generation AND e.stream = s.key AND e.version = s.value"
)
_ACTIVE_HEAD: Final = Statement(
    "SELECT generation, position, recorded_at, key_epoch, state, (SELECT max(version)"
    f" FROM secret_event WHERE generation = :generation AND stream = '{CONTROL_STREAM}')"
    " FROM ledger_head WHERE generation = :generation AND state = 'active' AND key_epoch = :epoch"
)
_GENERATION: Final = Statement(
    f"SELECT {_BOUNDS.head('h')} FROM ledger_head AS h WHERE generation = :generation LIMIT 1"
)
# In the head row, which every append writes: so an append writes six pages and not seven.
_OF_SYS_SECRET: Final = Checkpoints(
    read=Statement(
        "SELECT sys_secret_position FROM ledger_head"
        " WHERE generation = :generation AND sys_secret_position IS NOT NULL"
    ),
    begin=Statement(
        "UPDATE ledger_head SET sys_secret_position = :position"
        " WHERE generation = :generation AND sys_secret_position IS NULL"
    ),
    lock=Statement(
        "UPDATE ledger_head SET sys_secret_position = sys_secret_position"
        " WHERE generation = :generation AND sys_secret_position IS NOT NULL"
        " RETURNING sys_secret_position"
    ),
    advance=Statement(
        "UPDATE ledger_head SET sys_secret_position = :position"
        " WHERE generation = :generation AND sys_secret_position = :before"
    ),
    forget=Statement(
        "UPDATE ledger_head SET sys_secret_position = NULL WHERE generation = :generation"
    ),
    place="ledger_head.sys_secret_position",
)


_DIALECT: Final = dialect(paramstyle="named")
_AMONG: Final = "IN (SELECT n.value FROM json_each(:names) AS n)"


@cache
def _statements() -> Statements:
    return Statements("", _AMONG, _BOUNDS, checkpoints={"sys_secret": _OF_SYS_SECRET})


class SqliteConnection:
    """A connection of the sqlite3 module. Implements `store.connection.Connection`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw: Final = raw
        self.info: dict[Any, Any] = {}
        self.mode: Mode = "statement"
        self.job = Job()
        """The unit of work that uses the connection now."""
        self._last_written: tuple[Mode, int] | None = None

    def execute(self, statement: Statement | ClauseElement, parameters: Parameters = None) -> Rows:
        if not isinstance(statement, Statement):
            statement = compiled(statement, _DIALECT)
        if isinstance(parameters, list):
            return Rows((), self._execute_each(statement, statement.rows(parameters)))
        rows, count = self._fetch(statement.sql, statement.named(parameters))
        return statement.read(rows, count)

    def _check(self) -> None:
        self.job.check()  # an interrupt between two statements ends none
        if self.mode != "statement" and not self.raw.in_transaction:
            raise not_committed()  # else each further statement would commit by itself

    def _fetch(self, sql: str, parameters: Mapping[str, Any]) -> tuple[list[Any], int]:
        self._check()
        too_big = False
        try:
            cursor = self.raw.execute(sql, parameters)
            return cursor.fetchall(), cursor.rowcount
        except sqlite3.OperationalError as error:
            if not str(error).startswith(UNDECODED):
                raise
        except sqlite3.DataError as error:
            if error.sqlite_errorname != "SQLITE_TOOBIG" or _has_large(parameters):
                raise
            too_big = True
        if too_big:
            raise TamperedEvent(
                f"a row holds a value of more than {LARGEST:,} bytes: no ledger wrote it",
                hint="somebody else writes to the database; restore it from a backup",
            )
        # Damaged text must reach the check that names its row, and not stop the whole page. The
        # driver decodes all other text, in a tenth of the time.
        self.raw.text_factory = _text_of
        try:
            cursor = self.raw.execute(sql, parameters)
            return cursor.fetchall(), cursor.rowcount
        finally:
            self.raw.text_factory = str

    def _execute_each(self, statement: Statement, rows: Sequence[Sequence[Any]]) -> int:
        self._check()
        # One statement for many rows: SQLite works on all of them without Python's lock. It
        # releases that lock and takes it again for each statement.
        start = changed = 0
        many = statement.repeated(MANY, len(rows[0])) if len(rows) >= MANY else None
        while many and start + MANY <= len(rows):
            values = tuple(chain.from_iterable(rows[start : start + MANY]))
            changed += self.raw.execute(many, values).rowcount
            start += MANY
        if start < len(rows):
            changed += self.raw.executemany(statement.placed, rows[start:]).rowcount
        return changed

    def run_all(self, statements: Sequence[str]) -> None:
        for sql in statements:
            self.exec_driver_sql(sql)

    def exec_driver_sql(self, sql: str) -> Rows:
        return Rows(*self._fetch(sql, {}))

    def begin(self, mode: Mode, patience: float) -> None:
        """Begin a transaction of `mode`. `patience`: seconds that a `write` waits for a lock."""
        self.mode, raw = mode, self.raw
        if mode in _WRITES:
            note = mode == "note"
            # In steps: each write has a little less patience left, and a new value costs PRAGMAs.
            wait = NOTE_TIMEOUT if note else math.ceil(patience * WAIT_STEPS) * 1000 // WAIT_STEPS
            if self._last_written != (mode, wait):  # both settings stay with the connection
                self._last_written = None
                raw.execute(f"PRAGMA busy_timeout = {wait}")
                raw.execute(f"PRAGMA synchronous = {'NORMAL' if note else 'FULL'}")
                self._last_written = mode, wait
            raw.execute("BEGIN IMMEDIATE")
        elif mode == "snapshot":
            raw.execute("BEGIN")

    def commit(self) -> bool:
        """Commit the transaction, if it has begun. Returns False if SQLite undid it before.

        Some errors undo a whole transaction, even if the unit catches them and goes on.
        """
        if self.raw.in_transaction:
            self.raw.execute("COMMIT")
            return True
        return self.mode == "statement"

    def rollback(self) -> None:
        """Undo the transaction, if it has begun."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")


class SqliteDatabase:
    """A ledger in a SQLite file, or in memory. Implements `store.database.Database`."""

    name: Final = "sqlite"
    dialect: Final[Dialect] = _DIALECT
    schema: str | None = None

    def __init__(
        self, url: URL, *, read_only: bool, patience: float, of_engine: bool = False
    ) -> None:
        self.patience = patience
        self.read_only = read_only
        self.statements = _statements()
        self.on_connection: Callable[[Connection], None] | None = None
        self._file = read_path(url, of_engine=of_engine)
        self.in_memory = self._file is None
        self._files = OpenFiles(Path(self._file)) if self._file else None
        self.home = Home(self.place)
        self._idle: dict[bool, list[SqliteConnection]] = {False: [], True: []}
        """Connections that no unit uses now: under False for reads, under True for writes."""
        self._jobs: set[Job] = set()
        """Units that run now, and units that wait for a thread."""
        self._watching: sqlite3.Connection | None = None
        self._closed = False
        # An in-memory database is one connection: its units queue on one thread.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-sqlite-write")
        self._readers = (
            self._writer
            if self.in_memory
            else ThreadPoolExecutor(READERS, thread_name_prefix="ledger-sqlite-read")
        )

    @property
    def place(self) -> str:
        return f"sqlite:{self._file or ':memory:'}"

    @property
    def address(self) -> str:
        return f"sqlite:{self._files.path}" if self._files else self.place

    async def run(
        self, unit: Callable[[Connection], T], mode: Mode, *, wait: float | None = None
    ) -> T:
        if self._closed:
            raise closed(self.place)
        self.home.check()
        executor = self._writer if mode in _WRITES else self._readers
        job = Job()
        self._jobs.add(job)
        done = executor.submit(self._run, unit, mode, wait, job)
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if done.cancelled():  # before the unit began
                self._jobs.discard(job)
            elif mode not in _WRITES:  # a write goes on, even if nobody waits
                job.give_up()
            raise

    def _run(self, unit: Callable[[Connection], T], mode: Mode, wait: float | None, job: Job) -> T:
        try:
            return self._attempt(unit, mode, wait, job)
        finally:
            self._jobs.discard(job)

    def _attempt(
        self, unit: Callable[[Connection], T], mode: Mode, wait: float | None, job: Job
    ) -> T:
        failure: LedgerError
        files, writing = self._files, mode in _WRITES
        committing = False
        unchanged = files is None or files.check(writing=writing)
        try:
            connection = self._borrow(write=writing)
            connection.job = job
            job.begin(connection.raw)
            try:
                if files is not None and not unchanged:
                    files.content.check(connection.raw)
                connection.begin(mode, self.patience if wait is None else wait)
                done = unit(connection)
                committing = writing
                if not connection.commit():
                    raise not_committed()
                if files is not None and writing and not files.committed():
                    files.content.check(connection.raw, outcome_unknown=True)
            except BaseException:
                connection.rollback()
                raise
            finally:
                job.end()
                self._give_back(connection, write=writing)
            return done
        except DRIVER_ERRORS as error:
            failure = self._translated(error, at_commit=committing)
        # Raised outside the handler: so the driver's exception is not even its context.
        raise failure

    def _translated(self, error: BaseException, *, at_commit: bool = False) -> LedgerError:
        failure = translate(error, self.place, at_commit=at_commit)
        return failure if self._files is None else explained(failure, self._files.path)

    async def watch(self) -> Callable[[], int | None] | None:
        if self.in_memory:
            return None
        await self.run(self._watch, "statement")
        return self._data_version

    def _watch(self, connection: Connection) -> None:
        self._watching = self._connect()
        # The event loop asks this connection: if it had to wait, it must fail instead.
        self._watching.execute("PRAGMA busy_timeout = 0")

    def _data_version(self) -> int | None:
        if self._files is not None and not self._files.check(writing=False):
            return None  # a look at the content would block
        if self._watching is None:
            return None
        try:
            version: int = self._watching.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return None
        return version

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        disposing = loop.run_in_executor(self._writer, self._dispose)
        await asyncio.wait([disposing], timeout=GRACE)
        while not disposing.done():  # a statement is endless, or a unit has many
            for job in tuple(self._jobs):
                job.give_up()
            await asyncio.wait([disposing], timeout=0.05)
        disposing.result()
        self._writer.shutdown(wait=False)

    def _dispose(self) -> None:
        if self._readers is not self._writer:
            # A read may still run after its caller was cancelled: wait, then close its connection.
            self._readers.shutdown(wait=True)
        idle = [connection.raw for each in self._idle.values() for connection in each]
        if self._watching is not None:
            idle.append(self._watching)
        if idle and self._files is not None and self._files.content.is_overwritten(idle[0]):
            # The last connection to close copies the -wal into the file, unless it can only read.
            with suppress(sqlite3.Error):
                last = sqlite3.connect(f"file:{quote(str(self._files.path))}?mode=ro", uri=True)
                idle.append(last)
                last.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        for connections in self._idle.values():
            connections.clear()
        for raw in idle:
            raw.close()

    def _borrow(self, *, write: bool) -> SqliteConnection:
        idle = self._idle[write or self.in_memory]
        return idle.pop() if idle else SqliteConnection(self._connect())

    def _give_back(self, connection: SqliteConnection, *, write: bool) -> None:
        connection.mode = "statement"
        self._idle[write or self.in_memory].append(connection)

    def _connect(self) -> sqlite3.Connection:
        if self._files is None:
            target = ":memory:"
        else:
            # rw, not rwc: only `prepare_creation` ever makes a file.
            mode = "ro" if self.read_only else "rw"
            target = f"file:{quote(str(self._files.path))}?mode={mode}"
        connection = sqlite3.connect(
            target,
            uri=True,
            timeout=self.patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        damaged = False
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
            if self.read_only:
                connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error:  # no database, for example: nobody else would close it
            connection.close()
            raise
        except UnicodeDecodeError:  # SQLite's message quotes a damaged schema
            damaged = True
        if damaged:
            connection.close()
            raise _damaged_schema(self.place)
        if self._files is not None:
            try:
                if self._files.opened() and not self.read_only:
                    check_names(self._files.path)
            except LedgerError:
                connection.close()
                raise
        return connection

    async def prepare_creation(self, *, beside_other_tables: bool) -> bool:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._prepare, beside_other_tables)

    def _prepare(self, beside_other_tables: bool) -> bool:
        if self._files is None:
            return True
        if self.exists():
            check_names(self._files.path)
            if self._files.path.stat().st_size == 1:
                # SQLite takes a file of one byte for an empty file (its VFS once made such files).
                raise NotALedger(f"{self.place} is not a SQLite database")
        failure: LedgerError
        try:
            # This makes a missing file. It rewrites the header for WAL only if the file holds
            # nothing yet, or if the caller asked for a ledger beside other tables.
            raw = sqlite3.connect(self._files.path, timeout=self.patience, isolation_level=None)
            try:
                (tables,) = raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if tables and not beside_other_tables:
                    return False
                raw.execute("PRAGMA journal_mode = WAL")
                return True
            finally:
                raw.close()
        except DRIVER_ERRORS as error:
            failure = self._translated(error)
        raise failure

    async def settle(self) -> None:
        if self._files is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._writer, self._settle)

    def _settle(self) -> None:
        failure: LedgerError
        try:
            connection = self._borrow(write=True)
            try:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                self._give_back(connection, write=True)
            return
        except DRIVER_ERRORS as error:
            failure = self._translated(error)
        raise failure

    def exists(self) -> bool:
        """Whether the file exists; True if in memory."""
        return self._files is None or file_exists(self._files.path)

    def tables(self, connection: Connection, schema: str | None = None) -> frozenset[str]:
        master = f"{quoted(schema)}.sqlite_master" if schema else "sqlite_master"
        rows = connection.exec_driver_sql(
            f"SELECT name, type, sql FROM {master} WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        for name, kind, sql in rows:
            if name in OUR_TABLES and name not in OUR_VIEWS and not _is_table(kind, sql):
                raise _damaged_schema(self.place, f"{name} is no table")
        return frozenset(name for name, _, _ in rows)

    def begin_creation(self, connection: Connection) -> None:
        """Nothing to do: the write transaction began IMMEDIATE, so no other writer runs."""

    def check_settings(self, connection: Connection) -> tuple[str, ...]:
        def read(pragma: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()

        if read("encoding") != "UTF-8":
            raise NotALedger(f"{self.place} is not encoded in UTF-8")
        journal = str(read("journal_mode")).lower()
        if journal != ("memory" if self.in_memory else "wal") and not self.read_only:
            raise LedgerUnavailable(
                f"{self.place} is in journal mode {journal}, not WAL",
                hint="another program changed it; run: sqlite3 FILE 'PRAGMA journal_mode=WAL'",
            )
        if read("synchronous") != 2 or (read("foreign_keys") != 1):
            raise LedgerUnavailable(f"{self.place}: SQLite did not take the durable settings")
        warning = names_warning(self._files.path) if self._files else None
        return () if warning is None else (warning,)

    @property
    def race(self) -> str | None:
        return None if self.in_memory else wal_reset_race(sqlite3.sqlite_version_info)

    def surroundings(self) -> Surroundings:
        if self._files is None:
            return Surroundings()
        warning = names_warning(self._files.path)
        dangers = () if warning is None else (warning,)
        return Surroundings(hindrances(self._files.path), dangers)

    def facts(self, connection: Connection) -> Facts:
        return sqlite_catalogue.facts(connection)

    def made(self) -> Facts:
        return sqlite_catalogue.made()

    def clock(self, connection: Connection) -> int:
        return time.time_ns() // 1000

    def replica(self, connection: Connection) -> Replica | None:
        return None

    def lock_head(
        self,
        connection: Connection,
        generation: int,
        epoch: int,
        streams: Sequence[str] = (),
    ) -> LockedHead | None:
        row = connection.execute(_ACTIVE_HEAD, {"generation": generation, "epoch": epoch}).first()
        if row is None:
            return None
        head = LogHead.of_row(row[:5])
        newest = self.heads_of(connection, generation, streams) if streams else iter(())
        return LockedHead(head, max(head.recorded_at, self.clock(connection)), newest, row[5])

    def lock_generation(self, connection: Connection, generation: int) -> LogHead | None:
        row = connection.execute(_GENERATION, {"generation": generation}).first()
        return None if row is None else LogHead.of_row(row)

    def run_deferred(self, connection: Connection) -> None:
        """Nothing to do: SQLite runs triggers with their statements."""

    def extend(
        self,
        connection: Connection,
        before: LogHead,
        after: LogHead,
        events: Sequence[Event],
        folded: Folded | None = None,
    ) -> tuple[bool, bool]:
        moved = connection.execute(self.statements.advance_head, advancing(before, after))
        self.insert_events(connection, events)
        return moved.rowcount == 1, False

    def insert_events(self, connection: Connection, events: Sequence[Event]) -> None:
        if connection.execute(_INSERT, list(events)).rowcount != len(events):
            raise others_stored()

    def heads_of(
        self, connection: Connection, generation: int, streams: Sequence[str]
    ) -> Iterator[Event]:
        rows = connection.execute(
            _HEADS_OF, {"names": self.names(streams), "generation": generation}
        ).all()
        return map(Event.of_row, whole(connection, self.statements, rows))

    def hashes_of(
        self, connection: Connection, generation: int, versions: Mapping[str, int]
    ) -> dict[str, bytes]:
        asked = {"versions": json.dumps(versions), "generation": generation}
        return dict(connection.execute(_HASHES_OF, asked))

    def names(self, values: Sequence[str]) -> str:
        # A JSON list, as `json.dumps` makes it; that takes ten times as long for a few names.
        return f"[{','.join(map(encode_basestring_ascii, values))}]"

    def text(self, value: str) -> str | bytes:
        try:
            value.encode()
        except UnicodeEncodeError:  # damage that `_text_of` let through; the statement casts it
            return value.encode("utf-8", "surrogateescape")
        return value


def _has_large(parameters: Mapping[str, Any]) -> bool:
    """Whether a parameter, and no row, may be larger than SQLite takes (4 bytes a character)."""
    return any(isinstance(v, str | bytes) and len(v) > LARGEST // 4 for v in parameters.values())


def _text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _is_table(kind: object, sql: object) -> bool:
    """A view, or the virtual table of a module, may answer whatever it likes."""
    return kind == "table" and not str(sql).upper().startswith("CREATE VIRTUAL")


def _damaged_schema(place: str, what: str = "") -> TamperedEvent:
    return TamperedEvent(
        f"{place}: the database's own schema is damaged{what and ': '}{what}; this is not a wrong"
        " key",
        hint="stop all writers, keep a copy of the files, and restore from a backup",
    )
