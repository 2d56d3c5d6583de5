"""The registry of nodes: which nodes have the ledger open, and which boots were refused.

The registry lies in `ledger_node`, and the nodes write it themselves. The line of a node that has
the ledger open carries a proof with the key that the node seals with (`node_proof`). The line of a
refused boot carries no proof. Operators see all lines. Only a proven line of a live node holds up a
rotation. Nobody can tell that a line was deleted.
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
"""Lines of the registry that are read at most.

Anybody with access to the database can fill the registry.
"""
DAY: Final = 86_400_000_000
_ORDER: Final = ("live", "gone", "refused")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One line of the registry: a node that has the ledger open, or a refused boot."""

    node_id: str
    """Id of the line: new at each opening."""
    node: str
    host: str
    pid: int
    release: str
    state: Literal["live", "gone", "refused"]
    """`gone`: the node missed three of its heartbeats and did not close."""
    key_id: str
    """Id of the key that the node seals with, or that the refused boot came with."""
    key_fingerprint: bytes
    pending_id: str | None
    pending_fingerprint: bytes | None
    readable: Sequence[tuple[str, str]]
    """Key id and fingerprint (hex) of each key that the node can read."""
    position: int
    reason: str
    """Error code of a refused boot, or why a live node may not write; else empty."""
    refusals: int
    started_at: datetime
    last_seen: datetime
    differs: bool
    """Whether the node is live, and seals with another key than the active key.

    It is fenced, or it holds the active key and has not noticed the rotation yet.
    """
    heartbeat: float
    """Seconds between two heartbeats of the node."""
    age: float
    """Seconds since the last heartbeat or refused boot, by the database's clock."""
    proof: ProofVerdict = "unknown"
    """Whether a holder of a key wrote this line.

    `unknown` if the key that would tell is not in hand.
    """

    @property
    def label(self) -> str:
        """The node as messages name it."""
        return f"{self.node} (pid {self.pid} on {self.host})"

    def reads(self, key_fingerprint: bytes) -> bool:
        """Whether the node says that it holds the key of this fingerprint."""
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
    """Insert or renew this node's line. `reason`: why the node can't write; empty if it can."""
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
    """As many of the node's keys as a line holds, the current key first."""
    keys = [[k.id, k.fingerprint.hex()] for k in held]
    while len(text := json.dumps(keys)) > NODE_READABLE:
        keys.pop()
    return text


def _line(me: Identity, now: int) -> dict[str, Any]:
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
    """Delete this node's line, and the lines of nodes that have been gone for a day."""
    old = database.clock(connection) - DAY
    connection.execute(database.statements.forget_node, {"node_id": me.node_id, "old": old})


def record_refusal(
    connection: Connection,
    database: Database,
    me: Identity,
    key: LedgerKey,
    refusal: LedgerError,
) -> None:
    """Count a refused boot: one line for each node, key and reason, however often.

    Of such lines, the newest 1,000 are kept.
    """
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
    """Read the registry: live nodes first, then nodes that are gone, then refused boots.

    Reads at most `MAX_SHOWN` lines, the newest of each kind. Returns nothing if a line holds values
    that no node wrote. `active_fingerprint`: None if the active key is unknown; then no node
    differs. `judge` says which lines are proven.
    """
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
    """The live nodes that announce another key than the active key, except the line `besides`.

    At most 100 lines are read, for each heartbeat asks. Returns nothing if a line holds values that
    no node wrote.
    """
    active = judge.control.active.fingerprint
    asked = {"active": active, "besides": besides}
    try:
        found = connection.execute(database.statements.differing_nodes, asked)
    except TamperedEvent:  # a line that no node wrote: the registry tells nothing then
        return []
    if not found:  # nearly always: this saves a trip
        return []
    now = database.clock(connection)
    nodes = (_node(row, now, active, judge) for row in found)
    return sorted((n for n in nodes if n.differs), key=lambda n: (n.node, n.pid))


def several_write(connection: Connection, database: Database, me: Identity | None) -> bool:
    """Whether at least two live nodes have the ledger open to write: `me`, if given, and others.

    The lines are not authenticated.
    """
    asked = {"besides": me.node_id if me else "", "now": database.clock(connection)}
    others = len(connection.execute(database.statements.two_live_nodes, asked))
    return others + (me is not None) >= 2


def difference(node: NodeInfo, active_fingerprint: bytes) -> str:
    """The message for an operator about a node that differs."""
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

    # Anybody may have written the row. It is only printed, so a wrong type is no failure.
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
