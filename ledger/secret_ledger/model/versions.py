"""A secret as callers see it, and as the events of its stream tell it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from secret_ledger.model.events import Event, EventType, from_microseconds
from secret_ledger.model.metadata import Metadata, parse_metadata
from secret_ledger.model.secret import Secret

__all__ = [
    "Check",
    "SecretInfo",
    "SecretState",
    "SecretVersion",
    "base_version",
    "info_of",
    "opened",
    "state_of",
    "version_of",
]

SecretState = Literal["live", "deleted", "destroyed"]
Check = Literal["unverified", "ok", "tampered", "missing_key"]
"""`unverified`: the row was not opened, and anybody may have written it."""


_Fields = tuple[
    str, int, str, SecretState, datetime, str | None, Mapping[str, Any], str | None, str, bytes,
    int, datetime, str | None,
]  # fmt: skip
"""The fields of SecretInfo that an event gives, in order."""


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What is known of one version of a secret without opening it.

    After a re-encryption (`secret.rekeyed`), `recorded_at`, `actor` and `metadata` are those
    of the version that it sealed again. All else is of the event itself: `version`, the key,
    `position`, and `sealed_at` and `sealed_by`, which tell who re-encrypted it and when.
    """

    name: str
    version: int
    event_type: str
    state: SecretState
    recorded_at: datetime
    """Aware, in UTC; exact to the microsecond."""
    actor: str | None
    metadata: Mapping[str, Any]
    """The caller's part; the library's own is not shown here."""
    reason: str | None
    key_id: str
    key_fingerprint: bytes
    """32 bytes; public."""
    position: int
    sealed_at: datetime
    """When this event was written; `recorded_at`, unless it is a re-encryption."""
    sealed_by: str | None
    """Who wrote this event; `actor`, unless it is a re-encryption."""
    check: Check = field(default="unverified", kw_only=True)
    """What opening this row gave; a listing opens no row unless it is told to."""
    problem: str | None = field(default=None, kw_only=True)
    """Why the row did not open."""


@dataclass(frozen=True, slots=True)
class SecretVersion(SecretInfo):
    """One version of a secret, with its value."""

    value: Secret
    proven: bool = True
    """False if the newest event of the secret could not be opened: whether this version has
    ended since, nobody can tell. Only a read that asks for it gets such an answer."""


def state_of(event: Event, metadata: Metadata | None = None) -> SecretState:
    """What the secret is once `event` is its head."""
    match event.event_type:
        case EventType.WRITTEN | EventType.RESTORED:
            return "live"
        case EventType.DELETED:
            return "deleted"
        case EventType.DESTROYED:
            return "destroyed"
    facts = metadata or parse_metadata(event.metadata)
    state = facts.ledger.get("state")
    # A rekeyed event that does not say is one that can't have been written here.
    return state if state in ("live", "deleted") else "destroyed"


def base_version(event: Event) -> int:
    """The last version that is not a re-encryption: what a caller's `expect` may state."""
    if event.event_type == EventType.REKEYED:
        of = parse_metadata(event.metadata).ledger.get("of")
        if isinstance(of, int) and 0 < of < event.version:
            return of
    return event.version


def info_of(event: Event, *, key_lost: bool = False) -> SecretInfo:
    """The metadata view of an event. Never raises: a damaged row is still listed."""
    return SecretInfo(*_fields_of(event, key_lost=key_lost))


def opened(event: Event, value: Secret) -> SecretVersion:
    """An event that was opened, with its value."""
    return SecretVersion(*_fields_of(event), value, check="ok")


def _fields_of(event: Event, *, key_lost: bool = False) -> _Fields:
    """The fields of SecretInfo, in their order."""
    metadata = parse_metadata(event.metadata)
    sealed_at = written_at = from_microseconds(event.recorded_at)
    sealed_by = metadata.actor
    if event.event_type == EventType.REKEYED:
        at, by = metadata.ledger.get("at"), metadata.ledger.get("by")
        written_at = from_microseconds(at) if isinstance(at, int) else sealed_at
        sealed_by = by if isinstance(by, str) else None
    return (
        event.stream,
        event.version,
        event.event_type,
        "destroyed" if key_lost else state_of(event, metadata),
        written_at,
        metadata.actor,
        metadata.user,
        metadata.reason,
        event.key_id,
        event.key_fingerprint,
        event.position,
        sealed_at,
        sealed_by,
    )


def version_of(info: SecretInfo, value: Secret) -> SecretVersion:
    """What `opened` gives, where `info` was worked out before."""
    return SecretVersion(
        info.name,
        info.version,
        info.event_type,
        info.state,
        info.recorded_at,
        info.actor,
        info.metadata or {},  # nobody else's
        info.reason,
        info.key_id,
        info.key_fingerprint,
        info.position,
        info.sealed_at,
        info.sealed_by,
        value,
        check="ok",
    )
