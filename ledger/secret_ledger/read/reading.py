"""How a read happens: one statement returns the head row and the event, then a verdict follows.

The newest event of a secret decides alone. Older versions are read by `older`. Listings, which
open no row, are in `listing`.

A `get` ends in one of these ways, never confused: the value; SecretNotFound, SecretDeleted or
SecretDestroyed; MissingKey; TamperedEvent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from secret_ledger.errors import InvalidValue, MissingKey, TamperedEvent
from secret_ledger.model.events import Event, to_microseconds
from secret_ledger.model.format import context_of
from secret_ledger.model.secret import Secret
from secret_ledger.model.versions import SecretInfo, SecretVersion, info_of, opened, version_of
from secret_ledger.read.older import get_as_of, get_version, get_version_unproven
from secret_ledger.rules.authority import read_newest
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.read_checks import check_answer, check_has_value, no_version, not_found
from secret_ledger.session.following import Follower
from secret_ledger.store.connection import Connection
from secret_ledger.store.reads import Found, find
from secret_ledger.store.retry import patiently

__all__ = [
    "Facts",
    "facts_of",
    "get_secret",
    "patiently",
    "verdict",
]


class Facts(NamedTuple):
    """Facts of one event, worked out once for many answers. They never hold its value."""

    context: bytes
    """The associated data of the event's seal."""
    info: SecretInfo | None
    """None if the event holds a caller's metadata: each answer then needs its own copy."""


def facts_of(ledger_id: bytes, event: Event) -> Facts:
    """Work out an event's facts. Raises TamperedEvent if this format can't have written a field."""
    info = info_of(event)
    return Facts(context_of(ledger_id, event), None if info.metadata else info)


async def get_secret(
    follower: Follower,
    stream: str,
    *,
    version: int | None = None,
    at: datetime | None = None,
    unproven: bool = False,
    keep: Callable[[Found], None] | None = None,
) -> SecretVersion:
    """Read the newest version of a secret, or version `version`, or the version at time `at`.

    `keep` is called with each answer of the database to a read of the newest version. If
    `unproven` and the chain can't prove `version`, its own seal decides.

    Raises InvalidValue, SecretNotFound, SecretDeleted, SecretDestroyed, MissingKey,
    TamperedEvent, LedgerUnavailable, and the errors of `Follower.follow`.
    """
    if version is not None and at is not None:
        raise InvalidValue("state a version or a time, not both", hint="leave one of them out")
    if unproven and version is None:
        raise InvalidValue(
            "only a version that is stated can be read unproven", hint="state the version"
        )
    if version is not None and not 0 < version < 2**63:
        raise no_version(stream, version)
    if version is not None:
        return await (get_version_unproven if unproven else get_version)(follower, stream, version)
    if at is not None:
        return await get_as_of(follower, stream, _at(at), at)
    database = follower.database

    async def read() -> Found:
        seen = follower.seen

        def unit(connection: Connection) -> Found | None:
            found = find(connection, database, stream)
            if found is not None:
                follower.lineage.check(connection, found.head, seen)
            return found

        found = await patiently(database, unit)
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
        return verdict(standing, found, stream)
    except (MissingKey, TamperedEvent):
        # The known control stream may be old: follow it, and read again, before a refusal.
        standing = await follower.follow(standing)
        return verdict(standing, await read(), stream)


def _at(at: datetime) -> int:
    given: object = at
    if not isinstance(given, datetime):  # the value is not quoted: it may be anything
        raise InvalidValue(
            f"at is a datetime with a time zone, not {type(given).__name__}",
            hint='such as datetime.fromisoformat("2026-01-31T12:00:00+00:00")',
        )
    try:
        return to_microseconds(at)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidValue(
            f"not a point in time: {error}",
            hint="give a time with its zone, such as 2026-01-31T12:00:00+00:00",
        ) from None


def verdict(
    standing: Standing, found: Found, stream: str, *, facts: Facts | None = None
) -> SecretVersion:
    """Judge a read of the newest event: open it under `standing`, or raise the refusal.

    `facts`: the facts of the event, if the caller has them. Raises SecretNotFound, SecretDeleted,
    SecretDestroyed, MissingKey or TamperedEvent.
    """
    event = found.event
    if event is None:
        raise not_found(stream)
    check_answer(standing.control, event, stream)
    context, info = facts or (None, None)
    value = Secret(read_newest(standing.control, standing.keys, event, context=context))
    check_has_value(event)
    return opened(event, value) if info is None else version_of(info, value)
