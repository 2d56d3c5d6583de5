"""How a running process keeps up with its ledger's control stream.

Each read and each append meets the head row; where its generation or key epoch is new, and
before any verdict of MissingKey or TamperedEvent, the process first reads on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import LedgerError, NotALedger, TamperedEvent
from secret_ledger.model.rows import Head, State
from secret_ledger.rules.gate import Standing, check_pinned, check_state, judge
from secret_ledger.session.lineage import Lineage
from secret_ledger.store.database import Database
from secret_ledger.store.driver_errors import hinders_writes
from secret_ledger.store.reads import read_state
from secret_ledger.store.retry import Read, patiently
from secret_ledger.store.schema import check_version, read_meta

__all__ = ["Follower", "snapshot"]

HINDERED: Final = 60.0
"""Seconds for which a write that failed speaks for the next one. A node that is not ready may
get no writes, which alone would show that the disk has room again."""


async def snapshot(
    database: Database, *, upgrading: bool = False, read: Read | None = None
) -> State | None:
    """All that the gate looks at, in one snapshot. None where there is no ledger.

    Raises SchemaOutdated, SchemaTooNew, NotALedger.
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
        """Hears which streams this process may have written to, before any caller does."""
        self.in_doubt = False
        """Whether what was read last could not be followed: damage, or another ledger."""
        self._unwritable: tuple[str, float] | None = None
        self._lock = asyncio.Lock()

    def is_current(self, head: Head, control_version: object = None) -> bool:
        """Whether a head row is of the generation and epoch that the standing covers; and the
        control stream, if its newest version is given, has not grown since."""
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

    def saw(self, head: Head) -> None:
        """Remember how far the log has got."""
        self.lineage.saw(head)

    @property
    def unwritable(self) -> str | None:
        """Why a write of this process failed lately, if that hinders every other write too and
        none has succeeded since."""
        if self._unwritable is None or time.monotonic() - self._unwritable[1] > HINDERED:
            return None
        return self._unwritable[0]

    def wrote(self, failure: LedgerError | None = None) -> None:
        """A write has succeeded, or failed."""
        if failure is None:
            self._unwritable = None
        elif hinders_writes(failure):
            self._unwritable = failure.message, time.monotonic()

    async def follow(self, known: Standing | None = None, *, read: Read = patiently) -> Standing:
        """Read the control stream again, unless somebody has since `known`.

        Raises TamperedEvent where it got shorter or other, WrongLedger or NotALedger where
        the database was exchanged.
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
        """What the ledger says of another keyring; the one in hand stays.

        Raises what the gate refuses it with: KeyFingerprintMismatch, StaleKey, TamperedEvent.
        """
        return self._judged(await snapshot(self.database), keyring, strict=True)

    async def adopt(self, keyring: Keyring) -> Standing:
        """Go on with another keyring. Raises what `judge` raises; then nothing changed."""
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
        return judge(control, keyring, strict=strict, moved=moved)
