"""`SecretLedger.open`: the composition root, where the store, the gate and the read side meet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

from sqlalchemy.engine import URL

from secret_ledger.boot import BootOptions, boot
from secret_ledger.creation import upgrade
from secret_ledger.errors import (
    InvalidKey,
    InvalidValue,
    LedgerError,
    LedgerUnavailable,
    NotALedger,
    WrongLedger,
)
from secret_ledger.findings import OpenLevel, Tally, check_open_level
from secret_ledger.following import snapshot
from secret_ledger.gate import check_pinned, check_state, has_moved, judge
from secret_ledger.key_sources import ledger_schema, parse_ledger_id, pinned_ledger_id
from secret_ledger.keyring import KeyProvider, Keyring, key_source, keyring_of
from secret_ledger.nodes import HEARTBEAT, Identity
from secret_ledger.scrub import SCRUB_RATE, check_rate
from secret_ledger.state import Head
from secret_ledger.store.closing import close
from secret_ledger.store.database import Database, address_of, connect, is_engine
from secret_ledger.store.home import running_loop
from secret_ledger.store.projection import CheckedProjection, InlineProjection
from secret_ledger.store.reads import head_in_use
from secret_ledger.upgrading import seal_facts
from secret_ledger.values import seconds
from secret_ledger.verify import check_projections
from secret_ledger.view import VIEW_BYTES, Bounds, SealedView, WhenStale

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from secret_ledger.secret_ledger import SecretLedger

__all__ = ["DEFAULT", "init_ledger", "machine_warnings", "open_ledger", "upgrade_schema"]


@final
class Default:
    """Stands for `sys_secret`, the projection that a ledger keeps unless told otherwise."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()
SHORTEST: Final = 0.001
"""Seconds between two things that are done again and again."""
Projections = Sequence[InlineProjection] | Default


@asynccontextmanager
async def open_ledger(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    create: bool = True,
    verify: OpenLevel = "latest",
    read_only: bool = False,
    read_moved: bool = False,
    ledger_id: str | bytes | None = None,
    schema: str | None = None,
    node: str | None = None,
    projections: Projections = DEFAULT,
    watch_keys: float | None = None,
    heartbeat: float = HEARTBEAT,
    patience: float = 10.0,
    scrub_rate: float = SCRUB_RATE,
    max_staleness: float | None = None,
    when_stale: WhenStale = "database",
    view_bytes: int = VIEW_BYTES,
) -> AsyncIterator[SecretLedger]:
    """Open a ledger; the boot gate runs here, before anything is written.

    url: `sqlite+aiosqlite:///…`, `postgresql+asyncpg://…`, or a host's own AsyncEngine, which
        is not disposed of (a SQLite engine lends its URL, not its pool).
    keyring: the keys, or a provider of them.
    create: make a ledger where the database holds nothing at all.
    verify: "control", "latest" (every secret's head opens) or "full" (every event, and the
        projections). "incremental": what is new since a verification that was attested, and a
        sample of the rest, which is gone over once the ledger is open, with the outcome in
        `health`; "latest" where nothing is attested yet.
    read_only: announce and write nothing.
    read_moved: with `read_only`, also open a ledger that has moved to another database. It reads
        what was left here, as it was at the hand-over. Otherwise that is LedgerMoved.
    ledger_id: the ledger that this must be; no other is opened, and none is made. The
        setting OS_SECRET_LEDGER_ID does the same.
    schema: PostgreSQL's schema, default OS_SECRET_LEDGER_SCHEMA, else `secret_ledger`.
    node: the name to announce, default the host's.
    projections: kept in the append's own transaction, default `sys_secret`.
    watch_keys: ask the provider for the keys again every so many seconds, and go on with
        what it gives if the gate lets it pass; see `SecretLedger.reload_keys`.
    heartbeat: seconds between two renewals of this node's line; it is live for three of them.
    patience: seconds that a write rides out a database that can't be reached, or is locked.
    scrub_rate: rows a second that are gone over after an incremental boot.
    max_staleness: keep the secrets that are read in memory, still sealed, and answer `get` of
        their latest version from there, where that is proven to have been the latest one at
        most so many seconds before the call. This process's own writes are always seen. 0 is
        always fresh: SQLite tells without a statement whether anybody has written, PostgreSQL
        is asked by a statement, which the reads that are waiting share. None: every read goes
        to the database.
    when_stale: what a read of such a secret does while that can't be proven, because the
        database is out of reach or slow: it reads from the "database" all the same, or is to
        "refuse", with LedgerUnavailable. It is never answered with something older.
    view_bytes: how much memory that may take; what was not read for longest goes first.

    Raises any refusal of the boot gate; see `errors`.
    """
    # The class carries this very function as its `open`.
    from secret_ledger.secret_ledger import SecretLedger

    source = key_source(keyring)
    where = _without_text(url)
    del keyring, url
    running_loop()
    check_open_level(verify)
    if not isinstance(projections, Default):
        projections = _projections(projections)
        _check_distinct(projections)
    check_rate(scrub_rate)
    heartbeat = seconds(heartbeat, "heartbeat", least=SHORTEST)
    patience = seconds(patience, "patience")
    if watch_keys is not None:
        watch_keys = seconds(watch_keys, "watch_keys", least=SHORTEST)
    keys = await keyring_of(source)
    provider = None if isinstance(source, Keyring | InvalidKey) else source
    if watch_keys is not None and provider is None:
        raise InvalidKey(
            "a fixed Keyring can't be watched", hint="open the ledger with EnvKeyProvider()"
        )
    bounds = None if max_staleness is None else Bounds(max_staleness, when_stale, view_bytes)
    pinned = _pinned(ledger_id)
    schema = ledger_schema(schema, os.environ)
    import secret_ledger_projections as read_side

    kept = read_side.default() if isinstance(projections, Default) else projections
    database = connect(where, schema=schema, read_only=read_only, patience=patience)
    try:
        identity = Identity.of(node, heartbeat)
        options = BootOptions(create, verify, read_only, pinned, read_moved=read_moved)
        try:
            booted = await boot(database, keys, identity, options)
        except LedgerError as refusal:
            refusal.add_note(f"refused on node {identity.node} (pid {identity.pid})")
            raise
        view = None
        if bounds is not None:
            view = SealedView(booted.follower, bounds, await database.watch())
        ledger = SecretLedger(
            database,
            booted,
            identity,
            kept,
            audit=read_side.key_history,
            provider=provider,
            level=verify,
            read_only=read_only,
            patience=patience,
            watch_keys=watch_keys,
            scrub_rate=scrub_rate,
            view=view,
        )
        try:
            if not read_only:
                for projection in kept:
                    await projection.catch_up(database)
            if verify == "full":
                await _check_kept(database, kept)
            ledger._start()
            yield ledger
        finally:
            await ledger._close()
    finally:
        await close(database)


