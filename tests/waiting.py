"""Waiting for a condition, where a test would otherwise sleep and hope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Return once `condition` holds. Raises TimeoutError where it does not in time."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # any condition: nothing sets an event
            await asyncio.sleep(0.01)
