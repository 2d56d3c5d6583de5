"""One transaction on the log, tried again until its outcome is known.

Each append of an open ledger, by the writer or by a rotation, goes through here. If the database
is out of reach, the transaction waits. If the head row is at another epoch, the process follows
the control stream. If a commit's outcome is unknown, the next try first looks for the lost
transaction's event.
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
"""Rotations or migrations that one transaction follows before it gives up."""
UNKNOWN: Final = "whether the write was committed is unknown"

T = TypeVar("T")


class Waiters(Protocol):
    """The callers that wait for a transaction."""

    def left(self) -> float:
        """Returns the seconds until the first caller gives up; 0 or less if no time is left."""
        ...

    def hear(self, error: LedgerError, told: LedgerError) -> bool:
        """Hear of a failure that may pass. Returns False if no caller waits any longer.

        `told`: the error for the callers that give up now. If the outcome is unknown, it says so.
        """
        ...


class _Alone:
    """One caller, whose patience begins now."""

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

    `write` is given a standing that may write. It returns its attempt, or any other value if it
    wrote nothing. If it raises Overtaken, the control stream is followed, and `write` runs again.
    `patience`: seconds, from now on; if `waiters` are given, they say how long they wait.

    Raises the reason if this node may not write (StaleKey, LedgerMoved), LedgerUnavailable,
    TamperedEvent, and the errors of `write`. If nobody knows whether an earlier try was committed,
    any of these says so (`outcome_unknown`).
    """
    database = follower.database
    waiters = waiters or _Alone(patience)
    attempt: Attempt | None = None
    doubt = False
    """Whether a COMMIT failed so that no look into the database can tell its outcome."""
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

    looked = False
    while True:
        standing, before = follower.standing, attempt
        try:
            try:
                done = await database.run(unit, "write", wait=max(0.0, waiters.left()))
            finally:  # also if the outcome is unknown
                if attempt is not None:
                    follower.on_write(attempt.streams)
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
                # Longer after each failure, and never beyond the patience.
                await asyncio.sleep(min(pause, max(0.0, waiters.left())))
                pause = min(pause * 2, 1.0)
            elif looked or not in_commit:  # the attempt could not be looked for
                raise told from None
            else:
                looked = True  # once more: the attempt may have been committed all the same
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
    """Whether `error` itself says that its transaction was not committed."""
    return in_commit and is_refusal(error)


def _told(error: Exception, unknown: bool) -> LedgerError:
    """`unknown`: whether the outcome of a try is unknown, which the caller is told."""
    if not isinstance(error, LedgerError):  # an instrumentation's, say: it may quote anything
        error = LedgerUnavailable(f"{type(error).__name__} during a transaction")
    return outcome_unknown(error) if unknown else error


def outcome_unknown(error: LedgerError | None) -> LedgerError:
    """The error for a caller whose write may or may not have been committed, because of `error`.

    `error` is None if the generation that the write went to is gone.
    """
    if error is None:
        error = LedgerUnavailable("the generation that the write went to is gone")
    if error.message.startswith(UNKNOWN):
        return error
    advice = "read the secret before you write it again, and state `expect`"
    # The facts that allow a second try are left out: it could write twice.
    known = {n: fact for n, fact in error.details.items() if n not in ("transient", "refused")}
    return type(error)(
        f"{UNKNOWN}: {error.message}",
        hint=f"{error.hint}; {advice}" if error.hint else advice,
        **{**known, "outcome_unknown": True},
    )
