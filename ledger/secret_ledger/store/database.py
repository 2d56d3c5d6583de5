"""The seam between the ledger and a database: a unit of work, run whole.

A *unit* is a plain function over a `Connection`. It runs in one transaction: on SQLite in one
hop to a dedicated thread (an await costs more there than a statement), on PostgreSQL on the
event loop through SQLAlchemy's greenlet bridge. So there is one code path
for both, nothing but the database is ever awaited inside a transaction, and what differs
lies in `store.sqlite` and `store.postgresql` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeGuard, TypeVar
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.model.events import Event
from secret_ledger.model.rows import Head
from secret_ledger.store.connection import Connection, Mode
from secret_ledger.store.loop_guard import Home
from secret_ledger.store.sqlite.url import read_text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from secret_ledger.store.connection import Statement
    from secret_ledger.store.statements import Statements

__all__ = [
    "Database",
    "Facts",
    "Folded",
    "LockedHead",
    "Mode",
    "Replica",
    "Surroundings",
    "address_of",
    "connect",
    "is_engine",
]

T = TypeVar("T")

Facts = Mapping[tuple[str, str], str]
"""What each thing in a schema is, by its kind and name."""


class LockedHead(NamedTuple):
    """The active head row, locked until commit, and the time of the next event."""

    head: Head
    now: int
    """Microseconds since 1970: the database's clock where it has one, never below
    the head row's last."""
    newest: Iterator[Event]
    """The newest event of each stream that was asked for; large ones are fetched as they are
    reached."""
    control: object
    """The newest version of the control stream, as the lock's last holder left it."""


class Folded(NamedTuple):
    """What a projection is to hold once events are added: its checkpoint moves along with the
    head row, and if it does these rows are written."""

    projection: str
    upserts: Sequence[tuple[Statement, Sequence[Sequence[Any]]]]
    """Each with its rows, whose values are in order of the statement's `names`."""


class Replica(NamedTuple):
    """A standby, as a reader should know it."""

    lag_seconds: float
    """How old what it shows may be: 0 where it has all that its primary has sent, else the
    time since the last commit that it shows."""
    receiving: bool
    """Whether it is connected to its primary at all."""


class Surroundings(NamedTuple):
    """Where a database lies, as the operating system has it. On a server nobody can look."""

    hindrances: Sequence[str] = ()
    """Why nothing can be written just now."""
    dangers: Sequence[str] = ()
    """What may lose writes, though all goes well so far."""


class Database(Protocol):
    """What a dialect gives. Errors of the driver come out as LedgerUnavailable,
    TamperedEvent or NotALedger, without the driver's own message."""

    schema: str | None
    """PostgreSQL's schema; None on SQLite."""
    read_only: bool
    patience: float
    """Seconds that a database which can't be reached, or a lock, is waited for."""
    statements: Statements
    home: Home
    """The event loop that it is used in, and no other."""
    on_connection: Callable[[Connection], None] | None
    """Called before each unit, in its transaction: what it raises ends it. For connections to
    a server, which may be another one by then; SQLite has none, and calls nothing."""

    @property
    def name(self) -> Literal["sqlite", "postgresql"]:
        """Which dialect this is."""
        ...

    @property
    def dialect(self) -> Dialect:
        """What SQLAlchemy compiles for it with."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether it is gone when it is closed."""
        ...

    @property
    def place(self) -> str:
        """The database's address, without a password."""
        ...

    @property
    def address(self) -> str:
        """`place` as it may be kept and told elsewhere: without a user, its path in full."""
        ...

    async def run(
        self, unit: Callable[[Connection], T], mode: Mode, *, wait: float | None = None
    ) -> T:
        """Run `unit` in one transaction of that mode; commit if it returns.

        `wait`: seconds that a `write` waits for another's lock, default the database's patience.
        """
        ...

    async def watch(self) -> Callable[[], int | None] | None:
        """What tells whether anybody has committed, in microseconds and on the caller's own
        thread: a number that stays the same until somebody has, or None where that can't be
        told just then. None in its place where only a trip tells.

        It raises LedgerUnavailable where the database's file is not the one that was opened.
        """
        ...

    async def close(self) -> None:
        """Close what was opened here. A host's own engine is left alone."""
        ...

    def exists(self) -> bool:
        """False where there is nothing to connect to yet: no file."""
        ...

    def tables(self, connection: Connection, schema: str | None = None) -> frozenset[str]:
        """The tables in our schema (SQLite: in the file), ours and others'; or in another."""
        ...

    def begin_creation(self, connection: Connection) -> None:
        """Make room for a new ledger, in the transaction that makes it."""
        ...

    async def prepare_creation(self, *, beside_other_tables: bool) -> bool:
        """What must happen before the creating transaction. False where other tables
        are in the way."""
        ...

    async def settle(self) -> None:
        """Have a new ledger whole in the database's own file, so that nobody who finds a
        copy of that alone takes it for an empty place."""
        ...

    def check_settings(self, connection: Connection) -> tuple[str, ...]:
        """Read the settings that durability rests on back. Raises LedgerUnavailable
        where they are not as they must be; returns warnings."""
        ...

    @property
    def race(self) -> str | None:
        """What can damage the database if several processes write it; None if nothing can."""
        ...

    def surroundings(self) -> Surroundings:
        """Look at where it lies, which may block. On a server that is nothing."""
        ...

    def facts(self, connection: Connection) -> Facts:
        """What the database's own catalogue says of our schema, in one statement."""
        ...

    def made(self) -> Facts:
        """What it says of a schema that is as the numbered files make it."""
        ...

    def lock_head(
        self,
        connection: Connection,
        generation: int,
        epoch: int,
        streams: Sequence[str] = (),
    ) -> LockedHead | None:
        """Lock the active head row, and find the newest event of each of these streams as the
        lock's last holder left it. None where the row is not active or not of that epoch.
        """
        ...

    def lock_generation(self, connection: Connection, generation: int) -> Head | None:
        """Lock a generation's head row in whatever state."""
        ...

    def run_deferred(self, connection: Connection) -> None:
        """Have done now what was put off to the commit: triggers, which may change rows."""
        ...

    def extend(
        self,
        connection: Connection,
        before: Head,
        after: Head,
        events: Sequence[Event],
        folded: Folded | None = None,
    ) -> tuple[bool, bool]:
        """Add rows behind the locked head row, which moves on with them: whether that was still
        at `before`, and whether `folded` was written in the same trip."""
        ...

    def insert_events(self, connection: Connection, events: Sequence[Event]) -> None:
        """Add rows to the log, in one statement where the driver can."""
        ...

    def heads_of(
        self, connection: Connection, generation: int, streams: Sequence[str]
    ) -> Iterator[Event]:
        """The newest event of each of these streams, those that have one; large ones are
        fetched as they are reached."""
        ...

    def hashes_of(
        self, connection: Connection, generation: int, versions: Mapping[str, int]
    ) -> dict[str, bytes]:
        """The hash of this version of each of these streams, those that there are."""
        ...

    def names(self, values: Sequence[str]) -> Any:
        """The parameter of a statement that asks for one of these texts (`Statements.among`)."""
        ...

    def text(self, value: str) -> str | bytes:
        """A stored text as a parameter, also where it is damaged and no valid UTF-8."""
        ...

    def clock(self, connection: Connection) -> int:
        """The database's clock, in microseconds since 1970."""
        ...

    def replica(self, connection: Connection) -> Replica | None:
        """What a standby is; None on a server that is none, and on SQLite."""
        ...


