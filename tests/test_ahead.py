"""One item ahead: what is made while the caller works, and what becomes of it when he leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from inside import ahead


async def others_run() -> None:
    """Let the loop's other tasks get as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Numbers:
    """Makes the numbers below `end`, one by one; then raises `error`, if there is one."""

    def __init__(self, end: int, error: Exception | None = None) -> None:
        self.made: list[int] = []
        self.closed = False
        self._end = end
        self._error = error

    async def items(self) -> AsyncGenerator[int]:
        try:
            for number in range(self._end):
                await asyncio.sleep(0)
                self.made.append(number)
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def test_the_next_item_is_made_while_the_caller_has_one_and_no_more_than_that() -> None:
    numbers = Numbers(5)
    got: list[int] = []
    async for number in ahead(numbers.items()):
        got.append(number)
        await others_run()
        assert len(numbers.made) == min(number + 2, 5)
    assert got == list(range(5))
    assert numbers.closed


async def test_what_the_source_raises_comes_after_all_that_it_has_made() -> None:
    numbers = Numbers(2, ValueError("the source"))
    items = ahead(numbers.items())
    assert [await anext(items), await anext(items)] == [0, 1]
    with pytest.raises(ValueError, match="the source"):
        await anext(items)
    assert numbers.closed


@pytest.mark.parametrize("error", [None, ValueError("the source")])
async def test_a_caller_that_leaves_early_ends_the_source_and_hears_nothing_more_of_it(
    error: Exception | None,
) -> None:
    numbers = Numbers(1 if error else 9, error)
    async with aclosing(ahead(numbers.items())) as items:
        async for _ in items:
            break
        await others_run()
    assert numbers.closed
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("given", [0, 1])
async def test_a_source_that_hangs_is_ended_where_its_caller_leaves_or_is_cancelled(
    given: int,
) -> None:
    closed = asyncio.Event()

    async def hanging() -> AsyncGenerator[int]:
        try:
            for number in range(given):
                yield number
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def leave() -> None:
        async with aclosing(ahead(hanging())) as items:
            async for _ in items:
                break

    leaving = asyncio.create_task(leave())
    await others_run()
    if not given:
        leaving.cancel()
    done, _ = await asyncio.wait([leaving], timeout=30)
    assert done
    assert leaving.cancelled() == (not given)
    assert closed.is_set()
