"""The audit of one key: its history, the events under it, and the nodes that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from secret_ledger.model.control import Control, ControlKey
from secret_ledger.model.versions import Check

__all__ = ["KeyMoment", "KeyRecord", "KeyState", "key_state"]

KeyState = Literal["active", "superseded", "retired", "lost"]


@dataclass(frozen=True, slots=True)
class KeyMoment:
    """When something happened to a key, and who did it."""

    position: int
    at: datetime
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The audit of one key of the ledger."""

    key_id: str
    key_fingerprint: bytes
    state: KeyState
    epoch: int
    introduced: KeyMoment
    activated: KeyMoment
    superseded: KeyMoment | None
    """The activation of the next key. None if this key is active."""
    retired: KeyMoment | None
    lost: KeyMoment | None
    events: int
    """Number of positions at which the key has authority, in the generation in use.

    Events at these positions lie under the key. Purged rows, which need no key, may name others."""
    first: int | None
    last: int | None
    """The highest of these positions; `first` is the lowest. Both are None if `events` is 0."""
    elsewhere: Mapping[int, int]
    """The same number for each other generation that still exists, by generation."""
    secrets: int
    """Number of secrets whose newest event lies under the key."""
    nodes: Sequence[str]
    """Live nodes that say that they hold the key. Unauthenticated."""
    refused_boots: int
    """Number of refused boots with the key as the current key. Unauthenticated."""
    check: Check = "unverified"
    """The result of opening the key's control events. They are opened only on request."""
    problem: str | None = None
    """Why a control event of the key did not open. None if all opened, or none was."""


def key_state(control: Control, key: ControlKey) -> KeyState:
    """The state of a key at the end of the control stream."""
    if key == control.active:
        return "active"
    if key.lost is not None:
        return "lost"
    return "superseded" if key.retired is None else "retired"
