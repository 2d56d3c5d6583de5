"""What an operation of an open ledger works with."""

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
"""Seconds between two heartbeats, unless `open` is told otherwise; a node that missed three
of its own is not live."""


def _release() -> str:
    try:
        return version("secret-ledger")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """This process, as it shows itself in one ledger."""

    node: str
    """The name an operator knows it by: given to `open`, or the host's name."""
    host: str = field(default_factory=lambda: printable(socket.gethostname())[:255])
    pid: int = field(default_factory=os.getpid)
    release: str = field(default_factory=_release)
    node_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    heartbeat: float = HEARTBEAT
    """Seconds between two beats."""

    @classmethod
    def of(cls, node: str | None, heartbeat: float = HEARTBEAT) -> Identity:
        """This process under the name `node`, or under its host's."""
        return cls(node=printable(node or socket.gethostname())[:255], heartbeat=heartbeat)


@dataclass(frozen=True, slots=True)
class Session:
    """One opened ledger, as its operations use it."""

    follower: Follower
    projections: Sequence[InlineProjection]
    """Those that are kept in the append's own transaction."""
    identity: Identity
    patience: float
    """Seconds that a write rides out a database that can't be reached, or is locked."""
    read_only: bool
    announce: Callable[[], Awaitable[None]]
    """Renews this node's line at once, if it has one."""

    @property
    def database(self) -> Database:
        """The one that the ledger lies in."""
        return self.follower.database

    def check_writable(self) -> None:
        """Raises LedgerUnavailable where the ledger was opened to be read only."""
        if self.read_only:
            raise LedgerUnavailable(
                "the ledger was opened read-only", hint="open it without read_only"
            )
