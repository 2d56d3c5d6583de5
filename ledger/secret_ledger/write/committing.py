"""One transaction on the log, tried again until its outcome is known.

Whatever is appended, by the writer or by a rotation, goes through here: a database out of
reach is waited for; a head row at another epoch is followed; and after a commit of unknown
outcome the retry first looks for what the lost transaction may have written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Final, Protocol, TypeVar

from secret_ledger.errors import LedgerError, LedgerUnavailable
from secret_ledger.rules.gate import Standing
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.driver_errors import is_refusal, is_transient
from secret_ledger.write.append import Attempt, Overtaken, was_committed

__all__ = ["Waiters", "commit", "outcome_unknown"]

MAX_FOLLOWS: Final = 20
"""Rotations or flips that one transaction follows before it gives up."""
UNKNOWN: Final = "whether the write was committed is unknown"

T = TypeVar("T")


class Waiters(Protocol):
    """Whoever waits for a transaction."""

    def left(self) -> float:
        """Seconds until the first of them gives up; none left: 0 or less."""
        ...

    def hear(self, error: LedgerError, told: LedgerError) -> bool:
        """Hear of a failure that may be waited out. `told` is for those who give up now: it says
        so where the outcome is unknown. False where nobody waits any longer."""
        ...


class _Alone:
    """One caller, from now on."""

    def __init__(self, patience: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._give_up = self._clock() + patience

    def left(self) -> float:
        return self._give_up - self._clock()

    def hear(self, error: LedgerError, told: LedgerError) -> bool:
        return self.left() > 0


async def commit(
    follower: Follower,
    write: Callable[[Connection, Standing], Attempt | T],
    *,
    patience: float = 0.0,
    waiters: Waiters | None = None,
) -> Attempt | T:
    """Run `write` in one transaction, and again while the database is out of reach.

    `write` is given a standing that may write. It returns what it has written, or something else
    where it wrote nothing; where it raises Overtaken, the control stream is followed, then it
    runs again.
    `patience`: seconds, from now on, unless there are `waiters` who say how long they wait.

    Raises what keeps this node from writing (StaleKey, LedgerMoved), LedgerUnavailable,
    TamperedEvent, and what `write` raises. If nobody knows whether an earlier try was committed,
    any of these says so (`outcome_unknown`).
    """
    database = follower.database
    waiters = waiters or _Alone(patience)
    attempt: Attempt | None = None
    doubt = False
    """Whether a COMMIT failed so that no look into the database can tell what came of it."""
    pause = 0.02
    follows = 0

    def unit(connection: Connection) -> Attempt | T | Overtaken:
        nonlocal attempt
        if attempt is not None:
            committed = was_committed(connection, database, attempt)
            if committed is None:
                raise outcome_unknown(None)
            if committed:
                return attempt
            attempt = None
        standing = follower.standing
        if standing.sealing is None:
            return Overtaken()
        try:
            written = write(connection, standing)
        except Overtaken as overtaken:
            return overtaken
        if isinstance(written, Attempt):
            attempt = written
        return written

    async def run() -> Attempt | T | Overtaken:
        try:
            return await database.run(unit, "write", wait=max(0.0, waiters.left()))
        finally:  # also where nobody knows yet what came of it
            if attempt is not None:
                follower.on_write(attempt.streams)

    looked = False
    while True:
        standing, before = follower.standing, attempt
        try:
            done = await run()
            follower.wrote()
            if isinstance(done, Overtaken):
                standing = await follower.follow(standing)
        except Exception as error:
            if isinstance(error, LedgerError):
                follower.wrote(error)
            in_commit = attempt is not None and attempt is not before
            if in_commit and isinstance(error, LedgerError):
                doubt = doubt or error.outcome_unknown
            if attempt is None and not is_transient(error) and not doubt:
                raise
            told = _told(error, doubt or (attempt is not None and not _undid(error, in_commit)))
            if isinstance(error, LedgerError) and is_transient(error):
                if not waiters.hear(error, told):
                    raise told from None
                await asyncio.sleep(min(pause, max(0.0, waiters.left())))
                pause = min(pause * 2, 1.0)
            elif looked or not in_commit:  # it could not be looked for
                raise told from None
            else:
                looked = True  # once more: it may have been committed all the same
            continue
        if isinstance(done, Attempt):
            follower.saw(done.head)
            follower.lineage.remember_own(done.first)
        if not isinstance(done, Overtaken):
            return done
        if standing.refusal is not None:
            raise copy(standing.refusal)
        follows += 1
        if follows > MAX_FOLLOWS:
            raise LedgerUnavailable(
                "the ledger's head row and its control stream keep disagreeing",
                hint="run `secret-ledger verify --level full`",
            )


def _undid(error: Exception, in_commit: bool) -> bool:
    """Whether `error` says itself that the transaction it ended was not committed."""
    return in_commit and is_refusal(error)


def _told(error: Exception, unknown: bool) -> LedgerError:
    """What a caller is told of `error`; `unknown`: nobody knows what came of a try."""
    if not isinstance(error, LedgerError):  # of an instrumentation, say; it may quote anything
        error = LedgerUnavailable(f"{type(error).__name__} in the midst of a transaction")
    return outcome_unknown(error) if unknown else error


def outcome_unknown(error: LedgerError | None) -> LedgerError:
    """What a caller is told where a write may or may not have been committed, because of `error`;
    None: the generation that it was written to is gone."""
    if error is None:
        error = LedgerUnavailable("the generation that it was written to is gone")
    if error.message.startswith(UNKNOWN):
        return error
    advice = "read the secret before you write it again, and state `expect`"
    # Not for a second try: it could write twice.
    known = {n: fact for n, fact in error.details.items() if n not in ("transient", "refused")}
    return type(error)(
        f"{UNKNOWN}: {error.message}",
        hint=f"{error.hint}; {advice}" if error.hint else advice,
        **{**known, "outcome_unknown": True},
    )
