"""Group commit: one writer task a process, one transaction a batch, one outcome a caller.

Callers queue their requests. The writer takes the waiting requests, runs `batch` once, and gives
each caller its own outcome. While a transaction is under way, the next batch gathers: all its
callers share one commit. If a caller is cancelled, its request leaves the queue, or its write
happens; no other caller notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final

from secret_ledger.errors import LedgerError, LedgerUnavailable, ProjectionFailed
from secret_ledger.log import log
from secret_ledger.model.rows import LogHead
from secret_ledger.model.versions import SecretInfo
from secret_ledger.read.older import walk_to_floor, walk_to_restore
from secret_ledger.rules.decide import Destroy, Intent, Put, Restore, Walked, WalkNeeded
from secret_ledger.rules.gate import MAX_EVENTS_PER_KEY, Standing
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.driver_errors import is_refusal
from secret_ledger.store.projection import InlineProjection
from secret_ledger.store.retry import Read, for_a_write
from secret_ledger.write.append import Attempt, Outcome
from secret_ledger.write.batch import Request, append
from secret_ledger.write.committing import commit, outcome_unknown

__all__ = ["Writer"]

QUEUE: Final = 4096
"""Requests that may wait. If the queue is full, a caller waits for room."""
GRACE: Final = 5.0
"""Seconds, beside the patience, that a batch may take when the ledger is closed."""
BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Waiting:
    request: Request
    size: int
    outcome: asyncio.Future[Sequence[SecretInfo]]
    since: float
    """When the caller called: seconds, by the event loop's clock."""
    until: float
    """When the caller gives up, if the database still fails: seconds, by the event loop's clock."""


class _Batch:
    """The callers of one transaction. Implements `committing.Waiters`."""

    def __init__(self, callers: Sequence[_Waiting], trouble: Callable[[LedgerError], None]) -> None:
        self._callers = callers
        self._trouble = trouble
        self._clock = asyncio.get_running_loop().time
        self.written: Sequence[_Waiting] = ()
        """The callers whose requests the last try decided."""

    def requests(self) -> list[Request]:
        """Returns the requests of the callers that still wait."""
        self.written = self._waiting()
        return [caller.request for caller in self.written]

    def _waiting(self) -> list[_Waiting]:
        return [caller for caller in self._callers if not caller.outcome.done()]

    def left(self) -> float:
        """Returns the seconds until the first caller gives up; 0 if no caller waits."""
        now = self._clock()
        return min((caller.until - now for caller in self._waiting()), default=0.0)

    def hear(self, error: LedgerError, told: LedgerError) -> bool:
        """Answer the callers whose time is over. Returns whether any caller is left."""
        self._trouble(error)
        now = self._clock()
        for caller in self._waiting():
            if caller.until <= now:
                caller.outcome.set_exception(copy(told))
        return bool(self._waiting())


