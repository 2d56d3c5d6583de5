"""A secret as callers see it, and as the events of its stream tell it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ledger.events import Event, EventType, from_microseconds
from ledger.metadata import Metadata, parse_metadata
from ledger.secret import Secret

__all__ = [
    "SecretInfo",
    "SecretState",
    "SecretVersion",
    "base_version",
    "info_of",
    "state_of",
    "version_of",
]

SecretState = Literal["live", "deleted", "destroyed"]


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What is known of one version of a secret without opening it.

    After a re-encryption (`secret.rekeyed`), `recorded_at`, `actor` and `metadata` are those
    of the version that it sealed again; `version`, the key and `position` are its own.
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
    metadata = parse_metadata(event.metadata)
    recorded_at = event.recorded_at
    if event.event_type == EventType.REKEYED:
        at = metadata.ledger.get("at")
        recorded_at = at if isinstance(at, int) else recorded_at
    return SecretInfo(
        event.stream,
        event.version,
        event.event_type,
        "destroyed" if key_lost else state_of(event, metadata),
        from_microseconds(recorded_at),
        metadata.actor,
        metadata.user,
        metadata.reason,
        event.key_id,
        event.key_fingerprint,
        event.position,
    )


def version_of(info: SecretInfo, value: Secret) -> SecretVersion:
    """A version with its opened value."""
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
        value,
    )