def _check_distinct(kept: Sequence[InlineProjection]) -> None:
    """Raises InvalidValue where two projections would share a checkpoint."""
    names = [projection.name for projection in kept]
    for name in names:
        if names.count(name) > 1:
            raise InvalidValue(
                f"two projections are called {name}: they would share one checkpoint",
                hint="give each a name of its own",
            )


async def _fold(database: Database) -> None:
    """Begin the tables that a ledger keeps unless it is told otherwise."""
    import secret_ledger_projections as read_side

    for projection in read_side.default():
        await projection.catch_up(database)


async def _check_kept(database: Database, kept: Sequence[InlineProjection]) -> None:
    """Hold the projections against the log, as far as each is folded. Raises TamperedEvent."""
    while True:
        head = await _in_use(database)
        tally = Tally()
        for each in kept:
            if isinstance(each, CheckedProjection):
                await check_projections(database, head, [each], tally)
        # If another generation was put in use meanwhile, the rows of this one may be purged.
        if not tally.findings or (await _in_use(database)).generation == head.generation:
            break
    tally.report("full", 0.0).raise_if_not_ok()


async def _in_use(database: Database) -> Head:
    head = await database.run(lambda c: head_in_use(c, database), "statement")
    if head is None:
        raise LedgerUnavailable(f"{database.place}: no generation is in use")
    return head


def _without_text(url: str | URL | AsyncEngine) -> URL | AsyncEngine | None:
    """The URL parsed, so that no frame of ours holds its password in a traceback with locals."""
    return url if is_engine(url) else address_of(url)


def _projections(given: object) -> Sequence[InlineProjection]:
    kept: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    for each in kept:
        if isinstance(each, type) or not hasattr(each, "catch_up") or not hasattr(each, "apply"):
            raise InvalidValue(
                f"projections is a list of projections that are kept inline, not of"
                f" {type(each).__name__}",
                hint="[*secret_ledger_projections.default(), Inline(YourProjection())]",
            )
    return kept


def _pinned(given: str | bytes | None) -> bytes | None:
    setting = pinned_ledger_id(os.environ)
    if given is None:
        return setting
    if not isinstance(given, str | bytes):
        raise InvalidKey(
            f"ledger_id is the id as text, or its 16 bytes, not {type(given).__name__}",
            hint="it takes the id that `secret-ledger init` printed",
        )
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
    source = key_source(keyring)
    where = _without_text(url)
    del keyring, url
    running_loop()
    keys = await keyring_of(source)
    database = connect(where, schema=ledger_schema(schema, os.environ))
    try:
        options = BootOptions(
            create=True,
            verify="control",
            read_only=False,
            pinned=_pinned(None),
            beside_other_tables=True,
            announce=False,
        )
        booted = await boot(database, keys, Identity.of(None), options)
        if booted.created:
            await _fold(database)
        return booted.meta.ledger_id.hex(), booted.created
    finally:
        await close(database)


def machine_warnings(url: str | URL | AsyncEngine) -> Sequence[str]:
    """What an operator must know of this machine's database library before several processes
    write the ledger. Nothing is connected."""
    where = address_of(url)
    race = None
    if where is not None and where.get_backend_name() == "sqlite":
        race = connect(where).race
    return () if race is None else (race,)


async def upgrade_schema(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    ledger_id: str | bytes | None = None,
    schema: str | None = None,
) -> list[str]:
    """Bring an older schema up to this release's; returns the names of the applied files.

    The gate's control level passes first. A ledger that begins to seal facts for readers is
    verified whole before. Raises what the gate refuses with, NotALedger, TamperedEvent.
    """
    source = key_source(keyring)
    where = _without_text(url)
    del keyring, url
    running_loop()
    keys = await keyring_of(source)
    pinned = _pinned(ledger_id)
    database = connect(where, schema=ledger_schema(schema, os.environ))
    try:
        state = await snapshot(database, upgrading=True) if database.exists() else None
        if state is None:
            raise NotALedger(f"{database.place} holds no ledger")
        check_pinned(state.meta.ledger_id, pinned)
        control = check_state(state)
        standing = judge(control, keys, moved=has_moved(state))
        if standing.moved and standing.refusal is not None:
            raise standing.refusal
        applied = await upgrade(database)
        if await seal_facts(database, keys) or applied:
            await _fold(database)
        return applied
    finally:
        await close(database)
