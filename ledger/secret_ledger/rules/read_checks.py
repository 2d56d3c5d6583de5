"""Checks that a row is the row that was asked for, and words the refusals. Pure, no I/O.

A seal proves the content of a row, not that the caller asked for this row. A changed type or
collation of a column, a view in place of a table, or an edited time can mislead the database.
Then the database answers with another row, which is just as authentic.
"""

from __future__ import annotations

from secret_ledger.errors import LedgerError, SecretDeleted, SecretDestroyed, SecretNotFound
from secret_ledger.model.control import Control
from secret_ledger.model.events import Event
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.refusals import tampered
from secret_ledger.model.versions import state_of

__all__ = [
    "check_answer",
    "check_has_value",
    "deleted",
    "ended",
    "lost_with",
    "no_version",
    "not_found",
    "not_yet",
]


def check_answer(control: Control, event: Event, stream: str, version: int | None = None) -> None:
    """Raises TamperedEvent if `event` is not of this stream and of the generation in use.

    If `version` is given, the event must also be of that version."""
    if event.stream != stream:
        raise tampered(event, "the database returned it for the name of another secret")
    if event.generation != control.generation:
        raise tampered(event, f"the database returned it for generation {control.generation}")
    if version is not None and event.version != version:
        raise tampered(event, f"the database returned it for version {version}")


def lost_with(newest: Event) -> str | None:
    """The id of the lost key that ended a secret. Returns None if no lost key has ended it."""
    if '"lost":' not in newest.metadata or state_of(newest) != "destroyed":
        return None
    key_id = parse_metadata(newest.metadata).ledger.get("lost")
    return key_id if isinstance(key_id, str) else None


def ended(newest: Event, version: int, floor: int) -> SecretDestroyed:
    """The refusal for a version at or below the floor, or for a secret that has ended."""
    stream, key_id = newest.stream, lost_with(newest)
    if key_id is not None:
        return SecretDestroyed(
            f"{stream} was destroyed at version {floor}: its key {key_id} is lost",
            hint="its newest value is gone for good; a new `put` starts anew",
            stream=stream,
            version=version,
            key_id=key_id,
        )
    return SecretDestroyed(
        f"{stream} was destroyed at version {floor}",
        hint="its values are gone for good; a new `put` starts anew",
        stream=stream,
        version=version,
    )


def check_has_value(event: Event) -> None:
    """Raises SecretDeleted or SecretDestroyed if an opened event holds no value."""
    match state_of(event):
        case "deleted":
            raise deleted(event)
        case "destroyed":
            raise ended(event, event.version, event.version)


def not_found(stream: str) -> SecretNotFound:
    """The refusal for a name without any event."""
    return SecretNotFound(
        f"there is no secret {stream}",
        hint="`secret-ledger list` shows the names",
        stream=stream,
    )


def deleted(newest: Event) -> SecretDeleted:
    """The refusal for a secret whose newest event is a deletion."""
    return SecretDeleted(
        f"{newest.stream} was deleted at version {newest.version}",
        hint="`restore` brings its last value back; an earlier version is read by its number",
        stream=newest.stream,
        version=newest.version,
    )


def no_version(stream: str, version: int) -> LedgerError:
    """The refusal for a version that a secret does not have."""
    return SecretNotFound(f"{stream} has no version {version}", stream=stream)


def not_yet(stream: str, at: str) -> LedgerError:
    """The refusal for a time before a secret's first version."""
    return SecretNotFound(f"{stream} had no version at {at}", stream=stream)
