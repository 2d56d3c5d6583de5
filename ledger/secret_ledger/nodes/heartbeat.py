"""Keeps a node's line in the registry alive for as long as the node has the ledger open.

If a heartbeat fails, `health` says so, and the service goes on. On a node that nobody reads from or
writes to, the heartbeat also follows a rotation. And it notices nodes that did not follow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import anyio

from secret_ledger.errors import LedgerError
from secret_ledger.log import log
from secret_ledger.model.rows import LogHead
from secret_ledger.nodes.registry import (
    NodeInfo,
    announce,
    difference,
    differing_nodes,
    forget,
)
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.following import Follower
from secret_ledger.session.opened import Identity
from secret_ledger.store.connection import Connection

__all__ = ["Presence"]


class Presence:
    """The heartbeat of one open ledger, which the boot gate has announced already."""

    def __init__(self, follower: Follower, me: Identity, known: Sequence[NodeInfo] = ()) -> None:
        self.me = me
        self._follower = follower
        self._announced = follower.standing.sealing
        self._failure: str | None = None
        self._renewed = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        # Nodes that the boot gate has logged are not logged again.
        self._told = {node.node_id for node in known}

    @property
    def failure(self) -> str | None:
        """Why this node may not show as live; None if all is well."""
        silent = time.monotonic() - self._renewed
        if self._failure is None and self._task is not None and silent > 3 * self.me.heartbeat:
            return f"heartbeat: no heartbeat has reached the database for {silent:.0f} s"
        return self._failure

    def start(self) -> None:
        """Start the heartbeat, in the background."""
        self._task = asyncio.create_task(self._beat(), name="secret-ledger heartbeat")

    async def _beat(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self.me.heartbeat)
                return
            await self.renew()

    async def renew(self) -> None:
        """Announce this node once more, as it stands now.

        Never raises an Exception: the next heartbeat may succeed.
        """
        try:
            await self._renew()
        except LedgerError as error:
            self._failure = f"heartbeat: {error.message}"
            self._follower.wrote(error)
        except Exception as error:  # noqa: BLE001  # only its type is told: it may quote anything
            self._failure = f"heartbeat: {type(error).__name__}"
        else:
            if self._failure is not None:  # else this small write proves nothing
                self._follower.wrote()
            self._failure = None
            self._renewed = time.monotonic()

    async def _renew(self) -> None:
        follower, me = self._follower, self.me
        database = follower.database

        def unit(connection: Connection) -> LogHead | list[NodeInfo] | None:
            met = follower.lineage.recognise(connection)
            if met is None or not follower.is_current(met.head, met.control):
                return met and met.head
            head = met.head
            follower.lineage.remember_more(connection, head)
            standing = follower.standing
            # A node that may not write any more is still live, with the key that it had.
            sealing = self._announced = standing.sealing or self._announced
            if self._closing.is_set():
                sealing = None
            reason = standing.refusal.code if standing.refusal else ""
            if sealing is not None:
                announce(connection, database, me, sealing, standing, head, reason)
            judge = Judge(standing.control, standing.keys)
            return differing_nodes(connection, database, judge, besides=me.node_id)

        met = await database.run(unit, "note")
        if isinstance(met, LogHead):  # the control stream has grown: follow, then announce
            await follower.follow()
            met = await database.run(unit, "note")
        if isinstance(met, list):
            self._tell(met, follower.standing.control.active.fingerprint)

    def _tell(self, differing: Sequence[NodeInfo], active: bytes) -> None:
        """Logs each fenced node, once for as long as it is fenced."""
        # A node that holds the active key is about to follow, as every node after a rotation.
        fenced = [node for node in differing if not node.reads(active)]
        for node in fenced:
            if node.node_id not in self._told:
                log.warning(
                    "ledger_node_differs",
                    warning=difference(node, active),
                    node=node.node,
                    key_id=node.key_id,
                    key_fingerprint=node.key_fingerprint.hex(),
                )
        self._told = {node.node_id for node in fenced}

    async def close(self) -> None:
        """Stop the heartbeat and delete the line, in a few seconds at most.

        If that fails, the line stays. A heartbeat under way ends first: it would put the line back.
        """
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2)
            self._task.cancel()
            await asyncio.wait([self._task])
        database = self._follower.database
        try:
            with anyio.move_on_after(2):
                await database.run(lambda c: forget(c, database, self.me), "note")
        except LedgerError:
            log.info("ledger_node_not_removed", node=self.me.node)
