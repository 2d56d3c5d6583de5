"""Opening a ledger: the boot gate, with its I/O. The rules are in `rules.gate`.

No secret, key or schema is written before the gate has passed. Its steps, in order:

1. the keys are resolved (`opening`), and fit the database: `check_not_ephemeral`
2. this release reads the schema: `snapshot`; the ledger is the pinned ledger: `check_pinned`
3. without any key, the control stream is whole: `check_state`; then its seals open: `judge_keys`
4. the ledger says which key is active: `choose_keys`, in `judge_keys`
5. each control event lies under the key of its position: `check_control_authority`, in `judge_keys`
6. the newest events open, or every event: `_verified`
7. this node is announced: `_announced`
8. live nodes that announce another active key are logged, and all other warnings: `_told`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
from secret_ledger.model.rows import LogHead, Meta, State
from secret_ledger.nodes.registry import (
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
    judge_keys,
    moved_place,
    out_of_reach,
)
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.following import Follower, snapshot
from secret_ledger.session.opened import Identity
from secret_ledger.store.catalogue import Deviations, deviations
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import is_refusal, is_transient
from secret_ledger.store.reads import ahead_of_clock, first_under
from secret_ledger.verify.incremental import keep_proof, verify_to_open
from secret_ledger.verify.verify import Checked

__all__ = ["BootOptions", "Booted", "boot", "check_not_ephemeral"]

MAX_ROUNDS = 50
"""Times that one boot starts over because of other nodes (a first boot, a rotation)."""


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How to open a ledger."""

    create: bool
    verify: OpenLevel
    read_only: bool
    pinned: bytes | None
    beside_other_tables: bool = False
    announce: bool = True
    read_moved: bool = False
    """Whether a ledger that has moved to another database may be opened, for reads only."""


class _Boot(NamedTuple):
    """The values that the steps of one boot share."""

    database: Database
    keyring: Keyring
    identity: Identity
    options: BootOptions


@dataclass(frozen=True, slots=True)
class Booted:
    """The result of a passed gate."""

    meta: Meta
    follower: Follower
    report: VerifyReport
    warnings: Sequence[str]
    created: bool
    settings: Sequence[str]
    """The warnings about the database: they hold for as long as it is open."""
    differing: Sequence[NodeInfo]
    """Live nodes that announced another active key when this node was announced."""


async def boot(
    database: Database, keyring: Keyring, identity: Identity, options: BootOptions
) -> Booted:
    """Pass the gate, or raise its refusal. A refused boot leaves a line among the nodes."""
    check_not_ephemeral(keyring, database)
    one = _Boot(database, keyring, identity, options)
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
            if not created:  # another process is making it
                await anyio.sleep(0.02)
            continue
        try:
            booted = await _pass(one, state, created=created)
        except LedgerError as refusal:
            await _leave_line(one, state, refusal)
            raise
        if booted is not None:
            return booted
    raise hindered or LedgerUnavailable("the ledger kept changing while it was being opened")


def check_not_ephemeral(keyring: Keyring, database: Database) -> None:
    """Raises InvalidKey if the keyring ends with the process, but the database stays."""
    if keyring.is_ephemeral and not database.in_memory:
        raise InvalidKey(
            "an ephemeral keyring is for an in-memory database only: when the process ends, nobody"
            " can open the events that it sealed",
            hint="use Keyring.from_env()",
        )


async def _state(database: Database, options: BootOptions) -> State | None:
    if not database.exists():
        return None
    return await snapshot(database)


