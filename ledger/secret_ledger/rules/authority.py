"""Which keys a process may use in a ledger, and how a read can end. Pure rules, no I/O.

`choose_keys` is step 4 of the boot gate: the ledger says which key is active, not the order of a
setting. Every read opens its events through `read_event`, which returns the data, or raises an
error that says why not. It never returns a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import (
    KeyFingerprintMismatch,
    LedgerError,
    MissingKey,
    SecretDestroyed,
    StaleKey,
    TamperedEvent,
)
from secret_ledger.model.control import Control, ControlKey
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.format import is_purged, open_event
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.refusals import printable, short, tampered

__all__ = [
    "SealingKeys",
    "check_control_seals",
    "choose_keys",
    "read_event",
    "read_newest",
]


@dataclass(frozen=True, slots=True)
class SealingKeys:
    """The keys that a process seals with if it may write, as the control stream says."""

    active: LedgerKey
    """The key that new events are sealed under."""
    active_id: str
    """The ledger's label of the active key. It wins over the keyring's label."""
    pending: LedgerKey | None
    """The configured current key if the ledger has not seen it yet, else None."""
    warnings: tuple[str, ...]
    """Messages for an operator. They are no reason to refuse."""


def check_control_seals(control: Control, held: Mapping[bytes, LedgerKey]) -> None:
    """Open each control event whose key is held.

    Raises TamperedEvent if a control event does not open, or carries data. This check comes
    before any verdict on the keys, so that damage is never reported as a wrong key.
    """
    for event in control.events:
        key = held.get(event.key_fingerprint)
        if key is not None and open_event(key.event_cipher, control.ledger_id, event):
            raise tampered(event, "a control event carries data")


def check_control_authority(control: Control) -> None:
    """Raises TamperedEvent if a control event is purged, or not under the key of its position."""
    for event in control.events:
        if is_purged(event.sealed):
            raise tampered(event, "a control event is never purged")
        if not control.may_be_under(event):
            raise _wrong_authority(control, event)


def bind(keyring: Keyring, ledger_id: bytes) -> tuple[LedgerKey, ...]:
    """The keyring's keys with their fingerprints in this ledger, the current key first."""
    return tuple(key.for_ledger(ledger_id) for key in keyring.keys)


def choose_keys(control: Control, keys: Iterable[LedgerKey]) -> SealingKeys:
    """Judge the keys of a keyring, the current key first, by the keys of the ledger.

    Raises KeyFingerprintMismatch if the ledger knows none of the keys, or has bound the id of a
    key to another fingerprint. Raises StaleKey if the ledger knows a key, but the active key is
    not in hand. The errors name the keys by id and fingerprint.
    """
    keys = tuple(keys)
    for key in keys:
        bound = control.key_of_id(key.id)
        if bound is not None and bound.fingerprint != key.fingerprint:
            raise KeyFingerprintMismatch(
                f"the key {key.id} in hand (fingerprint {short(key.fingerprint)}…) is not the"
                f" key {bound.id} of this ledger (fingerprint {short(bound.fingerprint)}…)",
                hint=f"restore the key of fingerprint {short(bound.fingerprint)}…, or give a new"
                " key an id of its own; nothing was written",
                key_id=key.id,
                expected_fingerprint=bound.fingerprint.hex(),
                actual_fingerprint=key.fingerprint.hex(),
            )
    held = {key.fingerprint: key for key in keys}
    active = held.get(control.active.fingerprint)
    known = [k for k in control.keys if k.fingerprint in held]
    if active is None:
        raise _not_the_active(control.active, keys, known)
    warnings = [
        f"the keyring gives key {control_key.id} the label {held[control_key.fingerprint].id!r};"
        " the ledger keeps its own label"
        for control_key in known
        if held[control_key.fingerprint].labelled
        and held[control_key.fingerprint].id != control_key.id
    ]
    pending = None
    current = control.key(keys[0].fingerprint)
    if current is None:
        pending = keys[0]
    elif current != control.active:
        warnings.append(
            f"the current key {current.id} of the settings was superseded: new events are sealed"
            f" under the active key {control.active.id}; make that key the current key"
            " (OS_SECRET_KEY)"
        )
    return SealingKeys(active, control.active.id, pending, tuple(warnings))


