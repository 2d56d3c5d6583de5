"""Who has the ledger open, and who was refused at its door.

The registry lies in `ledger_node`, and the nodes write it themselves. The line of a node that has
the ledger open carries a proof with the key that it seals with (`node_proof`); the line of
a refused boot carries none. All lines are shown to operators. Only a proven line of a live node
holds up a rotation; that a line was deleted is not to be seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.model.events import from_microseconds
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead
from secret_ledger.rules.authority import SealingKeys
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.node_proof import Announcement, Judge, ProofVerdict, prove
from secret_ledger.session.opened import Identity
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.statements import NODE_COLUMNS, NODE_READABLE

__all__ = [
    "NodeInfo",
    "announce",
    "difference",
    "differing_nodes",
    "forget",
    "list_nodes",
    "record_refusal",
]

MAX_REFUSED: Final = 1000
MAX_SHOWN: Final = 2000
"""Lines that are read of the registry, which anybody with access to the database can fill."""
DAY: Final = 86_400_000_000
_ORDER: Final = ("live", "gone", "refused")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One line of the registry: a node that has the ledger open, or one that was refused."""

    node_id: str
    """Which line it is: new at each opening."""
    node: str
    host: str
    pid: int
    release: str
    state: Literal["live", "gone", "refused"]
    """`gone` is a node that missed three of its heartbeats and did not close."""
    key_id: str
    """The key it seals with; of a refused one, the key it came with."""
    key_fingerprint: bytes
    pending_id: str | None
    pending_fingerprint: bytes | None
    readable: Sequence[tuple[str, str]]
    """Key id and fingerprint (hex) of all that it can read."""
    position: int
    reason: str
    """Why a boot was refused, or a live node may not write: an error's code; else empty."""
    refusals: int
    started_at: datetime
    last_seen: datetime
    differs: bool
    """It is live, and seals with another key than the active one: it is fenced, or, where it
    holds the active one, has not noticed the rotation yet."""
    heartbeat: float
    """Seconds between two of its heartbeats."""
    age: float
    """Seconds since its last heartbeat, or refused boot, by the database's clock."""
    proof: ProofVerdict = "unknown"
    """Whether a holder of a key wrote this line; `unknown` without the key that would tell."""

    @property
    def label(self) -> str:
        """How a message names it."""
        return f"{self.node} (pid {self.pid} on {self.host})"

    def reads(self, key_fingerprint: bytes) -> bool:
        """Whether it says that it holds the key of this fingerprint."""
        return any(fingerprint == key_fingerprint.hex() for _, fingerprint in self.readable)


def announce(
    connection: Connection,
    database: Database,
    me: Identity,
    sealing: SealingKeys,
    standing: Standing,
    head: LogHead,
    reason: str = "",
) -> None:
    """Insert this node's line, or renew it; `reason` says why it can't write, if it can't."""
    pending, control = sealing.pending, standing.control
    values = {
        **_line(me, database.clock(connection)),
        "state": "live",
        "key_id": sealing.active_id,
        "key_fingerprint": sealing.active.fingerprint,
        "pending_id": pending.id if pending else None,
        "pending_fingerprint": pending.fingerprint if pending else None,
        "readable": _readable(standing.keys.values()),
        "position": head.position,
        "reason": reason,
    }
    line = Announcement._make(values[column] for column in Announcement._fields)
    values["proof"] = prove(control.ledger_id, control.epoch, line, sealing.active)
    connection.execute(database.statements.announce_node, values)


def _readable(held: Iterable[LedgerKey]) -> str:
    """The keys that a node can read, the current one first: as many as a line holds."""
    keys = [[k.id, k.fingerprint.hex()] for k in held]
    while len(text := json.dumps(keys)) > NODE_READABLE:
        keys.pop()
    return text


def _line(me: Identity, now: int) -> dict[str, Any]:
    """What the line of a live node and that of a refused one have in common."""
    return {
        "node_id": me.node_id,
        "node": me.node,
        "host": me.host,
        "pid": me.pid,
        "release": me.release,
        "heartbeat": int(me.heartbeat * 1_000_000),
        "pending_id": None,
        "pending_fingerprint": None,
        "readable": "[]",
        "position": 0,
        "refusals": 0,
        "proof": None,
        "started_at": now,
        "last_seen": now,
    }


def forget(connection: Connection, database: Database, me: Identity) -> None:
    """Take this node's line out, and those of nodes that have been gone for a day."""
    old = database.clock(connection) - DAY
    connection.execute(database.statements.forget_node, {"node_id": me.node_id, "old": old})


