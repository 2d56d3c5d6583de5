"""What the audit says of one key: since when it was what, what it protects, who holds it."""

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
    """The history of one key of the ledger."""

    key_id: str
    key_fingerprint: bytes
    state: KeyState
    epoch: int
    introduced: KeyMoment
    activated: KeyMoment
    superseded: KeyMoment | None
    """The activation of the next key."""
    retired: KeyMoment | None
    lost: KeyMoment | None
    events: int
    """Events under it in the generation in use; purged rows, which need no key, aside."""
    first: int | None
    last: int | None
    """Their positions."""
    elsewhere: Mapping[int, int]
    """Events under it in other generations that exist still: generation to count."""
    secrets: int
    """Secrets whose latest event lies under it."""
    nodes: Sequence[str]
    """Live nodes that say that they hold it. Unauthenticated."""
    refused_boots: int
    """Boots that were refused with it as the current key. Unauthenticated."""
    check: Check = "unverified"
    """What opening its control events gave; they are not opened unless that is asked for."""
    problem: str | None = None
    """Why one of them did not open."""


def key_state(control: Control, key: ControlKey) -> KeyState:
    """What a key is by now."""
    if key == control.active:
        return "active"
    if key.lost is not None:
        return "lost"
    return "superseded" if key.retired is None else "retired"
