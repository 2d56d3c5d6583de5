"""How a read happens: one statement, the head row beside the rows, a verdict at the end.

A `get` ends in one of four ways, never confused: the value; SecretDeleted or SecretDestroyed;
MissingKey; TamperedEvent. Listings read metadata only and never decrypt, so that one damaged
row can't hide the others; they need no key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import datetime

from sqlalchemy.engine import Connection

from ledger.authority import read_event
from ledger.decide import deleted, destroyed, not_found
from ledger.errors import (
    InvalidValue,
    MissingKey,
    NotALedger,
    SecretNotFound,
    TamperedEvent,
)
from ledger.events import CONTROL_STREAM, to_microseconds
from ledger.following import Follower
from ledger.gate import Standing
from ledger.names import normalise_prefix
from ledger.secret import Secret
from ledger.store.database import Database
from ledger.store.patience import patiently
from ledger.store.reads import Found, find, head_in_use, heads_page, stream_page
from ledger.versions import SecretInfo, SecretVersion, info_of, state_of, version_of

__all__ = ["get_secret", "list_history", "list_secrets", "patiently"]


async def get_secret(
    follower: Follower, stream: str, *, version: int | None, at: datetime | None
) -> SecretVersion:
    """The latest version of a secret, or the one asked for."""
    if version is not None and at is not None:
        raise InvalidValue("state a version or a time, not both", hint="--version N, or --at TIME")
    if version is not None and not 0 < version < 2**63:
        raise SecretNotFound(f"{stream} has no version {version}", stream=stream)
    database = follower.database
    sql = database.statements
    if version is not None:
        statement, parameters = sql.version, {"version": version}
    elif at is not None:
        statement, parameters = sql.at, {"at": _at(at)}
    else:
        statement, parameters = sql.latest, {}

    async def read() -> Found:
        seen = follower.seen

        def unit(connection: Connection) -> Found | None:
            found = find(connection, statement, stream, **parameters)
            if found is not None:
                follower.lineage.check(connection, found.head, seen)
            return found

        found = await patiently(database, unit)
        if found is None:
            raise TamperedEvent("no generation says that it is in use any more")
        follower.saw(found.head)
        return found

    found = await read()
    standing = follower.standing
    if not follower.is_current(found.head):
        standing = await follower.follow(standing)
    try:
        return _verdict(standing, found, stream, version, at)
    except (MissingKey, TamperedEvent):
        # Never said on old knowledge: read on first, then once more.
        standing = await follower.follow(standing)
        return _verdict(standing, await read(), stream, version, at)


def _at(at: datetime) -> int:
    try:
        return to_microseconds(at)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidValue(
            f"not a point in time: {error}",
            hint="give a time with its zone, such as 2026-01-31T12:00:00+00:00",
        ) from None


def _verdict(
    standing: Standing, found: Found, stream: str, version: int | None, at: datetime | None
) -> SecretVersion:
    event = found.event
    if event is None:
        if version is not None:
            raise SecretNotFound(f"{stream} has no version {version}", stream=stream)
        if at is not None:
            raise SecretNotFound(f"{stream} had no version at {at.isoformat()}", stream=stream)
        raise not_found(stream)
    ended = found.destroyed or 0
    value = Secret(
        read_event(standing.control, standing.keys, event, destroyed_later=ended > event.version)
    )
    state = state_of(event)
    if state == "deleted":
        raise deleted(stream, event.version)
    if state == "destroyed":
        raise destroyed(stream, event.version)
    return version_of(event, value)


async def list_history(
    database: Database, stream: str, lost: Collection[bytes] = ()
) -> AsyncIterator[SecretInfo]:
    """Every version of a secret, oldest first. Raises SecretNotFound if there is none."""
    after = 0
    while True:

        def unit(connection: Connection, after: int = after) -> list[SecretInfo]:
            head = head_in_use(connection, database)
            if head is None:
                raise NotALedger(f"{database.place}: no generation is in use")
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
                raise NotALedger(f"{database.place}: no generation is in use")
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
