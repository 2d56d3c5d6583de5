"""Looks into a ledger without a key, for an operator in front of a crash-looping fleet.

All that is shown is unverified: the rows are read as they stand, and no seal is opened.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from secret_ledger.config.environment import ledger_schema
from secret_ledger.errors import MigrationInProgress, NotALedger, TamperedEvent
from secret_ledger.generations.purge import GenerationInfo, list_generations
from secret_ledger.model.names import normalise_name
from secret_ledger.model.rows import State
from secret_ledger.model.versions import SecretInfo
from secret_ledger.nodes.health import KeyStatus, key_status
from secret_ledger.nodes.registry import NodeInfo, list_nodes
from secret_ledger.read.listing import list_history, list_secrets
from secret_ledger.rules.gate import Standing, check_not_moved, check_state, has_moved, moved_place
from secret_ledger.session.following import snapshot
from secret_ledger.store.address import address_of, connect, is_engine
from secret_ledger.store.closing import close
from secret_ledger.store.database import Database
from secret_ledger.store.loop_guard import running_loop

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["UnverifiedLedger", "open_unverified"]


class UnverifiedLedger:
    """The part of a ledger that needs no key."""

    def __init__(self, database: Database, state: State) -> None:
        self._database = database
        self._state = state

    @property
    def ledger_id(self) -> str:
        """The ledger's id as the database states it: 32 hex digits."""
        return self._state.meta.ledger_id.hex()

    @property
    def moved_to(self) -> str | None:
        """Address of the database that the ledger has moved to, as the rows said last.

        None if the ledger has not moved.
        """
        return moved_place(self._state.control) if has_moved(self._state) else None

    @property
    def database(self) -> Database:
        """The database that holds the ledger."""
        return self._database

    def list(self, prefix: str = "", deleted: bool = False) -> AsyncIterator[SecretInfo]:
        """As `SecretLedger.list`."""
        return list_secrets(self._database, prefix, deleted=deleted)

    def history(self, name: str) -> AsyncIterator[SecretInfo]:
        """As `SecretLedger.history`."""
        return list_history(self._database, normalise_name(name))

    async def nodes(self) -> Sequence[NodeInfo]:
        """As `SecretLedger.nodes`. `differs` goes by an active key that no seal proves.

        If the control stream is damaged, no node `differs`.
        """
        try:
            active = check_state(await self._fresh()).active.fingerprint
        except (TamperedEvent, MigrationInProgress):
            active = None
        return await self._database.run(
            lambda c: list_nodes(c, self._database, active), "statement"
        )

    async def generations(self) -> Sequence[GenerationInfo]:
        """As `SecretLedger.generations`. The control stream's hashes are checked.

        Raises TamperedEvent if they are damaged.
        """
        return await list_generations(self._database, check_state(self._state))

    async def key_status(self) -> Sequence[KeyStatus]:
        """As `SecretLedger.key_status`. The control stream's hashes are checked, but not its seals.

        Raises TamperedEvent if the hashes are damaged.
        """
        state = await self._fresh()
        return key_status(Standing(check_state(state)), state.in_use[0])

    async def _fresh(self) -> State:
        state = await snapshot(self._database)
        if state is None:
            raise NotALedger(f"{self._database.place} holds no ledger any more")
        self._state = state
        return state


@asynccontextmanager
async def open_unverified(
    url: str | URL | AsyncEngine, *, schema: str | None = None, read_moved: bool = False
) -> AsyncIterator[UnverifiedLedger]:
    """Open a ledger read-only and without a key.

    read_moved: also open a ledger whose rows say that it has moved to another database.

    Raises NotALedger, SchemaOutdated, SchemaTooNew, LedgerUnavailable, LedgerMoved.
    """
    running_loop()
    where = url if is_engine(url) else address_of(url)
    del url  # a text may hold a password, and a traceback with locals shows this frame
    database = connect(where, schema=ledger_schema(schema, os.environ), read_only=True)
    try:
        state = await snapshot(database) if database.exists() else None
        if state is None:
            raise NotALedger(f"{database.place} holds no ledger", hint="check the database URL")
        if not read_moved:
            check_not_moved(state)
        yield UnverifiedLedger(database, state)
    finally:
        await close(database)