async def _create(database: Database, keyring: Keyring, options: BootOptions) -> bool:
    if options.pinned is not None:
        raise WrongLedger(
            f"the settings pin ledger {options.pinned.hex()}, and {database.place} holds no"
            " ledger: no new ledger was made",
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


async def _pass(boot: _Boot, state: State, *, created: bool) -> Booted | None:
    """Steps 2 to 8. Returns None if the ledger has changed meanwhile: then the boot starts over."""
    check_pinned(state.meta.ledger_id, boot.options.pinned)
    control = check_state(state)
    standing = await _judged(boot, state, control)
    place = await _look_at_database(boot, state.in_use[0])
    checked = await _verified(boot, state, standing, place)
    if checked is None:
        return None
    # Before the announcement: from now on each connection must recognise the log.
    follower = Follower(boot.database, boot.keyring, standing)
    follower.saw(state.in_use[0])
    follower.lineage.remember([state.last])
    nodes = await _announced(boot, standing, checked)
    if nodes is None:
        return None
    warnings = await _told(boot, state, standing, checked, place, nodes)
    return Booted(
        meta=state.meta,
        follower=follower,
        report=checked.report,
        warnings=warnings,
        created=created,
        settings=tuple(place.settings),
        differing=tuple(nodes),
    )


async def _judged(boot: _Boot, state: State, control: Control) -> Standing:
    """Steps 3 (the seals), 4 and 5: judges the keys in hand by the control stream."""
    left = boot.options.read_only and boot.options.read_moved
    try:
        standing = judge_keys(control, boot.keyring, moved=has_moved(state))
    except (KeyFingerprintMismatch, StaleKey) as error:
        if isinstance(error, KeyFingerprintMismatch):
            await _check_control_not_replaced(boot, control)
        if not left:  # in its new place, the ledger may have rotated since
            check_not_moved(state)
        raise
    if not left:
        standing.check_not_moved()
    return standing


async def _check_control_not_replaced(boot: _Boot, control: Control) -> None:
    """Raises TamperedEvent if a key in hand has events and is unknown to the control stream.

    Somebody without our keys can put a whole control stream of his own in place: that is damage,
    not a wrong key.
    """
    for key in bind(boot.keyring, control.ledger_id):
        if control.key(key.fingerprint) is not None:
            continue
        event = await boot.database.run(
            lambda c: first_under(c, boot.database, key.fingerprint),  # noqa: B023
            "statement",
        )
        if event is not None:
            raise tampered(
                event,
                f"it lies under {key.id} ({short(key.fingerprint)}…), which is in hand and which"
                " the control stream does not know: this is damage, not a wrong key",
                actual_fingerprint=key.fingerprint.hex(),
            ) from None


class _Place(NamedTuple):
    """Warnings about the database itself."""

    settings: Sequence[str]
    ahead: Sequence[str]
    schema: Deviations


async def _look_at_database(boot: _Boot, head: LogHead) -> _Place:
    database = boot.database
    return await database.run(
        lambda c: _Place(
            database.check_settings(c),
            ahead_of_clock(c, database, head),
            deviations(c, database),
        ),
        "statement",
    )


async def _verified(boot: _Boot, state: State, standing: Standing, place: _Place) -> Checked | None:
    """Step 6: the newest events, or every event. Returns None if the control stream has grown."""
    level = boot.options.verify
    checked = await verify_to_open(boot.database, state.meta, standing, level)
    if checked is not None:
        # At level `control`, each later read checks the rows that it meets.
        report = checked.report if level == "control" else place.schema.added_to(checked.report)
        report.raise_if_not_ok()
    return checked


async def _announced(
    boot: _Boot, standing: Standing, checked: Checked
) -> Sequence[NodeInfo] | None:
    """Step 7: writes this node's line, under the head row's lock.

    Returns the live nodes that announce another active key, or None if the ledger has changed.
    """
    if not boot.options.announce or boot.options.read_only:
        return ()
    database, control, sealing = boot.database, standing.control, standing.check_may_write()

    def unit(connection: Connection) -> Sequence[NodeInfo] | None:
        locked = database.lock_head(connection, control.generation, control.epoch)
        if locked is None:
            return None
        announce(connection, database, boot.identity, sealing, standing, locked.head)
        return differing_nodes(connection, database, Judge(control, standing.keys))

    nodes = await database.run(unit, "write")
    if nodes is not None and checked.proof is not None:
        await keep_proof(database, standing, checked.proof, release=boot.identity.release)
    return nodes


async def _told(
    boot: _Boot,
    state: State,
    standing: Standing,
    checked: Checked,
    place: _Place,
    nodes: Sequence[NodeInfo],
) -> Sequence[str]:
    """Step 8: logs the warnings that the gate lets pass."""
    control = standing.control
    warnings = [
        *_of_move(standing),
        *place.settings,
        *place.ahead,
        *place.schema.warnings,
        *([place.schema.reason] if place.schema.reason else []),
        *await _of_race(boot),
        *checked.warnings,
        *(standing.sealing.warnings if standing.sealing else ()),
        *out_of_reach(standing, state.in_use[0].position),
        *(difference(node, control.active.fingerprint) for node in nodes),
    ]
    for warning in warnings:
        log.warning(
            "ledger_opened_with_warning", warning=warning, ledger_id=control.ledger_id.hex()
        )
    return tuple(warnings)


def _of_move(standing: Standing) -> list[str]:
    if not standing.moved:
        return []
    place = moved_place(standing.control.events)
    return [f"this ledger moved to {place}: reads here give the state at the time of the move"]


async def _of_race(boot: _Boot) -> list[str]:
    """The fault of this machine's SQLite, if several processes write the ledger."""
    database, options = boot.database, boot.options
    if database.race is None or options.read_only or not options.announce:
        return []
    several = await database.run(lambda c: several_write(c, database, boot.identity), "statement")
    return [database.race] if several else []


async def _leave_line(boot: _Boot, state: State, refusal: LedgerError) -> None:
    """Takes at most two seconds. If it fails, the caller still raises the refusal."""
    if boot.options.read_only or isinstance(
        refusal, WrongLedger | SchemaOutdated | LedgerUnavailable
    ):
        return
    database, identity = boot.database, boot.identity
    key = boot.keyring.current.for_ledger(state.meta.ledger_id)
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
