"""The parts of an open ledger that its operations work with."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from secret_ledger.errors import LedgerUnavailable
from secret_ledger.model.refusals import printable
from secret_ledger.session.following import Follower
from secret_ledger.store.database import Database
from secret_ledger.store.projection import InlineProjection

__all__ = ["HEARTBEAT", "Identity", "Session"]

HEARTBEAT: Final = 10.0
"""Seconds between two heartbeats, unless `open` states another interval.

If a node has missed three of its own heartbeats, it is not live.
"""


def _release() -> str:
    try:
        return version("secret-ledger")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """This process, as it shows itself in one ledger."""

    node: str
    """The name of the node for operators: as given to `open`, or the host's name."""
    host: str = field(default_factory=lambda: printable(socket.gethostname())[:255])
    pid: int = field(default_factory=os.getpid)
    release: str = field(default_factory=_release)
    node_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    heartbeat: float = HEARTBEAT
    """Seconds between two heartbeats."""

    @classmethod
    def of(cls, node: str | None, heartbeat: float = HEARTBEAT) -> Identity:
        """This process under the name `node`, or under its host's name if `node` is empty."""
        return cls(node=printable(node or socket.gethostname())[:255], heartbeat=heartbeat)


@dataclass(frozen=True, slots=True)
class Session:
    """One open ledger, as its operations use it."""

    follower: Follower
    projections: Sequence[InlineProjection]
    """Projections that are kept in the append's own transaction."""
    identity: Identity
    patience: float
    """Seconds that a write waits while the database is locked or can't be reached."""
    read_only: bool
    announce: Callable[[], Awaitable[None]]
    """Renews this node's line in the registry at once, if the node has a line."""

    @property
    def database(self) -> Database:
        """The database that holds the ledger."""
        return self.follower.database

    def check_writable(self) -> None:
        """Raises LedgerUnavailable if the ledger was opened read-only."""
        if self.read_only:
            raise LedgerUnavailable(
                "the ledger was opened read-only", hint="open it without read_only"
            )