def _not_the_active(
    active: ControlKey, keys: tuple[LedgerKey, ...], known: list[ControlKey]
) -> LedgerError:
    in_hand = ", ".join(f"{k.id} ({short(k.fingerprint)}…)" for k in keys)
    details = {
        "expected_key_id": active.id,
        "expected_fingerprint": active.fingerprint.hex(),
        "actual_key_id": keys[0].id,
        "actual_fingerprint": keys[0].fingerprint.hex(),
    }
    if known:
        return StaleKey(
            f"the ledger has rotated to {active.id} ({short(active.fingerprint)}…), which is not"
            f" among the keys in hand: {in_hand}",
            hint=f"deploy the key {active.id} as OS_SECRET_KEY, and keep the old one in"
            " OS_SECRET_PREVIOUS_KEYS; nothing was written",
            **details,
        )
    return KeyFingerprintMismatch(
        f"this ledger's active key is {active.id} ({short(active.fingerprint)}…); it knows none of"
        f" the keys in hand: {in_hand}",
        hint=f"restore the key of fingerprint {short(active.fingerprint)}… from its copy: a new"
        " key can't open stored events; for a rotation, keep the old key in"
        " OS_SECRET_PREVIOUS_KEYS; nothing was written",
        **details,
    )


def _wrong_authority(control: Control, event: Event) -> TamperedEvent:
    owner = control.authority(event.position)
    return tampered(
        event,
        f"it lies under {printable(event.key_id)} ({short(event.key_fingerprint)}…), but"
        f" {owner.id} ({short(owner.fingerprint)}…) was active at its position",
        expected_fingerprint=owner.fingerprint.hex(),
        actual_fingerprint=event.key_fingerprint.hex(),
    )


def read_newest(
    control: Control,
    held: Mapping[bytes, LedgerKey],
    event: Event,
    *,
    context: bytes | None = None,
) -> bytes:
    """The data of a stream's newest event. Raises TamperedEvent or MissingKey.

    Before the ledger records a key as lost, it ends each secret whose newest event lies under
    the key, by an event of its own. So if a newest event is purged or lies under a lost key, it
    is damaged, whatever its columns say. Without `ledger.upgraded`, raises SecretDestroyed instead.
    """
    if control.upgrades and is_purged(event.sealed):
        raise tampered(event, "it is the newest event of its secret, and its data was taken out")
    try:
        return read_event(control, held, event, context=context)
    except SecretDestroyed:
        if not control.upgrades:
            raise
    raise tampered(
        event, f"it is the newest event of its secret, and lies under {event.key_id}, which is lost"
    )


def read_event(
    control: Control,
    held: Mapping[bytes, LedgerKey],
    event: Event,
    *,
    context: bytes | None = None,
    ended: bool = False,
) -> bytes:
    """The data of `event`. If the event gives no data, an error says why.

    Raises TamperedEvent if the event does not authenticate, breaks the rule of authority, or is
    purged without a reason in the log. Raises SecretDestroyed if its data is gone for good, and
    MissingKey if the ledger knows its key but the key is not held.

    context: the event's context, if the caller has it already.
    ended: whether the secret has ended at this version or a later one.
    """
    if not control.may_be_under(event):
        raise _wrong_authority(control, event)
    owner = control.key(event.key_fingerprint)
    lost = owner is not None and owner.lost is not None and event.stream != CONTROL_STREAM
    if is_purged(event.sealed) and not (ended or control.went_with_its_key(event)):
        raise tampered(event, "its data was taken out, and nothing in the log allows that")
    if ended or lost:
        raise SecretDestroyed(
            f"{event.stream} version {event.version} is gone for good"
            + (f": its key {event.key_id} is lost" if lost else ""),
            position=event.position,
            stream=event.stream,
            version=event.version,
        )
    key = held.get(event.key_fingerprint)
    if key is None:
        raise MissingKey(
            f"{event.stream} version {event.version} is under key {event.key_id}"
            f" ({short(event.key_fingerprint)}…), which is not in the keyring",
            hint=f"add {event.key_id} to OS_SECRET_PREVIOUS_KEYS",
            key_id=event.key_id,
            expected_fingerprint=event.key_fingerprint.hex(),
            position=event.position,
            stream=event.stream,
            version=event.version,
        )
    return open_event(key.event_cipher, control.ledger_id, event, context)
