"""How another key takes over: two control events in one transaction.

`key.introduced` is sealed under the key that was active so far (authorisation), `key.activated`
under the new key (possession). Each seal covers the chain before it, so the new key alone still
proves the whole control stream. After that commit, every append under the old key is refused: it
states an epoch that is no longer the head row's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import KeyReused, NodeNotReady
from secret_ledger.log import log
from secret_ledger.model.control import Control, key_metadata
from secret_ledger.model.events import EventType, from_microseconds
from secret_ledger.model.keys import Key, LedgerKey
from secret_ledger.model.refusals import short
from secret_ledger.nodes.registry import NodeInfo, list_nodes
from secret_ledger.read.census import KeyCount, heads_by_key
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.in_progress import check_not_building
from secret_ledger.session.opened import Identity, Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.retry import through_outages
from secret_ledger.write.append import Attempt, append_events
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = ["Rotation", "Takeover", "check_rotation", "rotate"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """The result of a rotation."""

    changed: bool
    """False if the configured key was active already."""
    key_id: str
    key_fingerprint: bytes
    """Fingerprint of the key that new events are sealed under: 32 bytes."""
    epoch: int
    position: int
    """Position of the activation: the first event under the key."""
    activated_at: datetime
    replaced: str | None
    """Id of the key that was active before. None if this is the ledger's first key."""
    behind: Sequence[KeyCount]
    """How many secrets still have their newest event under another key, by key."""
    unready: Sequence[str]
    """Live nodes that can't read the key, if the rotation was forced over them."""
    unproven: Sequence[str] = ()
    """Live nodes that lack the key, by lines that are stale or that no key in hand proves.

    They held nothing up: anybody with access to the database may have written those lines.
    """


async def rotate(
    session: Session,
    new_key: Key | None = None,
    *,
    actor: str | None,
    force_reason: str | None,
) -> Rotation:
    """Make the keyring's current key the active key. If it is active already, nothing is done.

    If `new_key` is given, this process uses it as its current key from now on, rotated or not.

    Raises NodeNotReady, which names the nodes, while a live node can't read the key. A
    `force_reason` overrides that, and is recorded. If a node's line is stale or not proven, the
    report names the node, and the node holds nothing up.

    Raises KeyReused if the key was active before, MigrationInProgress, and StaleKey. Never raises
    KeyExhausted: a rotation is the way out of that.
    """
    follower, me = session.follower, session.identity
    database = follower.database
    if new_key is not None:
        await follower.adopt(Keyring.of(new_key, follower.keyring.keys))
        await session.announce()  # this node can read that key from now on
    unready: list[str] = []
    unproven: list[str] = []
    # The control stream as known may be old: follow it before a key is called active.
    await follower.follow(read=through_outages)

    def write(connection: Connection, standing: Standing) -> Attempt | None:
        control = standing.control
        new = _successor(control, follower.keyring.current.for_ledger(control.ledger_id))
        if new is None:
            return None
        locked = lock_control(connection, database, standing)
        check_not_building(connection, database, control)
        nodes = list_nodes(connection, database, None, Judge(control, standing.keys))
        unready[:], unproven[:] = _lacking(nodes, me, new)
        if unready and force_reason is None:
            raise _not_ready(unready, new)
        connection.execute(
            database.statements.insert_key, {"key_id": new.id, "key_fingerprint": new.fingerprint}
        )
        metadata = key_metadata(
            new.id, new.fingerprint, control.epoch + 1, actor=actor, reason=force_reason
        )
        entries = (
            Entry(EventType.KEY_INTRODUCED, metadata),
            Entry(EventType.KEY_ACTIVATED, metadata, new),
        )
        events = control_events(control, standing.check_may_write(), locked, entries)
        return append_events(
            connection, database, locked, events, session.projections, epoch=control.epoch + 1
        )

    done = await commit(follower, write, patience=session.patience)
    changed = isinstance(done, Attempt)
    if changed:
        await follower.follow(read=through_outages)
    control = follower.standing.control
    active = control.active
    if changed:
        log.info(
            "key_rotated",
            key_id=active.id,
            key_fingerprint=active.fingerprint.hex(),
            epoch=control.epoch,
            actor=actor,
            reason=force_reason,
        )
        for node in unproven:
            log.warning("ledger_node_unproven", node=node, key_id=active.id)
    report = Rotation(
        changed=changed,
        key_id=active.id,
        key_fingerprint=active.fingerprint,
        epoch=control.epoch,
        position=active.activated,
        activated_at=from_microseconds(
            next(e.recorded_at for e in control.events if e.position == active.activated)
        ),
        replaced=control.keys[-2].id if len(control.keys) > 1 else None,
        behind=[
            count
            for count in await heads_by_key(database, control.generation)
            if count.key_fingerprint != active.fingerprint
        ],
        unready=unready if changed else [],
        unproven=unproven if changed else [],
    )
    await session.announce()
    return report