def is_engine(url: object) -> TypeGuard[AsyncEngine]:
    """Whether it is a host's engine. Then the host has imported what takes long to import."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(url, module.AsyncEngine)


def address_of(url: object) -> URL | None:
    """The parsed URL, whose repr hides its password. None for what is none; never raises."""
    try:
        address = url.url if is_engine(url) else make_url(url)  # type: ignore[arg-type]
    except (ArgumentError, ValueError):  # ValueError: its port is no number
        return None
    # Drivers take it from the query too, where a URL's repr shows it.
    password = address.query.get("password")
    if isinstance(password, str):
        address = address.difference_update_query(["password"]).set(password=password)
    if "sslpassword" in address.query:  # there is no place for a second one: refused by name
        address = address.update_query_dict({"sslpassword": "***"})
    if isinstance(url, str):
        # SQLAlchemy passes over `sslmode=`; but a failed substitution is not "unset".
        given = parse_qsl(url.rpartition("?")[2], keep_blank_values=True)
        blank = {name: "" for name, value in given if not value and name.isidentifier()}
        address = address.update_query_dict(blank)
        if address.get_backend_name() == "sqlite":
            address = read_text(url, address)
    return address


def connect(
    url: str | URL | AsyncEngine | None,
    *,
    schema: str | None = None,
    read_only: bool = False,
    patience: float = 10.0,
) -> Database:
    """The database behind a URL (`sqlite+aiosqlite:…`, `postgresql+asyncpg:…`) or an engine.

    `patience`: seconds to wait for another process's lock.

    Nothing is connected yet. Raises LedgerUnavailable for a URL of another kind.
    """
    address = address_of(url)
    engine = url if is_engine(url) else None
    del url  # a text may hold a password, and a traceback with locals shows this frame
    kind = address.get_backend_name() if address is not None else None
    if address is not None and kind == "sqlite":
        from secret_ledger.store.sqlite.database import SqliteDatabase

        return SqliteDatabase(
            address, read_only=read_only, patience=patience, of_engine=engine is not None
        )
    if address is not None and kind == "postgresql":
        from secret_ledger.store.postgresql.database import PostgresqlDatabase

        return PostgresqlDatabase(
            address, engine, schema=schema, read_only=read_only, patience=patience
        )
    raise LedgerUnavailable(
        "the database URL is of no kind that the ledger knows",
        hint="use sqlite+aiosqlite:///path/to/file.db or postgresql+asyncpg://user@host/database"
        " (several hosts: postgresql+asyncpg://user@/database?host=one:5432&host=two:5432)",
    )
