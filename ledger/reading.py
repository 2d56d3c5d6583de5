"""How a read happens: one statement, the head row beside the rows, a verdict at the end.
What else a verdict rests on (the end of a secret, what follows a time) is read with it.

A `get` ends in one of four ways, never confused: the value; SecretDeleted or SecretDestroyed;
MissingKey; TamperedEvent. Listings read metadata only and never decrypt, so that one damaged
row can't hide the others; they need no key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from typing import NamedTuple

from ledger.answer import check_answer, check_end, check_next
from ledger.authority import read_event
from ledger.decide import deleted, destroyed, not_found
from ledger.errors import (
    InvalidValue,
    MissingKey,
    SecretNotFound,
    TamperedEvent,
)
from ledger.events import CONTROL_STREAM, Event, to_microseconds
from ledger.following import Follower
from ledger.format import context_of
from ledger.gate import Standing
from ledger.names import normalise_prefix
from ledger.secret import Secret
from ledger.store.connection import Connection
from ledger.store.database import Database, Mode
from ledger.store.patience import patiently
from ledger.store.reads import (
    Found,
    find,
    head_in_use,
    heads_page,
    stream_page,
    with_witnesses,
)
from ledger.versions import SecretInfo, SecretVersion, info_of, version_of

__all__ = [
    "Facts",
    "facts_of",
    "get_secret",
    "list_history",
    "list_secrets",
    "patiently",
    "verdict",
]


class Facts(NamedTuple):
    """What an event says of itself, worked out once for many answers. Its value is not in it."""

    context: bytes
    """Its seal's associated data."""
    info: SecretInfo | None
    """None where the caller's metadata is part of it: each answer has a copy of its own."""


def facts_of(ledger_id: bytes, event: Event) -> Facts:
    """Raises TamperedEvent where a field could not have been written by this format."""
    info = info_of(event)
    return Facts(context_of(ledger_id, event), None if info.metadata else info)


async def get_secret(
    follower: Follower,
    stream: str,
    *,
    version: int | None = None,
    at: datetime | None = None,
    keep: Callable[[Found], None] | None = None,
) -> SecretVersion:
    """The latest version of a secret, or the one asked for. `keep` is given what was read."""
    if version is not None and at is not None:
        raise InvalidValue("state a version or a time, not both", hint="leave one of them out")
    if version is not None and not 0 < version < 2**63:
        raise SecretNotFound(f"{stream} has no version {version}", stream=stream)
    database = follower.database
    sql = database.statements
    mode: Mode = "statement"
    time = None
    if version is not None:
        statement, parameters = sql.version, {"version": version}
    elif at is not None:
        time = _at(at)
        # What follows the answer is looked at too, as it was at that moment.
        statement, parameters, mode = sql.at, {"at": time}, "snapshot"
    else:
        statement, parameters = sql.latest, {}

    async def read() -> Found:
        seen = follower.seen

        def unit(connection: Connection) -> Found | None:
            found = find(connection, statement, stream, **parameters)
            if found is None:
                return None
            follower.lineage.check(connection, found.head, seen)
            return with_witnesses(connection, database, found, stream, dated=time is not None)

        found = await patiently(database, unit, mode)
        if found is None:
            raise TamperedEvent("no generation says that it is in use any more")
        follower.saw(found.head)
        if keep is not None:
            keep(found)
        return found

    found = await read()
    standing = follower.standing
    if not follower.is_current(found.head):
        standing = await follower.follow(standing)
    try:
        return verdict(standing, found, stream, version, at, time)
    except (MissingKey, TamperedEvent):
        # Never said on old knowledge: read on first, then once more.
        standing = await follower.follow(standing)
        return verdict(standing, await read(), stream, version, at, time)


def _at(at: datetime) -> int:
    try:
        return to_microseconds(at)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidValue(
            f"not a point in time: {error}",
            hint="give a time with its zone, such as 2026-01-31T12:00:00+00:00",
        ) from None


def verdict(
    standing: Standing,
    found: Found,
    stream: str,
    version: int | None = None,
    at: datetime | None = None,
    time: int | None = None,
    *,
    facts: Facts | None = None,
) -> SecretVersion:
    """How a read ends under `standing`, with what was found for it; `time` is `at` in
    microseconds, `facts` is of the event found, where that is known. Raises what `get_secret`
    raises."""
    _, event, newest_end, end, following = found
    control, held = standing.control, standing.keys
    if event is not None:
        check_answer(event, stream, version, time)
    ended = event is not None and newest_end is not None and newest_end > event.version
    if following is not None and time is not None and not ended:
        number = event.version + 1 if event else 1
        check_next(control, held, following, stream, number, time, end)
    if event is None:
        if version is not None:
            raise SecretNotFound(f"{stream} has no version {version}", stream=stream)
        if at is not None:
            raise SecretNotFound(f"{stream} had no version at {at.isoformat()}", stream=stream)
        raise not_found(stream)
    if ended:
        check_end(control, held, end, event)
    context, info = facts or (None, None)
    value = Secret(read_event(control, held, event, context=context, destroyed_later=ended))
    info = info or info_of(event)
    if info.state == "deleted":
        raise deleted(stream, event.version)
    if info.state == "destroyed":
        raise destroyed(stream, event.version)
    return version_of(info, value)


async def list_history(
    database: Database, stream: str, lost: Collection[bytes] = ()
) -> AsyncIterator[SecretInfo]:
    """Every version of a secret, oldest first. Raises SecretNotFound if there is none."""
    after = 0
    while True:

        def unit(connection: Connection, after: int = after) -> list[SecretInfo]:
            head = head_in_use(connection, database)
            if head is None:
                raise TamperedEvent(f"{database.place}: no generation says that it is in use")
            page = stream_page(connection, database, head.generation, stream, after)
            return [info_of(e, key_lost=e.key_fingerprint in lost) for e in page]

        page = await patiently(database, unit, "snapshot")
        if not page:
            if after == 0:
                raise not_found(stream)
            return
        for info in page:
            yield info
        if page[-1].version <= after:
            return  # no number at all, which sorts behind all numbers
        after = page[-1].version


async def list_secrets(
    database: Database, prefix: str, *, deleted: bool, lost: Collection[bytes] = ()
) -> AsyncIterator[SecretInfo]:
    """The newest version of each secret, in order of the names' bytes.

    `deleted` adds those that are deleted or destroyed.
    """
    prefix = normalise_prefix(prefix)
    after: str | None = None
    while True:

        def unit(connection: Connection, after: str | None = after) -> list[SecretInfo]:
            head = head_in_use(connection, database)
            if head is None:
                raise TamperedEvent(f"{database.place}: no generation says that it is in use")
            page = heads_page(connection, database, head.generation, after, prefix)
            return [info_of(e, key_lost=e.key_fingerprint in lost) for e in page]

        page = await patiently(database, unit, "snapshot")
        for info in page:
            if not info.name.startswith(prefix):
                return
            if info.name != CONTROL_STREAM and (deleted or info.state == "live"):
                yield info
        if not page or page[-1].name == after:  # no text at all sorts behind all text
            return
        after = page[-1].name
