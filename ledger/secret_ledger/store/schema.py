"""The schema: numbered SQL files of each dialect, and a version number.

Each file is applied once, in order, in the transaction that also writes the new version number.
A new ledger applies all files. So creation and upgrade give the same schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from secret_ledger.errors import NotALedger, SchemaOutdated, SchemaTooNew, TamperedEvent
from secret_ledger.model.rows import Meta
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database

__all__ = [
    "FORMAT",
    "GUARDS",
    "OUR_TABLES",
    "OUR_VIEWS",
    "SCHEMA_VERSION",
    "apply",
    "check_version",
    "guards",
    "put_guards",
    "read_meta",
    "remove",
]

FORMAT: Final = 2
"""The event format that this release writes and reads. Format 2 seals facts for readers."""

OUR_TABLES: Final = frozenset(
    {
        "ledger_meta",
        "ledger_head",
        "ledger_key",
        "secret_event",
        "ledger_node",
        "ledger_move",
        "ledger_attestation",
        "ledger_wrap",
        "secret_current",
        "projection_checkpoint",
        "sys_secret",
    }
)
"""Names of our tables and views."""
OUR_VIEWS: Final = frozenset({"sys_secret"})


@cache
def steps(dialect: str) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """The numbered files of a dialect, in order: number, name and statements of each."""
    folder = files(f"secret_ledger.store.{dialect}") / "sql"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql") and file.name[:4].isdigit():
            script = file.read_text(encoding="utf-8")
            found.append((int(file.name[:4]), file.name, _statements(script)))
    return tuple(sorted(found))


GUARDS: Final = "guards.sql"
"""The file of the append-only triggers. It runs after the numbered files, or to restore them."""


@cache
def guards(dialect: str) -> tuple[str, ...]:
    """The statements that make the append-only triggers. They may run any number of times."""
    file = files(f"secret_ledger.store.{dialect}") / "sql" / GUARDS
    return _statements(file.read_text(encoding="utf-8"))


def _statements(script: str) -> tuple[str, ...]:
    """Empty lines separate statements: no body of a function or trigger holds an empty line."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return tuple(part.strip() for part in code.split("\n\n") if part.strip())


SCHEMA_VERSION: Final = max(number for number, _, _ in steps("sqlite"))


def read_meta(connection: Connection, database: Database) -> Meta | None:
    """Which ledger lies here; None if none of our tables exists.

    Raises NotALedger if tables of our names belong to somebody else. Raises TamperedEvent if
    `ledger_meta` does not hold exactly one row, or if the row is damaged.
    """
    ours = database.tables(connection) & OUR_TABLES
    if not ours:
        return None
    if not {"ledger_meta", "ledger_head", "ledger_key", "secret_event"} <= ours:
        raise NotALedger(
            f"{database.place} has tables named like the ledger's own ({', '.join(sorted(ours))}),"
            " but holds no ledger",
            hint="use a database, or on PostgreSQL a schema, of its own",
        )
    rows = connection.execute(database.statements.meta).all()
    if len(rows) != 1:
        raise TamperedEvent(
            f"{database.place}: ledger_meta does not say which ledger this is",
            hint="restore the database from a backup",
        )
    return Meta.of_row(rows[0])


def check_version(meta: Meta, *, upgrading: bool = False) -> None:
    """Raises SchemaTooNew if a newer release wrote the schema or the events.

    Unless `upgrading`, raises SchemaOutdated, with the command to run, if an older release did.
    Raises TamperedEvent if a number is below 1.
    """
    if meta.format > FORMAT or meta.schema_version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the ledger has schema {meta.schema_version} and event format {meta.format}; this"
            f" release reads up to {SCHEMA_VERSION} and {FORMAT}",
            hint="run the release that wrote it, or a newer one; nothing was changed",
        )
    if meta.format < 1 or meta.schema_version < 1:
        raise TamperedEvent("ledger_meta names a schema or format that never existed")
    if (meta.schema_version < SCHEMA_VERSION or meta.format < FORMAT) and not upgrading:
        raise SchemaOutdated(
            f"the ledger has schema {meta.schema_version} and event format {meta.format}; this"
            f" release needs {SCHEMA_VERSION} and {FORMAT}",
            hint="back up the database, then run: secret-ledger schema upgrade",
        )


def apply(
    connection: Connection, database: Database, *, after: int, upto: int = SCHEMA_VERSION
) -> list[str]:
    """Run the numbered files above `after` up to `upto`, all in the caller's transaction.

    If the newest file runs, the guards run too. Returns the names of the numbered files that ran.
    """
    done = []
    for number, name, statements in steps(database.name):
        if after < number <= upto:
            _run(connection, database, statements)
            done.append(name)
    if done and upto >= SCHEMA_VERSION:
        put_guards(connection, database)
    return done


def put_guards(connection: Connection, database: Database) -> None:
    """Make the append-only triggers again, in whatever state they are."""
    _run(connection, database, guards(database.name))


def _run(connection: Connection, database: Database, statements: Sequence[str]) -> None:
    prefix = database.statements.prefix
    connection.run_all([statement.replace("{s}", prefix) for statement in statements])


def remove(connection: Connection, database: Database) -> None:
    """Drop all our tables with all rows. The caller must be sure that nobody needs them."""
    script = files(f"secret_ledger.store.{database.name}") / "sql" / "remove.sql"
    _run(connection, database, _statements(script.read_text(encoding="utf-8")))
