"""`SecretLedger.open`: the composition root, where the store, the gate and the read side meet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sqlalchemy.engine import URL

from secret_ledger.boot.boot import Booted, BootOptions, boot
from secret_ledger.boot.creation import upgrade
from secret_ledger.boot.upgrading import seal_facts
from secret_ledger.config.environment import ledger_schema, parse_ledger_id, pinned_ledger_id
from secret_ledger.config.keyring import KeyProvider, Keyring, key_source, keyring_of
from secret_ledger.errors import (
    InvalidKey,
    InvalidValue,
    LedgerError,
    LedgerUnavailable,
    NotALedger,
    WrongLedger,
)
from secret_ledger.inputs import seconds
from secret_ledger.model.rows import LogHead
from secret_ledger.nodes.registry import NodeInfo
from secret_ledger.read.view import Bounds, SealedView, WhenStale
from secret_ledger.rules.findings import OpenLevel, Tally, check_open_level
from secret_ledger.rules.gate import check_pinned, check_state, has_moved, judge_keys
from secret_ledger.rules.key_record import KeyRecord
from secret_ledger.session.following import snapshot
from secret_ledger.session.opened import Identity
from secret_ledger.store.address import address_of, connect, is_engine
from secret_ledger.store.closing import close
from secret_ledger.store.database import Database
from secret_ledger.store.loop_guard import running_loop
from secret_ledger.store.projection import CheckedProjection, InlineProjection
from secret_ledger.store.reads import head_in_use
from secret_ledger.verify.scrub import check_rate
from secret_ledger.verify.verify import check_projections

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "DEFAULT",
    "Options",
    "Parts",
    "Projections",
    "catch_up",
    "init_ledger",
    "machine_warnings",
    "opened",
    "upgrade_schema",
    "without_text",
]


@final
class Default:
    """Stands for `sys_secret`, the projection that a ledger keeps unless told otherwise."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()
