"""A node's line in the registry, kept alive for as long as it has the ledger open.

A heartbeat that fails never takes the service down: `health` says so. It also follows a
rotation on a node that nobody reads from or writes to.
"""

from __future__ import annotations

import asyncio

import anyio

from ledger.errors import LedgerError
from ledger.following import Follower
from ledger.log import log
from ledger.nodes import Identity, announce, forget
from ledger.store.reads import head_in_use

__all__ = ["Presence"]


class Presence:
    """The heartbeat of one open ledger, which the boot gate has announced already."""

    def __init__(self, follower: Follower, me: Identity) -> None:
        self.me = me
        self.failure: str | None = None
        """Why the last heartbeat failed; None if it did not."""
        self._follower = follower
        self._announced = follower.standing.held
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._beat(), name="secret-ledger heartbeat")

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(self.me.heartbeat)
            await self.renew()

    async def renew(self) -> None:
        """One beat: announce this node again, as it stands by now. Never raises LedgerError."""
        follower = self._follower
        database = follower.database
        try:
            head = await database.run(lambda c: head_in_use(c, database), "statement")
            if head is None:
                return
            if not follower.is_current(head):
                await follower.follow()
            standing = follower.standing
            # A node that may not write any more is live all the same, with the key it had.
            held = self._announced = standing.held or self._announced
            reason = standing.refusal.code if standing.refusal else ""
            if held is not None:
                await database.run(
                    lambda c: announce(c, database, self.me, held, head, reason), "note"
                )
            self.failure = None
        except LedgerError as error:
            self.failure = f"heartbeat: {error.message}"

    async def close(self) -> None:
        """Stop beating, and take the line out: best effort, two seconds at most."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        database = self._follower.database
        try:
            with anyio.move_on_after(2):
                await database.run(lambda c: forget(c, database, self.me), "note")
        except LedgerError:
            log.info("ledger_node_not_removed", node=self.me.node)
