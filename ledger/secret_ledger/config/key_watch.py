"""Finds new keys while a process runs: a re-linked Kubernetes mount, a replaced secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from secret_ledger.errors import LedgerError
from secret_ledger.log import log

__all__ = ["KeyWatch"]


class KeyWatch:
    """Asks for the keys again every `every` seconds. If the gate refuses new keys, logs why.

    Then the keys in hand stay in use.
    """

    def __init__(self, reload: Callable[[], Awaitable[object]], every: float) -> None:
        self.failure: str | None = None
        """Why the last reload of the keys failed. None if it succeeded."""
        self._reload = reload
        self._every = every
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start watching, in a task of its own."""
        self._task = asyncio.create_task(self._watch(), name="secret-ledger key watch")

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Ask once. Never raises an Exception: if this fails, the keys in hand stay in use."""
        failure: str | None = None
        try:
            await self._reload()
        except LedgerError as error:
            failure = f"keys: {error.code}: {error.message}"
        except Exception as error:  # noqa: BLE001  # a provider's own, which may quote a key
            failure = f"keys: the key provider failed ({type(error).__name__})"
        if failure is not None and failure != self.failure:
            log.error("ledger_keys_not_reloaded", reason=failure)
        self.failure = failure

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
