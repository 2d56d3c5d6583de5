"""A contender's turn: one operation again and again, or one long operation once."""

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
    """Call `operation` for `seconds`, in `callers` tasks. Each call does `each` operations."""

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
    """Call operations of a library that blocks, each in a thread; a single operation needs none."""

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
    """Call `operation` once. It returns the number of things done."""

    async def run() -> Turn:
        began = perf_counter()
        done = await operation()
        seconds = perf_counter() - began
        return Turn(done, seconds, took=seconds)

    return run


def once_blocking(operation: Callable[[], int]) -> Run:
    """Call an operation of a library that blocks, once."""

    async def called() -> int:
        return operation()

    return once(called)


def _turn(took: list[float], seconds: float, *, alone: bool, each: int = 1) -> Turn:
    done = len(took) * each
    if not alone:  # a wait for other callers is no latency of an operation
        return Turn(done, seconds)
    took.sort()
    return Turn(done, seconds, p50=took[len(took) // 2], p99=took[len(took) * 99 // 100])
