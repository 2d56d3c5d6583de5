"""One item ahead: the next page comes from the database while the last one is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


async def ahead(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The same items, each made while the caller still has the one before in hand.

    Whoever may leave before the end closes it (`contextlib.aclosing`); what is under way is
    cancelled then, and `items` closed.
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
                coming.exception()  # looked at: nobody asks for that item any more
