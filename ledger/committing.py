"""One transaction on the log, tried again until its outcome is known.

Whatever is appended, by the writer or by a rotation, goes through here: a database out of
reach is waited for; a head row at another epoch is followed; and after a commit of unknown
outcome the retry first looks for what the lost transaction may have written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Final, TypeVar

from ledger.append import Attempt, was_committed
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.following import Follower
from ledger.gate import Standing
from ledger.store.connection import Connection
from ledger.store.translate import is_transient

__all__ = ["commit", "outcome_unknown"]

MAX_FOLLOWS: Final = 20
"""Rotations or flips that one transaction follows before it gives up."""

T = TypeVar("T")


async def commit(
    follower: Follower,
    write: Callable[[Connection, Standing], Attempt | T | None],
    *,
    patience: float,
) -> Attempt | T:
    """Run `write` in one transaction, and again while the database is out of reach.

    `write` is given a standing that may write; it returns what it has written, something else
    where it wrote nothing, or None where the control stream has grown: read on, then again.
    `patience`: seconds. Raises what keeps this node from writing (StaleKey, LedgerMoved),
    LedgerUnavailable, TamperedEvent, and what `write` raises.
    """
    database = follower.database
    give_up = asyncio.get_running_loop().time() + patience
    attempt: Attempt | None = None
    looked = False
    doubt: LedgerError | None = None
    """Of a COMMIT that failed so that no look into the database can tell what came of it."""
    pause = 0.02
    follows = 0

    def unit(connection: Connection) -> Attempt | T | None:
        nonlocal attempt
        if attempt is not None:
            committed = was_committed(connection, database, attempt)
            if committed is None:
                raise outcome_unknown(None)
            if committed:
                return attempt
            attempt = None
        standing = follower.standing
        if standing.held is None:
            return None
        written = write(connection, standing)
        if isinstance(written, Attempt):
            attempt = written
        return written

    async def run() -> Attempt | T | None:
        try:
            return await database.run(unit, "write")
        finally:  # also where nobody knows yet what came of it
            if attempt is not None:
                follower.on_write(attempt.streams)

    while True:
        standing = follower.standing
        try:
            done = await run()
            if done is None:
                standing = await follower.follow(standing)
        except LedgerError as error:
            if error.details.get("outcome_unknown") and attempt is not None:
                doubt = error
            if not is_transient(error):
                if attempt is None or looked:
                    if doubt is not None:
                        raise outcome_unknown(error) from None
                    raise
                looked = True  # once more: it may have been committed all the same
                continue
            if asyncio.get_running_loop().time() + pause > give_up:
                if attempt is None and doubt is None:
                    raise
                raise outcome_unknown(error) from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
            continue
        if isinstance(done, Attempt):
            follower.saw(done.head)
        if done is not None:
            return done
        if standing.refusal is not None:
            raise copy(standing.refusal)
        follows += 1
        if follows > MAX_FOLLOWS:
            raise LedgerUnavailable(
                "the ledger's head row and its control stream keep disagreeing",
                hint="run `secret-ledger verify --level full`",
            )


def outcome_unknown(error: LedgerError | None) -> LedgerUnavailable:
    """What a caller is told where a write may or may not have been committed."""
    reason = error.message if error else "the generation that it was written to is gone"
    first = f"{error.hint}; " if error and error.hint else ""
    return LedgerUnavailable(
        f"whether the write was committed is unknown: {reason}",
        hint=f"{first}read the secret before you write it again, and state `expect`",
        outcome_unknown=True,
    )
