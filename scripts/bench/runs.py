"""What a contender does in its turn: one operation again and again, or one long one once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from turns import Run, Turn

__all__ = ["once", "once_blocking", "repeating", "repeating_in_threads"]


def repeating(
    operation: Callable[[], Awaitable[object]], seconds: float, *, callers: int = 1, each: int = 1
) -> Run:
    """Call it for so long, by so many tasks at once; each call does `each` operations."""

    async def run() -> Turn:
        took: list[float] = []
        began = perf_counter()

        async def caller() -> None:
            before = perf_counter()
            while before - began < seconds:
                await operation()
                after = perf_counter()
                took.append(after - before)
                before = after

        if callers == 1:
            await caller()
        else:
            await asyncio.gather(*(caller() for _ in range(callers)))
        return _turn(took, perf_counter() - began, alone=callers * each == 1, each=each)

    return run


def repeating_in_threads(operations: Sequence[Callable[[], object]], seconds: float) -> Run:
    """The same of a library that blocks: a thread for each operation, or none for a single one."""

    async def run() -> Turn:
        took: list[float] = []
        began = perf_counter()

        def caller(operation: Callable[[], object]) -> None:
            before = perf_counter()
            while before - began < seconds:
                operation()
                after = perf_counter()
                took.append(after - before)
                before = after

        if len(operations) == 1:
            caller(operations[0])
        else:
            with ThreadPoolExecutor(len(operations)) as threads:
                for done in [threads.submit(caller, operation) for operation in operations]:
                    done.result()
        return _turn(took, perf_counter() - began, alone=len(operations) == 1)

    return run


def once(operation: Callable[[], Awaitable[int]]) -> Run:
    """Call it once; it says how much it has done."""

    async def run() -> Turn:
        began = perf_counter()
        done = await operation()
        seconds = perf_counter() - began
        return Turn(done, seconds, took=seconds)

    return run


def once_blocking(operation: Callable[[], int]) -> Run:
    """The same of a library that blocks."""

    async def called() -> int:
        return operation()

    return once(called)


def _turn(took: list[float], seconds: float, *, alone: bool, each: int = 1) -> Turn:
    done = len(took) * each
    if not alone:  # how long one waited for others is no latency of an operation
        return Turn(done, seconds)
    took.sort()
    return Turn(done, seconds, p50=took[len(took) // 2], p99=took[len(took) * 99 // 100])
