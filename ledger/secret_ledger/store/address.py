"""From a URL, or a host's engine, to the database that it names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.store.database import Database
from secret_ledger.store.sqlite.url import read_text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["address_of", "connect", "is_engine"]


def is_engine(url: object) -> TypeGuard[AsyncEngine]:
    """Whether `url` is a host's engine.

    A host with an engine has imported `sqlalchemy.ext.asyncio`, so the slow import is not needed.
    """
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(url, module.AsyncEngine)


def address_of(url: object) -> URL | None:
    """The parsed URL, whose repr hides its password. None if `url` is no URL; never raises."""
    try:
        address = url.url if is_engine(url) else make_url(url)  # type: ignore[arg-type]
    except (ArgumentError, ValueError):  # ValueError: its port is no number
        return None
    # Drivers take the password from the query too, but a URL's repr shows the query.
    password = address.query.get("password")
    if isinstance(password, str):
        address = address.difference_update_query(["password"]).set(password=password)
    if "sslpassword" in address.query:  # a URL has no place for it: refused by name
        address = address.update_query_dict({"sslpassword": "***"})
    if isinstance(url, str):
        # SQLAlchemy ignores `sslmode=`. But it may be a failed substitution, which is not "unset".
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

    Nothing is connected yet. Raises LedgerUnavailable if the URL is of another kind.
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
        "the ledger does not know this kind of database URL",
        hint="use sqlite+aiosqlite:///path/to/file.db or postgresql+asyncpg://user@host/database"
        " (several hosts: postgresql+asyncpg://user@/database?host=one:5432&host=two:5432)",
    )
