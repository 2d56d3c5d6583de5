"""Closing that always comes to its end, even if its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio

from secret_ledger.store.database import Database

__all__ = ["close", "to_its_end"]


async def close(database: Database) -> None:
    """Close `database`, which takes a few seconds at most. See `to_its_end`."""
    await to_its_end(database.close())


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, which closes something that is open, to its end.

    If the caller is cancelled meanwhile, CancelledError is raised only when the work is done:
    nobody else would do it. The caller may be cancelled often or, by a cancelled scope, at every
    await.
    """
    with anyio.CancelScope(shield=True):
        closing = asyncio.ensure_future(work)
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError:
                cancelled = True
    closing.result()
    if cancelled:
        raise asyncio.CancelledError
