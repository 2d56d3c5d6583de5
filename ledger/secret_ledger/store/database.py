"""The seam between the ledger and a database: a unit of work, run whole.

A *unit* is a plain function over a `Connection`. It runs in one transaction. On SQLite it runs in
one hop to a dedicated thread, because an await costs more than a statement. On PostgreSQL it runs
on the event loop, through SQLAlchemy's greenlet bridge. So both have one code path, and a
transaction awaits nothing but the database. Differences lie only in the two dialects' folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from sqlalchemy.engine import Dialect

from secret_ledger.model.events import Event
from secret_ledger.model.rows import LogHead
from secret_ledger.store.connection import Connection, Mode
from secret_ledger.store.loop_guard import Home

if TYPE_CHECKING:
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
]

T = TypeVar("T")

Facts = Mapping[tuple[str, str], str]
"""The state of each object of a schema, by its kind and name."""


class LockedHead(NamedTuple):
    """The active head row, locked until commit, and the facts that an append needs."""

    head: LogHead
    now: int
    """Time of the next event, in microseconds since 1970.

    It is the time of `Database.clock`, and never before the time of the head row.
    """
    newest: Iterator[Event]
    """The newest event of each stream that was asked for.

    A large value is fetched when the iterator reaches its event.
    """
    control: object
    """The newest version of the control stream, as the lock's last holder left it."""


class Folded(NamedTuple):
    """Rows of a projection, which may be written in the statement that adds events.

    The checkpoint moves along with the head row. The rows are written only if it moved.
    """

    projection: str
    upserts: Sequence[tuple[Statement, Sequence[Sequence[Any]]]]
    """Statements with their rows. The values of a row are in order of the statement's `names`."""


class Replica(NamedTuple):
    """How far a standby is behind its primary."""

    lag_seconds: float
    """Seconds that the standby's rows may be old.

    If it is connected to its primary and shows all that it received, 0; else the time since the
    last commit that it shows.
    """
    receiving: bool
    """Whether the standby is connected to its primary."""


class Surroundings(NamedTuple):
    """The state of a database's files, as the operating system tells it. Empty for a server."""

    hindrances: Sequence[str] = ()
    """Reasons why nothing can be written now."""
    dangers: Sequence[str] = ()
    """Warnings about a danger that writes are lost later."""


