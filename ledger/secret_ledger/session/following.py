"""How a running process keeps up with its ledger's control stream.

Each read and each append meets the head row. If its generation or key epoch is new, the process
first follows the control stream. It also does so before it reports MissingKey or TamperedEvent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import LedgerError, NotALedger, TamperedEvent
from secret_ledger.model.rows import LogHead, State
from secret_ledger.rules.gate import Standing, check_pinned, check_state, judge_keys
from secret_ledger.session.lineage import Lineage
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import hinders_writes
from secret_ledger.store.reads import read_state
from secret_ledger.store.retry import Read, patiently
from secret_ledger.store.schema import check_version, read_meta

__all__ = ["Follower", "snapshot"]

HINDERED: Final = 60.0
"""Seconds for which a failed write can make the node unready.

A node that is not ready may get no writes, and only a write would show that the disk has room.
"""


async def snapshot(
    database: Database, *, upgrading: bool = False, read: Read | None = None
) -> State | None:
    """Read all rows that the gate checks, in one snapshot. Returns None if no ledger is found.

    Raises SchemaOutdated, SchemaTooNew, NotALedger, LedgerUnavailable.
    """

    def unit(connection: object) -> State | None:
        meta = read_meta(connection, database)  # type: ignore[arg-type]
        if meta is None:
            return None
        check_version(meta, upgrading=upgrading)
        return read_state(connection, database, meta)  # type: ignore[arg-type]

    return await (read(database, unit, "snapshot") if read else database.run(unit, "snapshot"))


class Follower:
    """The process's standing, replaced whole whenever the control stream has grown."""

    def __init__(self, database: Database, keyring: Keyring, standing: Standing) -> None:
        self.database = database
        self.keyring = keyring
        self.standing = standing
        self.lineage = Lineage(database, standing.control.ledger_id)
        self.on_write: Callable[[Collection[str]], None] = lambda streams: None
        """Called with the streams that this process may have changed, before any caller hears."""
        self.in_doubt = False
        """Whether the last control stream read was refused: damage, or another ledger."""
        self._unwritable: tuple[str, float] | None = None
        self._lock = asyncio.Lock()

    def is_current(self, head: LogHead, control_version: object = None) -> bool:
        """Whether the standing covers the generation, key epoch and move that a head row states.

        `control_version`: the newest version of the control stream; if given, it must not be new.
        """
        control = self.standing.control
        return (
            (head.generation, head.key_epoch) == (control.generation, control.epoch)
            and (head.state == "moved") == self.standing.moved
            and control_version in (None, control.last.version)
        )

    @property
    def seen(self) -> int:
        """The highest position that any read or append has met."""
        return self.lineage.seen

    def saw(self, head: LogHead) -> None:
        """Remember how far the log has got."""
        self.lineage.saw(head)

    @property
    def unwritable(self) -> str | None:
        """Why a write of this process failed, if that hinders every other write too.

        None if a write has succeeded since, or if the failure is older than 60 seconds.
        """
        if self._unwritable is None or time.monotonic() - self._unwritable[1] > HINDERED:
            return None
        return self._unwritable[0]

    def wrote(self, failure: LedgerError | None = None) -> None:
        """Record that a write has succeeded, or failed with `failure`."""
        if failure is None:
            self._unwritable = None
        elif hinders_writes(failure):
            self._unwritable = failure.message, time.monotonic()

    async def follow(self, known: Standing | None = None, *, read: Read = patiently) -> Standing:
        """Read and prove the control stream again, unless another task has done so since `known`.

        Raises TamperedEvent if the control stream is shorter or its past has changed, WrongLedger
        or NotALedger if the database was exchanged, and LedgerUnavailable.
        """
        async with self._lock:
            if known is not None and self.standing is not known:
                return self.standing
            state = await snapshot(self.database, read=read)
            self.in_doubt = True
            self.standing = self._judged(state, self.keyring, strict=False)
            self.in_doubt = False
            return self.standing

    async def judge(self, keyring: Keyring) -> Standing:
        """Judge another keyring; the keyring in hand stays.

        Raises the refusals of the gate: KeyFingerprintMismatch, StaleKey, TamperedEvent.
        """
        return self._judged(await snapshot(self.database), keyring, strict=True)

    async def adopt(self, keyring: Keyring) -> Standing:
        """Use another keyring from now on. If this raises an error of `judge`, nothing changes."""
        async with self._lock:
            self.standing = await self.judge(keyring)
            self.keyring = keyring
            return self.standing

    def _judged(self, state: State | None, keyring: Keyring, *, strict: bool) -> Standing:
        kept = self.standing.control
        if state is None:
            raise NotALedger(f"{self.database.place} holds no ledger any more")
        check_pinned(state.meta.ledger_id, kept.ledger_id)
        control = check_state(state)
        if not control.extends(kept) or control.generation < kept.generation:
            raise TamperedEvent(
                "the control stream is not the one that this process has verified before:"
                " it is shorter, or its past was changed",
                hint="an older copy of the database may have been put in place",
            )
        moved = state.in_use[0].state == "moved"
        return judge_keys(control, keyring, strict=strict, moved=moved)
