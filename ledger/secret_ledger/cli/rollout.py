"""How far a key has got in a fleet: which live nodes can read it. Pure.

Each node announces the keys that it can read. An unproven or stale line does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from secret_ledger.nodes.health import KeyStatus
    from secret_ledger.nodes.registry import NodeInfo

__all__ = ["Reach", "Rollout", "rollout"]


@dataclass(frozen=True, slots=True)
class Reach:
    """One key, and how many of the live nodes can read it."""

    state: Literal["active", "pending"]
    key_id: str
    key_fingerprint: bytes
    readers: int
    live: int
    missing: Sequence[str]
    """Labels of the live nodes that can't read the key."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A fleet at one moment."""

    ledger_id: str
    verified: bool
    at: datetime
    keys: Sequence[Reach]
    """The active key, then each pending key of this process or of a live node."""
    nodes: Sequence[NodeInfo]

    def settled(self) -> object:
        """Return the facts to compare: all but times and positions, which change by themselves."""
        nodes = [replace(n, position=0, age=0.0, last_seen=n.started_at) for n in self.nodes]
        return self.verified, tuple(self.keys), tuple(nodes)


def rollout(
    ledger_id: str,
    at: datetime,
    statuses: Sequence[KeyStatus],
    nodes: Sequence[NodeInfo],
    *,
    verified: bool,
) -> Rollout:
    """Combine the ledger's statuses of its keys with the lines of its nodes."""
    live = [n for n in nodes if n.state == "live" and n.proof not in ("unproven", "stale")]
    known = {status.key_fingerprint for status in statuses if status.state != "pending"}
    keys = [_reach(s.state, s.key_id, s.key_fingerprint, live) for s in statuses
            if s.state == "active"]  # fmt: skip
    waiting = {s.key_fingerprint: s.key_id for s in statuses if s.state == "pending"}
    for node in live:
        # If the ledger has activated the key, the line is from before that rotation.
        if node.pending_fingerprint is not None and node.pending_fingerprint not in known:
            waiting.setdefault(node.pending_fingerprint, node.pending_id or "")
    keys += [_reach("pending", key_id, print_, live) for print_, key_id in waiting.items()]
    return Rollout(ledger_id, verified, at, keys, nodes)


def _reach(
    state: Literal["active", "pending"], key_id: str, fingerprint: bytes, live: Iterable[NodeInfo]
) -> Reach:
    live = list(live)
    missing = [node.label for node in live if not node.reads(fingerprint)]
    return Reach(state, key_id, fingerprint, len(live) - len(missing), len(live), missing)