class Database(Protocol):
    """A ledger's database, as each dialect implements it.

    An error of the driver is raised as LedgerUnavailable, TamperedEvent or NotALedger, without the
    driver's own message.
    """

    schema: str | None
    """The name of PostgreSQL's schema; None on SQLite."""
    read_only: bool
    patience: float
    """Seconds to wait for a lock, or for a database that can't be reached."""
    statements: Statements
    home: Home
    """The only event loop and process that may use the database."""
    on_connection: Callable[[Connection], None] | None
    """Called before each unit, in its transaction. If it raises, the unit ends.

    A connection may lead to another server than before. SQLite has no server, and never calls it.
    """

    @property
    def name(self) -> Literal["sqlite", "postgresql"]:
        """The name of the dialect."""
        ...

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect, which compiles clauses for this database."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether the database lies in memory: then it is gone when it is closed."""
        ...

    @property
    def place(self) -> str:
        """The database's address, without a password."""
        ...

    @property
    def address(self) -> str:
        """`place` in a form to keep or show elsewhere: without a user, with the full path."""
        ...

    async def run(
        self, unit: Callable[[Connection], T], mode: Mode, *, wait: float | None = None
    ) -> T:
        """Run `unit` in one transaction of `mode`; commit if it returns.

        `wait`: seconds that a `write` waits for the lock of another transaction; by default
        `patience`.
        """
        ...

    async def watch(self) -> Callable[[], int | None] | None:
        """Returns a function that tells whether anybody has committed.

        It takes microseconds, and runs on the caller's own thread. It returns a number that stays
        the same until somebody commits, or None if it can't tell now. It raises LedgerUnavailable
        if the database's file is not the file that was opened. If only a trip to the database can
        tell, `watch` returns None.
        """
        ...

    async def close(self) -> None:
        """Close all connections that the ledger opened. A host's own engine is left alone."""
        ...

    def exists(self) -> bool:
        """Whether a connection is possible: False if SQLite's file does not exist yet."""
        ...

    def tables(self, connection: Connection, schema: str | None = None) -> frozenset[str]:
        """The names of all tables and views in our schema (SQLite: in the file), or in `schema`.

        Raises TamperedEvent if SQLite has something else in the place of a table of ours.
        """
        ...

    def begin_creation(self, connection: Connection) -> None:
        """Make room for a new ledger, in the transaction that makes it."""
        ...

    async def prepare_creation(self, *, beside_other_tables: bool) -> bool:
        """Prepare the database, before the transaction that creates a ledger.

        Returns False if other tables are in the way, unless `beside_other_tables`.
        """
        ...

    async def settle(self) -> None:
        """Bring all of a new ledger into the database's own file.

        Else somebody who finds a copy of that file alone takes it for an empty database.
        """
        ...

    def check_settings(self, connection: Connection) -> tuple[str, ...]:
        """Read back the settings that durability rests on. Returns warnings.

        Raises LedgerUnavailable if a setting is wrong, and NotALedger if the encoding is not UTF-8.
        """
        ...

    @property
    def race(self) -> str | None:
        """A warning if the database can be damaged when several processes write it; else None."""
        ...

    def surroundings(self) -> Surroundings:
        """Look at the database's files, which may block. Returns an empty answer for a server."""
        ...

    def facts(self, connection: Connection) -> Facts:
        """Our schema as the database's own catalogue describes it, read in one statement."""
        ...

    def made(self) -> Facts:
        """The facts about a schema that is as the numbered files make it."""
        ...

    def lock_head(
        self,
        connection: Connection,
        generation: int,
        epoch: int,
        streams: Sequence[str] = (),
    ) -> LockedHead | None:
        """Lock the active head row, and read the newest event of each of `streams`.

        All is read as the lock's last holder left it. Returns None if the head row is not active
        or has another epoch.
        """
        ...

    def lock_generation(self, connection: Connection, generation: int) -> LogHead | None:
        """Lock a generation's head row in whatever state; None if the generation has none."""
        ...

    def run_deferred(self, connection: Connection) -> None:
        """Run the deferred triggers now, before the commit: they may change rows."""
        ...

    def extend(
        self,
        connection: Connection,
        before: LogHead,
        after: LogHead,
        events: Sequence[Event],
        folded: Folded | None = None,
    ) -> tuple[bool, bool]:
        """Add events behind the locked head row, and move it from `before` to `after`.

        Returns whether the head row was still at `before`, and whether `folded` was written in the
        same trip. Raises LedgerUnavailable if the database stored another number of events.
        """
        ...

    def insert_events(self, connection: Connection, events: Sequence[Event]) -> None:
        """Add events to the log, in one statement if the driver can.

        Raises LedgerUnavailable if the database stored another number of events.
        """
        ...

    def heads_of(
        self, connection: Connection, generation: int, streams: Sequence[str]
    ) -> Iterator[Event]:
        """The newest event of each of these streams; a stream without events is left out.

        A large value is fetched when the iterator reaches its event.
        """
        ...

    def hashes_of(
        self, connection: Connection, generation: int, versions: Mapping[str, int]
    ) -> dict[str, bytes]:
        """The hash of one version of each stream; a version that does not exist is left out."""
        ...

    def names(self, values: Sequence[str]) -> Any:
        """The parameter `:names` of a statement that asks for these texts (`Statements.among`)."""
        ...

    def text(self, value: str) -> str | bytes:
        """A stored text as a parameter, even if it is damaged and no valid UTF-8."""
        ...

    def clock(self, connection: Connection) -> int:
        """The server's clock, or on SQLite this machine's, in microseconds since 1970."""
        ...

    def replica(self, connection: Connection) -> Replica | None:
        """How far the server is behind if it is a standby; else None, as on SQLite."""
        ...
