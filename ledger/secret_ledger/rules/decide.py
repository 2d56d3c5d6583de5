"""Decides a write: an intent and a secret's newest event in, a draft or a refusal out. Pure.

The writer holds the lock of the head row. It gives each decision the newest event as the accepted
writes before leave it. So each caller of a shared transaction is decided alone, in order of
arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from secret_ledger.errors import LedgerError, SecretNotFound, VersionConflict
from secret_ledger.model.control import Control
from secret_ledger.model.events import NO_HASH, Event, EventType
from secret_ledger.model.floors import floor_facts
from secret_ledger.model.metadata import encode_metadata, parse_metadata
from secret_ledger.model.secret import Secret
from secret_ledger.model.versions import SecretState, base_version, state_of
from secret_ledger.rules.read_checks import deleted, ended, not_found

__all__ = [
    "Delete",
    "Destroy",
    "Draft",
    "Intent",
    "NewestEvent",
    "Put",
    "Restore",
    "WalkNeeded",
    "Walked",
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
    """Delete a live secret, and keep its history."""

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
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts that the library states, besides the facts that follow from the newest event."""


Intent = Put | Delete | Restore | Destroy
"""The writes that a caller can ask for."""


@dataclass(frozen=True, slots=True)
class NewestEvent:
    """The newest event of a stream, judged under the lock of the head row."""

    event: Event
    """The row without its sealed bytes, and with its hash recomputed.

    If this format can't have written the row, the hash is that of the column."""
    problem: LedgerError | None
    """Why the event does not open. None if it opens."""
    floor: int | None
    """The version up to which the secret has ended. None if only a walk down its chain tells."""

    @property
    def version(self) -> int:
        """The version of the newest event."""
        return self.event.version

    @property
    def state(self) -> SecretState:
        """The state of the secret."""
        return state_of(self.event)

    @property
    def base(self) -> int:
        """The last version that is no re-encryption."""
        return base_version(self.event)


class Draft(NamedTuple):
    """An accepted event that has no position in the log yet."""

    stream: str
    version: int
    event_type: str
    data: Secret
    metadata: str
    prev_hash: bytes


class Walked(NamedTuple):
    """The result of a walk down a stream's chain, made before the lock was taken."""

    newest: bytes
    """Hash of the newest event, at which the walk began: 32 bytes."""
    floor: int
    value: Secret | LedgerError | None
    """For a restore: the value to write again, or why that can't be done. Else None."""


class WalkNeeded(LedgerError):
    """A write needs a walk of these streams first. This error never leaves the package."""

    def __init__(self, streams: Sequence[str]) -> None:
        super().__init__("the chain has to be walked first")
        self.streams = streams

    def __reduce__(self) -> tuple[Any, ...]:  # the writer hands each caller a copy
        return WalkNeeded, (self.streams,)


def decide(
    control: Control, intent: Intent, head: NewestEvent | None, walked: Walked | None
) -> Draft:
    """The event that `intent` makes on top of `head`, the newest event of its stream.

    Raises VersionConflict, SecretNotFound, SecretDeleted or SecretDestroyed if the intent is
    refused. If `head` does not open, raises its problem, except for a Destroy: only an end is
    ever built on an event that failed to authenticate. Raises WalkNeeded if a walk is needed and
    `walked` is None, or `walked` began at another event than `head`.
    """
    ledger: dict[str, Any] = {}
    if head is not None and head.problem is not None:
        if not isinstance(intent, Destroy):
            raise head.problem
        ledger["unopened"] = True
    if walked is not None and (head is None or head.event.event_hash != walked.newest):
        walked = None
    if not isinstance(intent, Destroy):
        _check_expected(intent, head)
    data = Secret(b"")
    reason = None
    user: Mapping[str, Any] | None = None
    match intent:
        case Put():
            event_type, data, user = EventType.WRITTEN, intent.value, intent.user
        case Delete():
            _must_be_live(intent.stream, head)
            event_type, user = EventType.DELETED, intent.user
        case Restore():
            _must_be_deleted(intent, head)
            if walked is None or walked.value is None:
                raise WalkNeeded([intent.stream])
            if isinstance(walked.value, LedgerError):
                raise copy(walked.value)
            event_type, data, user = EventType.RESTORED, walked.value, intent.user
        case _:
            if head is None:
                raise not_found(intent.stream)
            if head.state == "destroyed" and head.problem is None:
                raise ended(head.event, head.version, head.version)
            event_type, reason = EventType.DESTROYED, intent.reason
            ledger.update(intent.facts)
    ledger.update(floor_facts(control, _next_floor(intent.stream, head, walked)))
    return Draft(
        stream=intent.stream,
        version=1 if head is None else head.version + 1,
        event_type=event_type,
        data=data,
        metadata=encode_metadata(actor=intent.actor, reason=reason, user=user, ledger=ledger),
        prev_hash=NO_HASH if head is None else head.event.event_hash,
    )


def _next_floor(stream: str, head: NewestEvent | None, walked: Walked | None) -> int:
    if head is None:
        return 0
    if head.problem is not None:  # nobody can tell which versions below it have ended
        return head.version
    if head.floor is not None:
        return head.floor
    if walked is None:
        raise WalkNeeded([stream])
    return walked.floor


def _check_expected(intent: Put | Delete | Restore, head: NewestEvent | None) -> None:
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


def rekeyed(control: Control, head: Event, data: Secret, floor: int, actor: str | None) -> Draft:
    """The event that re-encrypts `head`, the newest event of a secret, which holds `data`.

    Deleted and destroyed secrets are re-encrypted too. `floor` is the version up to which the
    secret has ended.
    """
    facts = parse_metadata(head.metadata)
    at = head.recorded_at
    if head.event_type == EventType.REKEYED:
        at = facts.ledger.get("at", at)
    about: dict[str, Any] = {"of": base_version(head), "at": at, "state": state_of(head, facts)}
    about.update(floor_facts(control, floor))
    if "lost" in facts.ledger:  # a re-encrypted end still names the lost key
        about["lost"] = facts.ledger["lost"]
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


def _must_be_live(stream: str, head: NewestEvent | None) -> None:
    if head is None:
        raise not_found(stream)
    if head.state == "destroyed":
        raise ended(head.event, head.version, head.version)
    if head.state == "deleted":
        raise deleted(head.event)


def _must_be_deleted(intent: Restore, head: NewestEvent | None) -> None:
    if head is None:
        raise not_found(intent.stream)
    if head.state == "destroyed":
        raise ended(head.event, head.version, head.version)
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
