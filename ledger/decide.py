"""What a write may do to a secret: an intent and a head in, a draft or a refusal out. Pure.

A writer brings the head as the accepted writes before it leave it, under the lock; so each
caller of a shared transaction is decided alone, in order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ledger.errors import (
    LedgerError,
    SecretDeleted,
    SecretDestroyed,
    SecretNotFound,
    VersionConflict,
)
from ledger.events import Event, EventType
from ledger.metadata import encode_metadata, parse_metadata
from ledger.secret import Secret
from ledger.versions import SecretState, base_version, state_of

__all__ = [
    "Delete",
    "Destroy",
    "Draft",
    "HeadView",
    "Intent",
    "Put",
    "Restore",
    "decide",
    "rekeyed",
]


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value as the next version."""

    stream: str
    value: Secret
    expect: int | None
    actor: str | None
    user: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Delete:
    """End a live secret, keeping its history."""

    stream: str
    expect: int | None
    actor: str | None
    user: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Restore:
    """Write an earlier value again as the next version of a deleted secret."""

    stream: str
    version: int | None
    expect: int | None
    actor: str | None
    user: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Destroy:
    """End a secret for good, damaged or not."""

    stream: str
    reason: str
    actor: str | None


Intent = Put | Delete | Restore | Destroy
"""What a caller asks for."""


@dataclass(frozen=True, slots=True)
class HeadView:
    """The head of a stream, judged under the lock."""

    event: Event
    """The row, without its sealed bytes; its hash recomputed, never taken from its column."""
    problem: LedgerError | None
    """Why it does not open, if it does not."""
    lost: bool
    """It lies under a key that is lost for good: writes may go over it unopened."""

    @property
    def version(self) -> int:
        """The head's version."""
        return self.event.version

    @property
    def state(self) -> SecretState:
        """What the secret is."""
        return state_of(self.event)

    @property
    def base(self) -> int:
        """The last version that is not a re-encryption."""
        return base_version(self.event)


class Draft(NamedTuple):
    """An event that was decided on and has no place in the log yet."""

    stream: str
    version: int
    event_type: str
    data: Secret
    metadata: str
    prev_hash: bytes


Fetch = Callable[[str, int | None, int], Secret]
"""The value of a stream's version (None: the last one below the third argument)."""


def decide(intent: Intent, head: HeadView | None, no_hash: bytes, fetch: Fetch) -> Draft:
    """The event that `intent` makes on top of `head`.

    Raises VersionConflict, SecretNotFound, SecretDeleted, SecretDestroyed; or what keeps
    the head from opening: nothing is ever built on what failed to authenticate, except its
    destruction.
    """
    unopened = False
    if head is not None and head.problem is not None:
        unopened = isinstance(intent, Destroy) or head.lost
        if not unopened:
            raise head.problem
    if not isinstance(intent, Destroy):
        _check_expected(intent, head)
    ledger: dict[str, Any] = {"unopened": True} if unopened else {}
    data = Secret(b"")
    match intent:
        case Put():
            event_type, data = EventType.WRITTEN, intent.value
            metadata = encode_metadata(actor=intent.actor, user=intent.user, ledger=ledger)
        case Delete():
            _must_be_live(intent.stream, head)
            event_type = EventType.DELETED
            metadata = encode_metadata(actor=intent.actor, user=intent.user, ledger=ledger)
        case Restore():
            event_type, data = EventType.RESTORED, _restored(intent, head, fetch)
            metadata = encode_metadata(actor=intent.actor, user=intent.user, ledger=ledger)
        case _:
            if head is None:
                raise not_found(intent.stream)
            if head.state == "destroyed" and head.problem is None:
                raise destroyed(intent.stream, head.version)
            event_type = EventType.DESTROYED
            metadata = encode_metadata(actor=intent.actor, reason=intent.reason, ledger=ledger)
    return Draft(
        stream=intent.stream,
        version=1 if head is None else head.version + 1,
        event_type=event_type,
        data=data,
        metadata=metadata,
        prev_hash=no_hash if head is None else head.event.event_hash,
    )


def _check_expected(intent: Put | Delete | Restore, head: HeadView | None) -> None:
    expect = intent.expect
    if expect is None:
        return
    current = 0 if head is None else head.version
    first = 0 if head is None else head.base
    if not first <= expect <= current:
        state = "has no version yet" if head is None else f"is at version {first}, {head.state}"
        raise VersionConflict(
            f"{intent.stream} {state}; the caller expected version {expect}",
            hint="read it again, decide again, and state the version you saw",
            stream=intent.stream,
            expected=expect,
            version=current,
        )


def rekeyed(head: Event, data: Secret, actor: str | None) -> Draft:
    """The event that seals `head`, which holds `data`, again: tombstones too."""
    facts = parse_metadata(head.metadata)
    at = head.recorded_at
    if head.event_type == EventType.REKEYED:
        at = facts.ledger.get("at", at)
    about: dict[str, Any] = {"of": base_version(head), "at": at, "state": state_of(head, facts)}
    if actor:
        about["by"] = actor
    return Draft(
        stream=head.stream,
        version=head.version + 1,
        event_type=EventType.REKEYED,
        data=data,
        metadata=encode_metadata(
            actor=facts.actor, reason=facts.reason, user=facts.user, ledger=about
        ),
        prev_hash=head.event_hash,
    )


def _must_be_live(stream: str, head: HeadView | None) -> None:
    if head is None:
        raise not_found(stream)
    if head.lost or head.state == "destroyed":
        raise destroyed(stream, head.version)
    if head.state == "deleted":
        raise deleted(stream, head.version)


def _restored(intent: Restore, head: HeadView | None, fetch: Fetch) -> Secret:
    if head is None:
        raise not_found(intent.stream)
    if head.lost or head.state == "destroyed":
        raise destroyed(intent.stream, head.version)
    if head.state == "live":
        raise VersionConflict(
            f"{intent.stream} is live, at version {head.version}: there is nothing to restore",
            hint="to go back to an earlier value, get that version and put it",
            stream=intent.stream,
            version=head.version,
        )
    if intent.version is not None and not 0 < intent.version < head.version:
        raise SecretNotFound(
            f"{intent.stream} has no version {intent.version} before its deletion",
            stream=intent.stream,
        )
    return fetch(intent.stream, intent.version, head.base)


def not_found(stream: str) -> SecretNotFound:
    """No event of that name."""
    return SecretNotFound(
        f"there is no secret {stream}",
        hint="`secret-ledger list` shows the names",
        stream=stream,
    )


def deleted(stream: str, version: int) -> SecretDeleted:
    """The secret's head is a `secret.deleted`."""
    return SecretDeleted(
        f"{stream} was deleted at version {version}",
        hint="`restore` brings its last value back; an earlier version is read by its number",
        stream=stream,
        version=version,
    )


def destroyed(stream: str, version: int) -> SecretDestroyed:
    """The secret's head is a `secret.destroyed`."""
    return SecretDestroyed(
        f"{stream} was destroyed at version {version}",
        hint="its values are gone for good; a new `put` starts anew",
        stream=stream,
        version=version,
    )
