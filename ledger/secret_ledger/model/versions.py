"""A secret as callers see it, made from the events of its stream. Pure."""

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
"""`unverified`: the row was not opened. Anybody with database access may have written it."""


_Fields = tuple[
    str, int, str, SecretState, datetime, str | None, Mapping[str, Any], str | None, str, bytes,
    int, datetime, str | None,
]  # fmt: skip
"""The fields of SecretInfo that an event gives, in order."""


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """One version of a secret, without its value.

    If the event is a re-encryption (`secret.rekeyed`), `recorded_at`, `actor`, `reason` and
    `metadata` come from the version that was sealed again. All other fields are of the event
    itself: `version`, `position` and the key, and `sealed_at` and `sealed_by`, which say when
    and by whom it was re-encrypted.
    """

    name: str
    version: int
    event_type: str
    state: SecretState
    recorded_at: datetime
    """When the version was written: an aware datetime in UTC, exact to the microsecond."""
    actor: str | None
    metadata: Mapping[str, Any]
    """The caller's notes. The library's own facts are left out."""
    reason: str | None
    key_id: str
    key_fingerprint: bytes
    """The fingerprint of the key that the event lies under: 32 public bytes."""
    position: int
    sealed_at: datetime
    """When the event was written. Equals `recorded_at`, unless the event is a re-encryption."""
    sealed_by: str | None
    """Who wrote the event. Equals `actor`, unless the event is a re-encryption."""
    check: Check = field(default="unverified", kw_only=True)
    """The result of opening the row. A listing opens rows only if its caller asks for that."""
    problem: str | None = field(default=None, kw_only=True)
    """Why the row did not open. None if it opened, or was not opened."""


@dataclass(frozen=True, slots=True)
class SecretVersion(SecretInfo):
    """One version of a secret, with its value."""

    value: Secret
    proven: bool = True
    """False if the secret's newest event could not be opened.

    Then nobody can tell whether this version has ended since. Only `get` with `unproven=True`
    gives such a version."""


def state_of(event: Event, metadata: Metadata | None = None) -> SecretState:
    """The state of a secret whose newest event is `event`."""
    match event.event_type:
        case EventType.WRITTEN | EventType.RESTORED:
            return "live"
        case EventType.DELETED:
            return "deleted"
        case EventType.DESTROYED:
            return "destroyed"
    facts = metadata or parse_metadata(event.metadata)
    state = facts.ledger.get("state")
    # This release writes no `secret.rekeyed` without a state. Such an event counts as an end.
    return state if state in ("live", "deleted") else "destroyed"


def base_version(event: Event) -> int:
    """The last version that is no re-encryption: the lowest that a caller's `expect` may state."""
    if event.event_type == EventType.REKEYED:
        of = parse_metadata(event.metadata).ledger.get("of")
        if isinstance(of, int) and 0 < of < event.version:
            return of
    return event.version


def info_of(event: Event, *, key_lost: bool = False) -> SecretInfo:
    """An event as SecretInfo, not opened. Never raises, so that a damaged row is still listed.

    key_lost: the event's key is lost, so the state is `destroyed`.
    """
    return SecretInfo(*_fields_of(event, key_lost=key_lost))


def opened(event: Event, value: Secret) -> SecretVersion:
    """An opened event with its value, as SecretVersion."""
    return SecretVersion(*_fields_of(event), value, check="ok")


def _fields_of(event: Event, *, key_lost: bool = False) -> _Fields:
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
    """The SecretVersion that `opened` gives, from an `info` that was made before."""
    return SecretVersion(
        info.name,
        info.version,
        info.event_type,
        info.state,
        info.recorded_at,
        info.actor,
        info.metadata or {},  # each answer gets its own mapping
        info.reason,
        info.key_id,
        info.key_fingerprint,
        info.position,
        info.sealed_at,
        info.sealed_by,
        value,
        check="ok",
    )
