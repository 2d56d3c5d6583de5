"""Opens a connection to PostgreSQL, or to a pooler before it, and explains a failure.

A pooler in transaction mode gives each transaction any free connection of the server. So nothing
may outlive a transaction, least of all a named prepared statement. asyncpg prepares everything.
Without a name and without its statement cache, it sends a statement's text with the parameters.
`PostgresqlConnection` remembers the types of a statement in any case. So the server parses and
plans the statement again, but no further trip is needed.
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
            self._pooler = "transaction"  # nobody turns its cache off for another reason

    def statement_name(self) -> str | None:
        """The name of the next prepared statement: empty for none, None if asyncpg shall choose."""
        return "" if self._pooler == "transaction" else None

    async def __call__(self, **arguments: Any) -> asyncpg.Connection:
        """Opens a connection. `arguments`: the arguments that SQLAlchemy takes from the URL."""
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
    """Whether another server answers than the server that accepted the connection.

    A pooler gives cancellation keys of its own in place of the server's process id. The query
    runs in one transaction and without a name, so that nothing stays in the pool. A pooler in
    session mode looks the same: that costs some parsing, and does no harm.
    """
    try:
        async with connection.transaction():
            statement = await connection.prepare("SELECT pg_catalog.pg_backend_pid()", name="")
            return bool(await statement.fetchval() != connection.get_server_pid())
    except BaseException:
        connection.terminate()
        raise


def replace_closed_connections(engine: AsyncEngine) -> Callable[[dict[Any, Any]], None]:
    """Let the pool of `engine` replace each connection that is known to be closed.

    A restarted server or pooler, or an idle session's timeout, closes connections that rest in
    the pool. asyncpg notices that, so a check costs nothing. Returns a function that takes the
    `info` of a connection that was lost in use. Connections that were made before that loss are
    likely to be gone too, so the pool replaces them.
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
    """Returns the reason of a failed connection if it is TLS or a parameter; else None."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return LedgerUnavailable(
            f"{place}: the server's certificate is not accepted ({cause.verify_message})",
            hint="set sslrootcert to the certificate of the authority that signed the server's"
            " certificate (system: the machine's own list); with sslmode=verify-full, that"
            " certificate must name the URL's host",
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
        # The message quotes modes and paths, and no password.
        return LedgerUnavailable(f"{place}: the URL can't be used: {cause.args[0]}", hint="")
    return None
