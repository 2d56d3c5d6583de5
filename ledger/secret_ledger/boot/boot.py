"""Opening a ledger: the boot gate, with its I/O. The rules are in `gate`.

No secret, key or schema is written before the gate has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from secret_ledger.boot.creation import create_ledger
from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import (
    InvalidKey,
    KeyFingerprintMismatch,
    LedgerError,
    LedgerUnavailable,
    NotALedger,
    SchemaOutdated,
    StaleKey,
    WrongLedger,
)
from secret_ledger.log import log
from secret_ledger.model.control import Control
from secret_ledger.model.refusals import short, tampered
from secret_ledger.model.rows import Meta, State
from secret_ledger.nodes.registry import (
    Identity,
    NodeInfo,
    announce,
    difference,
    differing_nodes,
    record_refusal,
    several_write,
)
from secret_ledger.rules.authority import bind
from secret_ledger.rules.findings import OpenLevel, VerifyReport
from secret_ledger.rules.gate import (
    Standing,
    check_not_moved,
    check_pinned,
    check_state,
    has_moved,
    judge,
    moved_place,
    out_of_reach,
)
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.following import Follower, snapshot
from secret_ledger.store.catalogue import deviations
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import is_refusal, is_transient
from secret_ledger.store.reads import ahead_of_clock, first_under
from secret_ledger.verify.incremental import keep_proof, verify_to_open

__all__ = ["BootOptions", "Booted", "boot", "check_not_ephemeral"]

MAX_ROUNDS = 50
"""Races with other nodes (a first boot, a rotation) that one boot starts over for."""


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How to open."""

    create: bool
    verify: OpenLevel
    read_only: bool
    pinned: bytes | None
    beside_other_tables: bool = False
    announce: bool = True
    read_moved: bool = False
    """Whether a ledger that moved to another database may be opened, to be read only."""


@dataclass(frozen=True, slots=True)
class Booted:
    """What a passed gate leaves behind."""

    meta: Meta
    follower: Follower
    report: VerifyReport
    warnings: Sequence[str]
    created: bool
    settings: Sequence[str]
    """Those of the warnings that are about the database: they hold as long as it is open."""
    differing: Sequence[NodeInfo]
    """Live nodes that announced another active key when this one came."""


async def boot(
    database: Database, keyring: Keyring, identity: Identity, options: BootOptions
) -> Booted:
    """Pass the gate, or raise what it refuses with; a refusal leaves its line among the nodes."""
    check_not_ephemeral(keyring, database)
    created = False
    hindered: LedgerError | None = None
    for _ in range(MAX_ROUNDS):
        state = await _state(database, options)
        if state is None:
            try:
                created = await _create(database, keyring, options) or created
            except LedgerUnavailable as error:
                # A racing creator may hold the lock: look again, for its ledger.
                if not is_transient(error):
                    raise
                hindered = error
            if not created:  # somebody else is at it
                await anyio.sleep(0.02)
            continue
        try:
            booted = await _pass(database, keyring, identity, options, state, created=created)
        except LedgerError as refusal:
            await _leave_line(database, keyring, identity, options, state, refusal)
            raise
        if booted is not None:
            return booted
    raise hindered or LedgerUnavailable("the ledger kept changing while it was being opened")


def check_not_ephemeral(keyring: Keyring, database: Database) -> None:
    """Raises InvalidKey for a keyring that dies with the process, on a database that stays."""
    if keyring.is_ephemeral and not database.in_memory:
        raise InvalidKey(
            "an ephemeral keyring is for an in-memory database only: what it seals can't be"
            " opened after the process ends",
            hint="use Keyring.from_env()",
        )


async def _state(database: Database, options: BootOptions) -> State | None:
    if not database.exists():
        return None
    return await snapshot(database)


async def _create(database: Database, keyring: Keyring, options: BootOptions) -> bool:
    if options.pinned is not None:
        raise WrongLedger(
            f"{database.place} holds no ledger, and the settings pin"
            f" {options.pinned.hex()}: none is made in its place",
            hint="check the database URL and that the volume is mounted; nothing was written",
            expected=options.pinned.hex(),
        )
    if options.read_only or not options.create:
        raise NotALedger(
            f"{database.place} holds no ledger",
            hint="check the database URL; `secret-ledger init` makes a new ledger there",
        )
    try:
        ledger_id = await create_ledger(
            database, keyring.current, beside_other_tables=options.beside_other_tables
        )
    except LedgerUnavailable as error:
        # A racing creator was first, and the catalogue refused our tables.
        if is_refusal(error) and await _somebody_made_one(database):
            return False
        raise
    if ledger_id is None:
        return False
    log.warning(
        "ledger_created",
        ledger_id=ledger_id.hex(),
        place=database.place,
        advice=f"pin it: OS_SECRET_LEDGER_ID={ledger_id.hex()}",
    )
    return True


async def _somebody_made_one(database: Database) -> bool:
    return database.exists() and await snapshot(database) is not None


