"""Closing a database to its end, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

import anyio

from ledger.store.database import Database

__all__ = ["close"]


async def close(database: Database) -> None:
    """Close `database`, which takes a few seconds at most.

    A caller that is cancelled meanwhile, once or (by a cancelled scope) at every await, is so
    only when it is closed: nobody else would close what is open.
    """
    with anyio.CancelScope(shield=True):
        closing = asyncio.ensure_future(database.close())
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError:
                cancelled = True
    closing.result()
    if cancelled:
        raise asyncio.CancelledError
