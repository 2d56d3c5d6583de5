"""Looking on at what the ledger does with its connections, of either database, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from secret_ledger.store.connection import Connection, Statement
from secret_ledger.store.postgresql.database import PostgresqlConnection
from secret_ledger.store.sqlite.database import SqliteConnection

KINDS: Final = (SqliteConnection, PostgresqlConnection)


@contextmanager
def around(method: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Call `wrapper(original, connection, *arguments)` in place of a method of connections."""
    with ExitStack() as undo:
        for kind in KINDS:
            original = getattr(kind, method, None)
            if original is None:  # SQLite has no scripts
                continue

            def wrapped(connection: Any, *given: Any, _original: Any = original) -> Any:
                return wrapper(_original, connection, *given)

            setattr(kind, method, wrapped)
            undo.callback(setattr, kind, method, original)
        yield


@contextmanager
def before_commits(act: Callable[[Connection], object]) -> Iterator[None]:
    """Call `act` before each commit of a writing transaction."""

    def commit(original: Any, connection: Any) -> Any:
        if connection.mode == "write":
            act(connection)
        return original(connection)

    with around("commit", commit):
        yield


@contextmanager
def each_statement(act: Callable[[str], object]) -> Iterator[None]:
    """Call `act` with the SQL of each statement before it is run; no BEGIN or COMMIT."""

    def execute(original: Any, connection: Any, statement: Any, *given: Any) -> Any:
        sql = statement.sql if isinstance(statement, Statement) else str(statement)
        act(" ".join(sql.split()))
        return original(connection, statement, *given)

    with around("execute", execute), around("script", execute):
        yield
