"""Closing what is open to its end, whoever is cancelled meanwhile."""

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
    """Do `work`, which closes what is open.

    A caller that is cancelled meanwhile, however often or (by a cancelled scope) at every await,
    is so only when the work is done: nobody else would do it.
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