SHORTEST: Final = 0.001
"""Seconds that an interval has at least: between heartbeats, or between looks for keys."""
Projections = Sequence[InlineProjection] | Default
Audit = Callable[[Database, bytes, Sequence[NodeInfo]], Awaitable[Sequence[KeyRecord]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that an open ledger is made of."""

    database: Database
    booted: Booted
    identity: Identity
    projections: Sequence[InlineProjection]
    audit: Audit
    provider: KeyProvider | None
    level: OpenLevel
    read_only: bool
    patience: float
    watch_keys: float | None
    scrub_rate: float
    view: SealedView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parameters of `SecretLedger.open`, except the URL and the keys."""

    create: bool
    verify: OpenLevel
    read_only: bool
    read_moved: bool
    ledger_id: str | bytes | None
    schema: str | None
    node: str | None
    projections: Projections
    watch_keys: float | None
    heartbeat: float
    patience: float
    scrub_rate: float
    max_staleness: float | None
    when_stale: WhenStale
    view_bytes: int


@asynccontextmanager
async def opened(
    where: URL | AsyncEngine | None, source: Keyring | KeyProvider | InvalidKey, options: Options
) -> AsyncIterator[Parts]:
    """Pass the boot gate, and yield the parts of the open ledger.

    The database is closed at the end. Raises any refusal of the boot gate.
    """
    running_loop()
    check_open_level(options.verify)
    projections = options.projections
    if not isinstance(projections, Default):
        projections = _projections(projections)
        _check_distinct(projections)
    check_rate(options.scrub_rate)
    heartbeat = seconds(options.heartbeat, "heartbeat", least=SHORTEST)
    patience = seconds(options.patience, "patience")
    watch_keys = options.watch_keys
    if watch_keys is not None:
        watch_keys = seconds(watch_keys, "watch_keys", least=SHORTEST)
    keys = await keyring_of(source)
    provider = None if isinstance(source, Keyring | InvalidKey) else source
    if watch_keys is not None and provider is None:
        raise InvalidKey(
            "a fixed Keyring can't be watched", hint="open the ledger with EnvKeyProvider()"
        )
    bounds = None
    if options.max_staleness is not None:
        bounds = Bounds(options.max_staleness, options.when_stale, options.view_bytes)
    pinned = _pinned(options.ledger_id)
    schema = ledger_schema(options.schema, os.environ)
    import secret_ledger_projections as read_side

    kept = read_side.default() if isinstance(projections, Default) else projections
    read_only = options.read_only
    database = connect(where, schema=schema, read_only=read_only, patience=patience)
    try:
        identity = Identity.of(options.node, heartbeat)
        gate = BootOptions(
            options.create, options.verify, read_only, pinned, read_moved=options.read_moved
        )
        try:
            booted = await boot(database, keys, identity, gate)
        except LedgerError as refusal:
            refusal.add_note(f"refused on node {identity.node} (pid {identity.pid})")
            raise
        view = None
        if bounds is not None:
            view = SealedView(booted.follower, bounds, await database.watch())
        yield Parts(
            database=database,
            booted=booted,
            identity=identity,
            projections=kept,
            audit=read_side.key_history,
            provider=provider,
            level=options.verify,
            read_only=read_only,
            patience=patience,
            watch_keys=watch_keys,
            scrub_rate=options.scrub_rate,
            view=view,
        )
    finally:
        await close(database)


async def catch_up(parts: Parts) -> None:
    """Fold the events that the projections lack. At level "full", compare them with the log.

    Raises TamperedEvent if a projection differs from the log.
    """
    if not parts.read_only:
        for projection in parts.projections:
            await projection.catch_up(parts.database)
    if parts.level == "full":
        await _check_kept(parts.database, parts.projections)


def _check_distinct(kept: Sequence[InlineProjection]) -> None:
    """Raises InvalidValue if two projections would share a checkpoint."""
    names = [projection.name for projection in kept]
    for name in names:
        if names.count(name) > 1:
            raise InvalidValue(
                f"two projections are called {name}: they would share one checkpoint",
                hint="give each a name of its own",
            )


async def _fold(database: Database) -> None:
    """Makes and folds the tables that a ledger keeps unless it is told otherwise."""
    import secret_ledger_projections as read_side

    for projection in read_side.default():
        await projection.catch_up(database)


async def _check_kept(database: Database, kept: Sequence[InlineProjection]) -> None:
    """Compares the projections with the log, as far as each is folded. Raises TamperedEvent."""
    while True:
        head = await _in_use(database)
        tally = Tally()
        for each in kept:
            if isinstance(each, CheckedProjection):
                await check_projections(database, head, [each], tally)
        # If another generation was put in use meanwhile, the rows read here may be purged.
        if not tally.findings or (await _in_use(database)).generation == head.generation:
            break
    tally.report("full", 0.0).raise_if_not_ok()


async def _in_use(database: Database) -> LogHead:
    head = await database.run(lambda c: head_in_use(c, database), "statement")
    if head is None:
        raise LedgerUnavailable(f"{database.place}: no generation is in use")
    return head


def without_text(url: str | URL | AsyncEngine) -> URL | AsyncEngine | None:
    """Parse the URL, so that no frame of ours holds its password in a traceback with locals."""
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
            hint="give the id that `secret-ledger init` printed",
        )
    pinned = parse_ledger_id(given) if isinstance(given, str) else given
    if setting is not None and setting != pinned:
        raise WrongLedger(
            f"the caller pins ledger {pinned.hex()}, but OS_SECRET_LEDGER_ID pins {setting.hex()}",
            hint="make the two agree, or unset one",
        )
    return pinned


async def init_ledger(
    url: str | URL | AsyncEngine,
    keyring: Keyring | KeyProvider,
    *,
    schema: str | None = None,
) -> tuple[str, bool]:
    """Make a ledger, even in a SQLite file that holds an application's own tables.

    Returns its id (32 hex digits), and whether it was made now. If the database holds a ledger
    already, its gate is passed and nothing is changed. Raises the errors of `open`.
    """
    source = key_source(keyring)
    where = without_text(url)
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
    """Warnings about this machine's database library, before several processes write the ledger.

    They are for an operator. Nothing is connected.
    """
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
    """Bring an older schema up to this release's. Returns the names of the applied files.

    The gate must pass at level `control` first. If the ledger begins to seal facts for readers, the
    whole log is verified before. Raises the refusals of the gate, NotALedger, TamperedEvent.
    """
    source = key_source(keyring)
    where = without_text(url)
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
        standing = judge_keys(control, keys, moved=has_moved(state))
        standing.check_not_moved()
        applied = await upgrade(database)
        if await seal_facts(database, keys) or applied:
            await _fold(database)
        return applied
    finally:
        await close(database)
