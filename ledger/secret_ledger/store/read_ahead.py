"""Reads one item ahead: the database gives the next page while the caller works on the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


async def ahead(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yields the same items; the next item is made while the caller works on the last.

    A caller that may leave before the end must close the generator (`contextlib.aclosing`). That
    cancels the item under way, and closes `items`.
    """

    async def following() -> T | None:
        return await anext(items, None)

    async with aclosing(items):
        coming = asyncio.create_task(following())
        try:
            while (item := await coming) is not None:
                coming = asyncio.create_task(following())
                yield item
        finally:
            coming.cancel()
            await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()  # marks it as retrieved: nobody asks for that item any more