@dataclass(frozen=True, slots=True)
class Takeover:
    """The rotation to the pending key that a migration begins with, in two steps.

    In between, the migration looks for all else that could refuse it.
    """

    session: Session
    actor: str | None
    force_reason: str | None

    async def check(self) -> None:
        """Raises NodeNotReady or KeyReused if `rotate` would raise it. Writes nothing."""
        await check_rotation(self.session, force_reason=self.force_reason)

    async def rotate(self) -> None:
        """Activate the pending key."""
        await rotate(self.session, actor=self.actor, force_reason=self.force_reason)


async def check_rotation(session: Session, *, force_reason: str | None) -> None:
    """Raises NodeNotReady or KeyReused if `rotate` would raise it. Writes nothing."""
    follower, me = session.follower, session.identity
    database, control = follower.database, follower.standing.control
    new = _successor(control, follower.keyring.current.for_ledger(control.ledger_id))
    if new is None or force_reason is not None:
        return
    judge = Judge(control, follower.standing.keys)
    nodes = await through_outages(
        database, lambda c: list_nodes(c, database, None, judge), "statement"
    )
    unready, _ = _lacking(nodes, me, new)
    if unready:
        raise _not_ready(unready, new)


def _successor(control: Control, current: LedgerKey) -> LedgerKey | None:
    """The key to activate. Returns None if the key is active already."""
    known = control.key(current.fingerprint)
    if known is None:
        return current
    if known == control.active:
        return None
    end = "is lost" if known.lost else "was retired" if known.retired else "was active before"
    raise KeyReused(
        f"key {known.id} ({short(known.fingerprint)}…) {end}: a key can be activated only once",
        hint="rotate to a third key: make one with `secret-ledger keygen`, deploy it as"
        " OS_SECRET_KEY with the others in OS_SECRET_PREVIOUS_KEYS, then rotate",
        key_id=known.id,
    )


def _lacking(
    nodes: Iterable[NodeInfo], me: Identity, new: LedgerKey
) -> tuple[list[str], list[str]]:
    """The labels of live nodes that can't read a key: by proven lines, and by other lines."""
    proven: list[str] = []
    others: list[str] = []
    for node in nodes:
        if node.state == "live" and node.node_id != me.node_id and not node.reads(new.fingerprint):
            told = proven if node.proof == "proven" else others
            told.append(node.label)
    return proven, others


def _not_ready(unready: Sequence[str], new: LedgerKey) -> NodeNotReady:
    shown = ", ".join(unready[:10]) + (f" and {len(unready) - 10} more" if unready[10:] else "")
    return NodeNotReady(
        f"{len(unready)} live nodes can't read key {new.id} ({short(new.fingerprint)}…): {shown}",
        hint="deploy the key to them first (OS_SECRET_KEY, the old one in"
        " OS_SECRET_PREVIOUS_KEYS); `secret-ledger nodes` shows the keys of each node; to rotate"
        " all the same, and fence those nodes: --force-reason REASON",
        nodes=list(unready),
        key_id=new.id,
        key_fingerprint=new.fingerprint.hex(),
    )