async def _pass(
    database: Database,
    keyring: Keyring,
    identity: Identity,
    options: BootOptions,
    state: State,
    *,
    created: bool,
) -> Booted | None:
    """Steps 2 to 8. None where the ledger changed on the way: start over."""
    check_pinned(state.meta.ledger_id, options.pinned)
    control = check_state(state)
    left = options.read_only and options.read_moved
    try:
        standing = judge(control, keyring, moved=has_moved(state))
    except (KeyFingerprintMismatch, StaleKey) as error:
        if isinstance(error, KeyFingerprintMismatch):
            await _check_control_not_replaced(database, control, keyring)
        if not left:  # it may have rotated since, where it is now
            check_not_moved(state)
        raise
    if standing.moved and standing.refusal is not None and not left:
        raise standing.refusal
    head = state.in_use[0]
    settings, ahead, schema = await database.run(
        lambda c: (
            database.check_settings(c),
            ahead_of_clock(c, database, head),
            deviations(c, database),
        ),
        "statement",
    )
    checked = await verify_to_open(database, state.meta, standing, options.verify)
    if checked is None:
        return None
    # Whoever opens it on the strength of the control stream alone checks what he touches.
    report = checked.report if options.verify == "control" else schema.added_to(checked.report)
    report.raise_if_not_ok()
    follower = Follower(database, keyring, standing)
    follower.saw(state.in_use[0])
    follower.lineage.remember([state.last])
    nodes: Sequence[NodeInfo] = ()
    race: list[str] = []
    if options.announce and not options.read_only:
        announced = await _announce(database, identity, standing)
        if announced is None:
            return None
        nodes = announced
        if checked.proof is not None:
            await keep_proof(database, standing, checked.proof, release=identity.release)
        if database.race is not None and await _several_write(database, identity):
            race = [database.race]
    active = control.active.fingerprint
    warnings = [
        *_of_move(standing),
        *settings,
        *ahead,
        *schema.warnings,
        *([schema.reason] if schema.reason else []),
        *race,
        *checked.warnings,
        *_of_keys(standing, state.in_use[0].position),
        *(difference(node, active) for node in nodes),
    ]
    for warning in warnings:
        log.warning(
            "ledger_opened_with_warning", warning=warning, ledger_id=control.ledger_id.hex()
        )
    return Booted(
        meta=state.meta,
        follower=follower,
        report=checked.report,
        warnings=tuple(warnings),
        created=created,
        settings=tuple(settings),
        differing=tuple(nodes),
    )


async def _check_control_not_replaced(
    database: Database, control: Control, keyring: Keyring
) -> None:
    """Nothing lies under a key in hand that the control stream does not know.

    Somebody without our keys can put a whole control stream of his own in place: that is
    damage, not a wrong key. Raises TamperedEvent.
    """
    for key in bind(keyring, control.ledger_id):
        if control.key(key.fingerprint) is not None:
            continue
        event = await database.run(
            lambda c: first_under(c, database, key.fingerprint),  # noqa: B023
            "statement",
        )
        if event is not None:
            raise tampered(
                event,
                f"it lies under {key.id} ({short(key.fingerprint)}…), which is in hand and which"
                " the control stream does not know: this is damage, not a wrong key",
                actual_fingerprint=key.fingerprint.hex(),
            ) from None


async def _several_write(database: Database, me: Identity) -> bool:
    return await database.run(lambda c: several_write(c, database, me), "statement")


def _of_move(standing: Standing) -> list[str]:
    if not standing.moved:
        return []
    place = moved_place(standing.control.events)
    return [f"this ledger moved to {place}: what is read here is as it was then"]


def _of_keys(standing: Standing, end: int) -> list[str]:
    told = standing.held.warnings if standing.held else ()
    return [*told, *out_of_reach(standing, end)]


async def _announce(
    database: Database, identity: Identity, standing: Standing
) -> Sequence[NodeInfo] | None:
    held = standing.held
    assert held is not None  # noqa: S101  # judge() at boot raises or gives keys to write with
    control = standing.control

    def unit(connection: Connection) -> Sequence[NodeInfo] | None:
        locked = database.lock_head(connection, control.generation, control.epoch)
        if locked is None:
            return None
        announce(connection, database, identity, held, control, locked.head)
        return differing_nodes(connection, database, Judge(control, standing.keys))

    return await database.run(unit, "write")


async def _leave_line(
    database: Database,
    keyring: Keyring,
    identity: Identity,
    options: BootOptions,
    state: State,
    refusal: LedgerError,
) -> None:
    """Best effort, at most two seconds; its failure never hides the refusal."""
    if options.read_only or isinstance(refusal, WrongLedger | SchemaOutdated | LedgerUnavailable):
        return
    key = keyring.current.for_ledger(state.meta.ledger_id)
    log.error(
        "ledger_refused",
        code=refusal.code,
        reason=refusal.message,
        key_id=key.id,
        key_fingerprint=key.fingerprint.hex(),
        node=identity.node,
    )
    try:
        with anyio.move_on_after(2):
            await database.run(
                lambda c: record_refusal(c, database, identity, key, refusal), "note"
            )
    except LedgerError:
        log.info("ledger_refusal_not_recorded", node=identity.node)
