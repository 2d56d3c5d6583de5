"""Opening a connection to PostgreSQL, or to a pooler before it, and why that can fail.

A pooler in transaction mode gives each transaction whatever server connection is free, so
nothing may outlive one there, a named prepared statement least of all. asyncpg prepares
everything; without a name and without its statement cache it sends a statement's text along
with its parameters. SQLAlchemy keeps what it learnt of a statement's types either way, so the
price is that the server parses and plans anew, not another journey over the wire.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.store.postgresql.url import Dialling, Pooler

__all__ = ["Dialler", "explain", "replace_closed_connections"]

Connect = Callable[..., Awaitable[Any]]
CACHE: Final = "statement_cache_size"


class Dialler:
    """Opens connections for an engine, and finds out whether a pooler stands in between."""

    def __init__(self, dialling: Dialling, connect: Connect = asyncpg.connect) -> None:
        self._connect = connect
        self._arguments = dialling.arguments
        self._pooler: Pooler | None = dialling.pooler
        if dialling.arguments.get(CACHE) == 0:
            self._pooler = "transaction"  # nobody turns it off for any other reason

    def statement_name(self) -> str | None:
        """A name for the next prepared statement: none at all, or None for asyncpg's choice."""
        return "" if self._pooler == "transaction" else None

    async def __call__(self, **arguments: Any) -> asyncpg.Connection:
        """A new connection; `arguments` are SQLAlchemy's, from the URL."""
        arguments |= self._arguments
        if self._pooler == "transaction":
            return await self._connect(**{CACHE: 0, **arguments})
        connection = await self._connect(**arguments)
        if self._pooler is None and await _is_pooled(connection):
            self._pooler = "transaction"
            await connection.close()
            return await self._connect(**{CACHE: 0, **arguments})
        return connection


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether the server that answers is another than the one that was greeted.

    A pooler hands out cancellation keys of its own in place of the server's process id. Asked
    in one transaction and without a name, so that nothing is left behind in the pool. A pooler
    in session mode is told no different: there it costs some parsing, and is right all the same.
    """
    try:
        async with connection.transaction():
            statement = await connection.prepare("SELECT pg_catalog.pg_backend_pid()", name="")
            return bool(await statement.fetchval() != connection.get_server_pid())
    except BaseException:
        connection.terminate()
        raise


def replace_closed_connections(engine: AsyncEngine) -> Callable[[dict[Any, Any]], None]:
    """Let the pool of `engine` hand out no connection whose end is known already.

    A restarted server or pooler, or an idle session's timeout, closes connections that rest in
    the pool; asyncpg has noticed, so looking costs nothing. What is returned is told of a
    connection that was lost in use, by its info: those that were made before it are likely to
    be gone too, and are replaced.
    """
    losses = 0

    @event.listens_for(engine.sync_engine, "connect")
    def note(adapted: Any, record: Any) -> None:
        record.info[replace_closed_connections] = losses

    @event.listens_for(engine.sync_engine, "checkout")
    def look(adapted: Any, record: Any, proxy: object) -> None:
        made_after = record.info.get(replace_closed_connections)
        if adapted.driver_connection.is_closed() or made_after != losses:
            raise exc.DisconnectionError

    def lost_one(info: dict[Any, Any]) -> None:
        nonlocal losses
        if info.get(replace_closed_connections) == losses:
            losses += 1

    return lost_one


def explain(cause: BaseException, place: str, files: Mapping[str, str]) -> LedgerUnavailable | None:
    """Why a connection could not be set up, where it is TLS or a parameter; None otherwise."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return LedgerUnavailable(
            f"{place}: the server's certificate is not accepted ({cause.verify_message})",
            hint="sslrootcert names the certificate of the authority that signed it (system: the"
            " machine's own list); with sslmode=verify-full the URL's host must be a name of it",
        )
    if isinstance(cause, ssl.SSLError):
        return LedgerUnavailable(
            f"{place}: TLS can't be set up ({cause.reason or 'no reason given'})",
            hint="check the files that sslrootcert, sslcert and sslkey name, and which versions"
            " of TLS the server speaks",
        )
    if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in str(cause):
        return LedgerUnavailable(
            f"{place}: the URL demands TLS, and the server offers none",
            hint="turn ssl on at the server; without it passwords and sealed values cross the"
            " network in the open",
        )
    unreadable = [name for name, path in files.items() if not os.access(path, os.R_OK)]
    if isinstance(cause, OSError) and unreadable:
        return LedgerUnavailable(
            f"{place}: the file that {unreadable[0]} names can't be read",
            hint="give its absolute path, and let this process read it",
        )
    if isinstance(cause, asyncpg.exceptions.ClientConfigurationError):
        # It quotes modes and paths, and no password.
        return LedgerUnavailable(f"{place}: the URL can't be used: {cause.args[0]}", hint="")
    return None
