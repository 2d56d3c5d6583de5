"""Whether a row is the answer to the question that was asked. Pure, no I/O.

A seal proves what a row is, not that it is the row that was asked for: a column whose type or
collation was changed, a view in a table's place, or an edited time can make the database
answer with another row that is every bit as authentic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ledger.authority import read_event
from ledger.control import Control
from ledger.errors import MissingKey, SecretDestroyed
from ledger.events import Event, EventType
from ledger.format import check_hash, is_purged, tampered
from ledger.keys import LedgerKey

__all__ = ["check_answer", "check_end", "check_next"]


def check_answer(event: Event, stream: str, version: int | None, at: int | None) -> None:
    """Raises TamperedEvent where `event` is not of the secret, the version or the time
    (microseconds since 1970) that were asked for; None asks for any."""
    if event.stream != stream:
        raise tampered(event, "the database takes its name for another secret's")
    if version is not None and event.version != version:
        raise tampered(event, f"the database gives it for version {version}")
    if at is not None and event.recorded_at > at:
        raise tampered(event, "the database gives it for a time before it was recorded")


def check_end(
    control: Control, held: Mapping[bytes, LedgerKey], end: Event | None, event: Event
) -> None:
    """Raises TamperedEvent unless `end` is a destruction, sealed and later than `event`."""
    if (
        end is None
        or end.stream != event.stream
        or end.event_type != EventType.DESTROYED
        or end.version <= event.version
        or end.position <= event.position
    ):
        raise tampered(end or event, "the destruction that it stands for is not in the log")
    _check_sealed(control, held, end)


def check_next(
    control: Control,
    held: Mapping[bytes, LedgerKey],
    following: Event,
    stream: str,
    version: int,
    at: int,
    end: Event | None,
) -> None:
    """Raises TamperedEvent where the version that follows the answer for the time `at` is no
    authentic one, or was recorded by then. Its data may be gone where `end` destroyed it."""
    check_answer(following, stream, version, None)
    if following.recorded_at <= at:
        raise tampered(following, "the database passes over it for a time that it covers")
    ended = end is not None and is_purged(following.sealed)
    if ended:
        check_end(control, held, end, following)
    _check_sealed(control, held, following, ended=ended)


def _check_sealed(
    control: Control, held: Mapping[bytes, LedgerKey], event: Event, *, ended: bool = False
) -> None:
    context = check_hash(control.ledger_id, event)
    # Its own value is not asked for: that its key is not in hand, or lost, is no matter.
    with contextlib.suppress(MissingKey, SecretDestroyed):
        read_event(control, held, event, context=context, destroyed_later=ended)
