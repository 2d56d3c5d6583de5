"""`SecretLedger.open`: the composition root, where the store, the gate and the read side meet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.append import InlineProjection
from ledger.boot import BootOptions, boot
from ledger.creation import upgrade
from ledger.errors import NotALedger, WrongLedger
from ledger.findings import Level
from ledger.following import snapshot
from ledger.gate import check_not_moved, check_pinned, check_state, judge
from ledger.key_sources import parse_ledger_id, pinned_ledger_id
from ledger.keys import KeyProvider, Keyring
from ledger.nodes import Identity
from ledger.store.closing import close
from ledger.store.database import address_of, connect

if TYPE_CHECKING:
    from ledger.secret_ledger import SecretLedger

__all__ = ["DEFAULT", "init_ledger", "open_ledger", "upgrade_schema"]


@final
class Default:
    """Stands for `sys_secret`, the projection that a ledger keeps unless told otherwise."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()
Projections = Sequence[InlineProjection] | Default


@asynccontextmanager
async def open_ledger(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    create: bool = True,
    verify: Level = "latest",
    read_only: bool = False,
    ledger_id: str | bytes | None = None,
    schema: str | None = None,
    node: str | None = None,
    projections: Projections = DEFAULT,
    patience: float = 10.0,
) -> AsyncIterator[SecretLedger]:
    """Open a ledger; the boot gate runs here, before anything is written.

    url: `sqlite+aiosqlite:///…`, `postgresql+asyncpg://…`, or a host's own AsyncEngine, which
        is not disposed of (a SQLite engine lends its URL, not its pool).
    keyring: the keys, or a provider of them.
    create: make a ledger where the database holds nothing at all.
    verify: "control", "latest" (every secret's head opens) or "full" (every event).
    read_only: announce and write nothing.
    ledger_id: the ledger that this must be; no other is opened, and none is made. The
        setting OS_SECRET_LEDGER_ID does the same.
    schema: PostgreSQL's schema, default `secret_ledger`.
    node: the name to announce, default the host's.
    projections: kept in the append's own transaction, default `sys_secret`.
    patience: seconds that a write rides out a database that can't be reached, or is locked.

    Raises any refusal of the boot gate; see `ledger.errors`.
    """
    # The class carries this very function as its `open`.
    from ledger.secret_ledger import SecretLedger

    where = _without_text(url)
    del url
    if not isinstance(keyring, Keyring):
        keyring = await keyring.keyring()
    pinned = _pinned(ledger_id)
    database = connect(where, schema=schema, read_only=read_only, patience=patience)
    try:
        identity = Identity.of(node)
        options = BootOptions(create, verify, read_only, pinned)
        booted = await boot(database, keyring, identity, options)
        kept: Sequence[InlineProjection]
        if isinstance(projections, Default):
            import projections as read_side

            kept = read_side.default()
        else:
            kept = tuple(projections)
        ledger = SecretLedger(
            database, booted, identity, kept, read_only=read_only, patience=patience
        )
        try:
            if not read_only:
                for projection in kept:
                    await projection.catch_up(database)
            ledger._start()
            yield ledger
        finally:
            await ledger._close()
    finally:
        await close(database)


def _without_text(url: str | URL | AsyncEngine) -> URL | AsyncEngine | None:
    """The URL parsed, so that no frame of ours holds its password in a traceback with locals."""
    return url if isinstance(url, AsyncEngine) else address_of(url)


def _pinned(given: str | bytes | None) -> bytes | None:
    setting = pinned_ledger_id(os.environ)
    if given is None:
        return setting
    pinned = parse_ledger_id(given) if isinstance(given, str) else given
    if setting is not None and setting != pinned:
        raise WrongLedger(
            f"the caller pins ledger {pinned.hex()}, OS_SECRET_LEDGER_ID {setting.hex()}",
            hint="make the two agree, or unset one",
        )
    return pinned


async def init_ledger(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    schema: str | None = None,
) -> tuple[str, bool]:
    """Make a ledger, also in a SQLite file that holds an application's own tables.

    Returns its id (32 hex digits) and whether it was made now; where there is one already,
    its gate is passed and nothing is changed. Raises what `open` raises.
    """
    where = _without_text(url)
    del url
    if not isinstance(keyring, Keyring):
        keyring = await keyring.keyring()
    database = connect(where, schema=schema)
    try:
        options = BootOptions(
            create=True,
            verify="control",
            read_only=False,
            pinned=_pinned(None),
            beside_other_tables=True,
            announce=False,
        )
        booted = await boot(database, keyring, Identity.of(None), options)
        return booted.meta.ledger_id.hex(), booted.created
    finally:
        await close(database)


async def upgrade_schema(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    ledger_id: str | bytes | None = None,
    schema: str | None = None,
) -> list[str]:
    """Bring an older schema up to this release's; returns the names of the applied files.

    The gate's control level passes first. Raises what it refuses with, or NotALedger.
    """
    where = _without_text(url)
    del url
    if not isinstance(keyring, Keyring):
        keyring = await keyring.keyring()
    pinned = _pinned(ledger_id)
    database = connect(where, schema=schema)
    try:
        state = await snapshot(database, upgrading=True) if database.exists() else None
        if state is None:
            raise NotALedger(f"{database.place} holds no ledger")
        check_pinned(state.meta.ledger_id, pinned)
        control = check_state(state)
        check_not_moved(state, read_only=False)
        judge(control, keyring)
        return await upgrade(database)
    finally:
        await close(database)