def record_refusal(
    connection: Connection,
    database: Database,
    me: Identity,
    key: LedgerKey,
    refusal: LedgerError,
) -> None:
    """Count a refused boot: one line for each node, key and reason, however often."""
    values = {
        **_line(me, database.clock(connection)),
        "state": "refused",
        "key_id": key.id,
        "key_fingerprint": key.fingerprint,
        "reason": refusal.code,
        "refusals": 1,
    }
    connection.execute(database.statements.refuse_node, values)
    connection.execute(database.statements.trim_refused_nodes, {"most": MAX_REFUSED})


def list_nodes(
    connection: Connection,
    database: Database,
    active_fingerprint: bytes | None,
    judge: Judge | None = None,
) -> list[NodeInfo]:
    """The registry: live nodes first, then those that are gone, then those that were refused;
    of each the newest, `MAX_SHOWN` lines at most. `judge` says which of them are proven."""
    now = database.clock(connection)
    try:
        rows = connection.execute(database.statements.nodes, {"limit": MAX_SHOWN})
    except TamperedEvent:  # a line that no node wrote: the registry tells nothing then
        return []
    nodes = (_node(row, now, active_fingerprint, judge) for row in rows)
    return sorted(nodes, key=lambda n: (_ORDER.index(n.state), n.node, n.started_at))


def differing_nodes(
    connection: Connection, database: Database, judge: Judge, *, besides: str = ""
) -> list[NodeInfo]:
    """The live nodes that announce another key than the active one, but for the line `besides`;
    no more than a hundred: it is asked at each heartbeat."""
    active = judge.control.active.fingerprint
    asked = {"active": active, "besides": besides}
    try:
        found = connection.execute(database.statements.differing_nodes, asked)
    except TamperedEvent:  # a line that no node wrote: the registry tells nothing then
        return []
    if not found:  # as nearly always: one trip less
        return []
    now = database.clock(connection)
    nodes = (_node(row, now, active, judge) for row in found)
    return sorted((n for n in nodes if n.differs), key=lambda n: (n.node, n.pid))


def several_write(connection: Connection, database: Database, me: Identity | None) -> bool:
    """Whether at least two live nodes may write: `me`, if given, and another. Unauthenticated."""
    asked = {"besides": me.node_id if me else "", "now": database.clock(connection)}
    others = len(connection.execute(database.statements.two_live_nodes, asked))
    return others + (me is not None) >= 2


def difference(node: NodeInfo, active_fingerprint: bytes) -> str:
    """What an operator is told of a node that differs."""
    end = (
        "it holds the active key, and follows at its next heartbeat"
        if node.reads(active_fingerprint)
        else "it can't write until it has the active key"
    )
    where = f"node {node.label}"
    doubt = {"unproven": "; no key proves this line", "stale": "; the line is stale"}
    return f"{where} announces another active key, {node.key_id}: {end}{doubt.get(node.proof, '')}"


def _node(columns: Sequence[Any], now: int, active: bytes | None, judge: Judge | None) -> NodeInfo:
    row = dict(zip(NODE_COLUMNS.split(", "), columns, strict=True))

    # Anybody may have written it, and it is printed: never a reason to fail.
    def text(column: str) -> str:
        return printable(row[column])

    def number(column: str) -> int:
        return row[column] if isinstance(row[column], int) else 0

    def raw(column: str) -> bytes:
        return row[column] if isinstance(row[column], bytes) else b""

    try:
        readable = tuple((printable(i), printable(f)) for i, f in json.loads(row["readable"]))
    except (ValueError, TypeError, RecursionError):
        readable = ()
    state: Literal["live", "gone", "refused"] = "refused"
    if row["state"] != "refused":
        state = "live" if now - number("last_seen") <= 3 * number("heartbeat") else "gone"
    fingerprint = raw("key_fingerprint")
    pending = row["pending_id"] is not None
    age = (now - number("last_seen")) / 1_000_000
    proof: ProofVerdict = "unproven"
    if state != "refused":
        line = Announcement._make(row[column] for column in Announcement._fields)
        proof = judge.verdict(line, row["proof"]) if judge else "unknown"
    return NodeInfo(
        node_id=text("node_id"),
        node=text("node"),
        host=text("host"),
        pid=number("pid"),
        release=text("release"),
        state=state,
        key_id=text("key_id"),
        key_fingerprint=fingerprint,
        pending_id=text("pending_id") if pending else None,
        pending_fingerprint=raw("pending_fingerprint") if pending else None,
        readable=readable,
        position=number("position"),
        reason=text("reason"),
        refusals=number("refusals"),
        started_at=from_microseconds(number("started_at")),
        last_seen=from_microseconds(number("last_seen")),
        differs=state == "live" and active is not None and fingerprint != active,
        heartbeat=number("heartbeat") / 1_000_000,
        age=max(0.0, age),
        proof=proof,
    )
