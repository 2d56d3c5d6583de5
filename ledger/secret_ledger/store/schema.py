"""The schema: numbered SQL files per dialect beside a version number.

A file is applied once, in order, in the transaction that also writes the new version.
A fresh ledger is made by applying them all, so both ways give the same schema.
"""

from __future__ import annotations

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
"""The format that this release writes and reads: 2 seals facts for readers."""

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
"""Views too."""
OUR_VIEWS: Final = frozenset({"sys_secret"})


@cache
def steps(dialect: str) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """The numbered files of a dialect: number, name, statements."""
    folder = files(f"secret_ledger.store.{dialect}") / "sql"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql") and file.name[:4].isdigit():
            script = file.read_text(encoding="utf-8")
            found.append((int(file.name[:4]), file.name, _statements(script)))
    return tuple(sorted(found))


GUARDS: Final = "guards.sql"
"""Run behind the numbered files, and again to put back what it makes."""


@cache
def guards(dialect: str) -> tuple[str, ...]:
    """The statements that put the append-only triggers in place, however often they are run."""
    file = files(f"secret_ledger.store.{dialect}") / "sql" / GUARDS
    return _statements(file.read_text(encoding="utf-8"))


def _statements(script: str) -> tuple[str, ...]:
    """The statements of a script, which an empty line separates (bodies hold none)."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return tuple(part.strip() for part in code.split("\n\n") if part.strip())


SCHEMA_VERSION: Final = max(number for number, _, _ in steps("sqlite"))


def read_meta(connection: Connection, database: Database) -> Meta | None:
    """Which ledger lies here. None where none of our tables exist.

    Raises NotALedger where tables of our names belong to somebody else, TamperedEvent where
    the row that says which ledger it is has gone.
    """
    ours = database.tables(connection) & OUR_TABLES
    if not ours:
        return None
    if not {"ledger_meta", "ledger_head", "ledger_key", "secret_event"} <= ours:
        raise NotALedger(
            f"{database.place} has tables named like ours ({', '.join(sorted(ours))}), but holds"
            " no ledger",
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
    """Raises SchemaTooNew or, unless `upgrading`, SchemaOutdated, with the command to run."""
    if meta.format > FORMAT or meta.schema_version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the ledger has schema {meta.schema_version} and event format {meta.format}; this"
            f" release reads up to {SCHEMA_VERSION} and {FORMAT}",
            hint="run the release that wrote it, or a newer one; nothing was changed",
        )
    if meta.format < 1 or meta.schema_version < 1:
        raise TamperedEvent("ledger_meta names a schema or format that never was")
    if (meta.schema_version < SCHEMA_VERSION or meta.format < FORMAT) and not upgrading:
        raise SchemaOutdated(
            f"the ledger has schema {meta.schema_version} and event format {meta.format}; this"
            f" release needs {SCHEMA_VERSION} and {FORMAT}",
            hint="back up the database, then run: secret-ledger schema upgrade",
        )


def apply(
    connection: Connection, database: Database, *, after: int, upto: int = SCHEMA_VERSION
) -> list[str]:
    """Run the numbered files above `after`; the caller's transaction holds them all."""
    prefix = database.statements.prefix
    done = []
    for number, name, statements in steps(database.name):
        if after < number <= upto:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("{s}", prefix))
            done.append(name)
    if done and upto >= SCHEMA_VERSION:
        put_guards(connection, database)
    return done


def put_guards(connection: Connection, database: Database) -> None:
    """Put the append-only triggers in place, whatever became of them."""
    for statement in guards(database.name):
        connection.exec_driver_sql(statement.replace("{s}", database.statements.prefix))


def remove(connection: Connection, database: Database) -> None:
    """Take all of it out again, whatever lies in it; the caller has made sure of that."""
    script = files(f"secret_ledger.store.{database.name}") / "sql" / "remove.sql"
    for statement in _statements(script.read_text(encoding="utf-8")):
        connection.exec_driver_sql(statement.replace("{s}", database.statements.prefix))
