"""`nodes --watch`: the same question again and again, until somebody ends the command.

A terminal shows one table that is kept up to date. A pipe gets a snapshot whenever something
has changed. If the database is out of reach, the watch says so and goes on trying.
"""

from __future__ import annotations

import asyncio
import select
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, Protocol

from secret_ledger.cli.output import Columns, Output, facts
from secret_ledger.cli.rollout import Rollout
from secret_ledger.errors import LedgerUnavailable

__all__ = ["Lines", "View", "ended_in_order", "watch"]

PATIENCE: Final = 5.0
"""Seconds without an answer after which the watch says so."""
TERMINATED: Final = 128 + signal.SIGTERM
_KEY: Final = ("state", "key_id", "key_fingerprint", "readers", "live")


class View(Protocol):
    """Where a watch shows its answers."""

    def show(self, seen: Rollout) -> None:
        """Show the fleet as it is now."""
        ...

    def out_of_reach(self, why: str) -> None:
        """Say why the state of the fleet is unknown."""
        ...


async def watch(ask: Callable[[], Awaitable[Rollout]], view: View, every: float) -> NoReturn:
    """Show the answer of `ask` in `view`, every `every` seconds, until cancelled.

    LedgerUnavailable is shown, and any other error of `ask` is raised. Raises BrokenPipeError if
    stdout is a pipe that nobody reads any more.
    """
    asked: asyncio.Task[Rollout] | None = None
    since = time.monotonic()
    try:
        while True:
            began = time.monotonic()
            if asked is None:
                asked, since = asyncio.ensure_future(_twice(ask)), began
            # One question at a time: a second question does not help a database that hangs.
            await asyncio.wait({asked}, timeout=max(every, PATIENCE))
            if not asked.done():
                waited = time.monotonic() - since
                view.out_of_reach(f"the database has not answered for {waited:.0f} s")
                _check_reader()
                continue
            try:
                view.show(asked.result())
            except LedgerUnavailable as error:
                view.out_of_reach(error.message)
            asked = None
            await _pause(began + every)
    finally:
        if asked is not None:
            asked.cancel()


async def _twice(ask: Callable[[], Awaitable[Rollout]]) -> Rollout:
    try:
        return await ask()
    except LedgerUnavailable:
        # An idle connection may be dead: a new connection tells whether the database is down.
        return await ask()


async def _pause(until: float) -> None:
    while True:
        _check_reader()
        left = until - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, 1.0))  # whether the reader has gone is asked in between


def _check_reader() -> None:
    """Raises BrokenPipeError if stdout is a pipe that nobody reads any more.

    Without a change no write would notice it: a script that waits for this process would wait for
    ever.
    """
    told: list[tuple[int, int]] = []
    with suppress(OSError, ValueError, AttributeError):  # stdout may be closed, or no file at all
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        told = poll.poll(0)
    if any(flags & (select.POLLERR | select.POLLHUP) for _, flags in told):
        raise BrokenPipeError


class Lines:
    """Prints a snapshot whenever something has changed.

    A snapshot is one JSON document in one line, or tab-separated lines and an empty line.
    """

    def __init__(self, output: Output, columns: Columns) -> None:
        self._output = output
        self._columns = columns
        self._shown: object = None
        self._out_of_reach = False

    def show(self, seen: Rollout) -> None:
        if self._out_of_reach:
            self._out_of_reach = False
            self._output.note("the database answers again")
        settled = seen.settled()
        if settled == self._shown:
            return
        self._shown = settled
        if self._output.as_json:
            self._output.document(facts(seen))
        else:
            self._rows(facts(seen))
        sys.stdout.flush()

    def _rows(self, known: dict[str, Any]) -> None:
        for key in known["keys"]:
            self._output.line(*(key[column] for column in _KEY))
        for node in known["nodes"]:
            self._output.line(*(node[column] for column in self._columns.all))
        print()

    def out_of_reach(self, why: str) -> None:
        if not self._out_of_reach:
            self._out_of_reach = True
            self._output.warning(f"{why}; still trying")


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Make SIGTERM raise SystemExit in the block, so that the terminal is left as it was."""

    def end(*_: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