class Writer:
    """Appends the writes of all callers in this process, one batch at a time."""

    def __init__(
        self,
        follower: Follower,
        projections: Sequence[InlineProjection],
        *,
        patience: float,
    ) -> None:
        self._follower = follower
        self._database = follower.database
        self._projections = projections
        self._patience = patience
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(QUEUE)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._held_over: _Waiting | None = None
        self._warned = False
        self._batches = 0
        """Number of batches that have ended."""
        self._left: LogHead | None = None
        """The head row as the last batch left it."""
        self._trouble: tuple[LedgerError, float] | None = None
        """The last failed write: error, and seconds by the loop's clock. None after a success."""

    async def submit(self, intents: Sequence[Intent]) -> Sequence[SecretInfo]:
        """Write all of `intents` in one transaction, or none. Raises the error that refused them.

        A restore first reads the versions below the newest event, without the lock. So does any
        write if an older release wrote the newest event. If that event changes before the lock is
        taken, they are read again.
        """
        if not isinstance(intents[0], Restore):  # else it is the only one
            try:
                return await self._submit(Request(intents))
            except WalkNeeded as error:
                needed = error.streams
        else:
            needed = [intents[0].stream]
        read = for_a_write(self._patience)
        walked: dict[str, Walked] = {}
        while True:
            for stream in needed:
                walked |= await self._walk(stream, intents[0], read)
            try:
                return await self._submit(Request(intents, walked))
            except WalkNeeded as error:
                needed = error.streams

    async def _walk(self, stream: str, intent: Intent, read: Read) -> Mapping[str, Walked]:
        if isinstance(intent, Restore):
            found = await walk_to_restore(self._follower, intent, read)
        else:
            found = await walk_to_floor(self._follower, stream, read)
        return {} if found is None else {stream: found}

    async def _submit(self, request: Request) -> Sequence[SecretInfo]:
        if self._closed:
            raise _closed()
        since = asyncio.get_running_loop().time()
        self._database.home.check()
        self._serve()
        size = sum(len(i.value.reveal()) for i in request.intents if isinstance(i, Put))
        outcome: asyncio.Future[Sequence[SecretInfo]] = asyncio.get_running_loop().create_future()
        until = since + self._patience
        await self._queue.put(_Waiting(request, size, outcome, since, until))
        if self._is_over():  # while the request waited for room
            raise _closed()
        self._serve()
        return await outcome

    async def close(self) -> None:
        """Write the waiting requests, then stop. If a batch takes too long, it is cancelled."""
        self._closed = True
        task = self._task
        if task is None or task.done():
            return
        await self._queue.put(None)
        while not task.done():
            batches = self._batches
            await asyncio.wait([task], timeout=self._patience + GRACE)
            if self._batches == batches:
                task.cancel()

    def _is_over(self) -> bool:
        return self._closed and (self._task is None or self._task.done())

    def _serve(self) -> None:
        """Start the writer task, unless it runs."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="secret-ledger writer")
            self._task.add_done_callback(self._has_ended)

    async def _run(self) -> None:
        ending = False
        while not ending or self._held_over or not self._queue.empty():
            batch, ended = await self._gather(wait=not ending)
            ending = ending or ended
            if batch:
                try:
                    await self._write_out(batch)
                except BaseException:  # whatever it is, nobody may wait for ever
                    _give_up(batch, outcome_unknown(_cancelled("it was under way")))
                    raise
                self._batches += 1

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        """If a host has cancelled every task of the loop, requests may wait: for another task."""
        if task is not self._task:
            return
        left = [self._held_over] if self._held_over else []
        while not self._queue.empty():
            left += [request for request in [self._queue.get_nowait()] if request]
        self._held_over = None
        waiting = [request for request in left if not request.outcome.done()]
        if self._closed or not task.cancelled():
            _give_up(waiting, _cancelled("the write was not begun"))
        elif waiting:
            self._held_over = waiting[0]
            for request in waiting[1:]:
                self._queue.put_nowait(request)
            self._serve()

    async def _gather(self, *, wait: bool) -> tuple[list[_Waiting], bool]:
        batch: list[_Waiting] = []
        ended = False
        events = size = 0
        while True:
            if self._held_over is not None:
                waiting: _Waiting | None = self._held_over
                self._held_over = None
            elif not self._queue.empty():
                waiting = self._queue.get_nowait()
            elif not batch and wait and not ended:
                waiting = await self._queue.get()
            else:
                return batch, ended
            if waiting is None:
                ended = True
                continue
            if waiting.outcome.done():  # its caller was cancelled
                continue
            if trouble := self._outlasted(waiting):
                waiting.outcome.set_exception(copy(trouble))
                continue
            events += len(waiting.request.intents)
            size += waiting.size
            full = events > BATCH_EVENTS or size > BATCH_BYTES
            if batch and (full or _ends_what_is_written(waiting, batch)):
                self._held_over = waiting
                return batch, ended
            batch.append(waiting)

    def _outlasted(self, waiting: _Waiting) -> LedgerError | None:
        """If a failure lasted for a caller's whole patience, the caller gets it without a try."""
        error, at = self._trouble or (None, 0.0)
        patient = asyncio.get_running_loop().time() < waiting.until
        return None if patient or at < waiting.since else error

    def _heard(self, error: LedgerError) -> None:
        self._trouble = error, asyncio.get_running_loop().time()

    async def _write_out(self, callers: Sequence[_Waiting]) -> None:
        outcomes: Sequence[Outcome | Exception]
        if all(waiting.outcome.done() for waiting in callers):
            return
        group = _Batch(callers, self._heard)
        batch = callers
        try:
            outcomes = await self._commit(group)
            batch = group.written
            one_at_fault = False
        except LedgerError as error:
            outcomes = [error] * len(batch)
            one_at_fault = is_refusal(error) or isinstance(error, ProjectionFailed)
        except Exception as error:  # noqa: BLE001  # a projection's own error: the callers' answer
            outcomes = [error] * len(batch)
            one_at_fault = True
        if one_at_fault and len(batch) > 1:  # the other callers must not pay for it
            for waiting in batch:
                await self._write_out([waiting])
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.outcome.done():
                continue
            if isinstance(outcome, LedgerError):
                # A copy for each caller: each raise hangs frames on the error.
                waiting.outcome.set_exception(copy(outcome))
            elif isinstance(outcome, Exception):
                waiting.outcome.set_exception(outcome)
            else:
                waiting.outcome.set_result(outcome)

    async def _commit(self, batch: _Batch) -> Sequence[Outcome]:
        follower = self._follower

        def write(c: Connection, standing: Standing) -> Attempt | Sequence[Outcome]:
            requests = batch.requests()
            if not requests:  # nobody waits any longer
                return []
            return append(
                c, follower.database, standing, requests, self._projections, follower.seen,
                self._left,
            )  # fmt: skip

        done = await commit(follower, write, waiters=batch)
        self._trouble = None
        if not isinstance(done, Attempt):
            return done
        self._left = done.head
        control = follower.standing.control
        self._warn_of_exhaustion(control.seals_under_active(done.head.position))
        return done.outcomes

    def _warn_of_exhaustion(self, events: int) -> None:
        if events >= MAX_EVENTS_PER_KEY // 2 and not self._warned:
            self._warned = True
            log.warning(
                "key_nearly_exhausted",
                events=events,
                bound=MAX_EVENTS_PER_KEY,
                advice="rotate to a new key: secret-ledger keys rotate",
            )


def _ends_what_is_written(waiting: _Waiting, batch: Sequence[_Waiting]) -> bool:
    """Whether a request destroys a secret that the batch writes. An end states the rows below it,
    so these rows must be in the database by then."""
    ended = {i.stream for i in waiting.request.intents if isinstance(i, Destroy)}
    return bool(ended) and any(
        intent.stream in ended for other in batch for intent in other.request.intents
    )


def _give_up(batch: Sequence[_Waiting], error: LedgerError) -> None:
    for waiting in batch:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(copy(error))


def _cancelled(what: str) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger's writer was cancelled: {what}")


def _closed() -> LedgerUnavailable:
    return LedgerUnavailable("the ledger is closed", hint="open it again")
