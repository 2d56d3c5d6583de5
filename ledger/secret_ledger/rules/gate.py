"""The boot gate's rules, steps 2 to 5 of `boot`. Pure: a snapshot in, a verdict out.

`check_state` needs no key. It checks the control stream's hashes, chain and rules, and whether
`ledger_key` and the head row agree with the stream. Then `judge_keys` takes the keys in hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Final

from secret_ledger.config.keyring import Keyring
from secret_ledger.errors import (
    KeyExhausted,
    KeyFingerprintMismatch,
    LedgerError,
    LedgerMoved,
    LedgerUnavailable,
    MigrationInProgress,
    StaleKey,
    TamperedEvent,
    WrongLedger,
)
from secret_ledger.model.control import FACTS, Control, check_known, fold_control
from secret_ledger.model.events import Event
from secret_ledger.model.format import hash_of
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.refusals import printable, short
from secret_ledger.model.rows import LogHead, State
from secret_ledger.rules.authority import (
    SealingKeys,
    bind,
    check_control_authority,
    check_control_seals,
    choose_keys,
)

__all__ = [
    "MAX_EVENTS_PER_KEY",
    "Standing",
    "check_last",
    "check_not_behind",
    "check_not_exhausted",
    "check_not_moved",
    "check_pinned",
    "check_seals_left",
    "check_state",
    "has_moved",
    "is_damaged",
    "judge_keys",
    "moved_error",
    "moved_place",
    "out_of_reach",
]


MAX_EVENTS_PER_KEY: Final = 2**32
"""NIST SP 800-38D, 8.3: the bound of GCM with random 96-bit nonces."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A process's view of its ledger: the control stream that it has verified, and its keys."""

    control: Control
    keys: Mapping[bytes, LedgerKey] = field(default_factory=dict)
    """All keys in hand, by fingerprint. They serve reads even if writing is refused."""
    verdict: SealingKeys | LedgerError | None = None
    """The keys to write with, or why writing is refused. None if no keys were judged."""

    @property
    def sealing(self) -> SealingKeys | None:
        """The keys to write with. Returns None if this process may not write."""
        return self.verdict if isinstance(self.verdict, SealingKeys) else None

    @property
    def refusal(self) -> LedgerError | None:
        """Why writing is refused. Returns None if there is no refusal."""
        return self.verdict if isinstance(self.verdict, LedgerError) else None

    @property
    def moved(self) -> bool:
        """Whether the ledger has moved to another database."""
        return isinstance(self.verdict, LedgerMoved)

    def check_may_write(self) -> SealingKeys:
        """The keys to write with. Raises the refusal, or LedgerUnavailable if none was judged."""
        if isinstance(self.verdict, SealingKeys):
            return self.verdict
        raise copy(self.verdict) if self.verdict else LedgerUnavailable("this node may not write")

    def check_not_moved(self) -> None:
        """Raises LedgerMoved if the ledger has moved to another database."""
        if isinstance(self.verdict, LedgerMoved):
            raise copy(self.verdict)


def check_pinned(ledger_id: bytes, pinned: bytes | None) -> None:
    """Raises WrongLedger if the settings pin another ledger."""
    if pinned is not None and ledger_id != pinned:
        raise WrongLedger(
            f"this is ledger {ledger_id.hex()}; the settings pin {pinned.hex()}",
            hint="check the database URL, then OS_SECRET_LEDGER_ID; nothing was written",
            expected=pinned.hex(),
            actual=ledger_id.hex(),
        )


def check_state(state: State) -> Control:
    """Step 3 of the gate, the part without any key. Returns the control stream, folded.

    Raises TamperedEvent. Raises MigrationInProgress if this database is the unfinished target of
    a move."""
    head = _head_in_use(state)
    above = [h for h in state.heads if h.generation > head.generation and h.state == "closed"]
    if above:
        raise TamperedEvent(
            f"generation {head.generation} says that it is {head.state}, but generation"
            f" {above[0].generation}, which comes later, says that it was in use and is closed",
            hint="an old head row was put back, or another one was added; restore ledger_head"
            " from a backup",
            generation=above[0].generation,
        )
    control = fold_control(state.meta.ledger_id, head.generation, state.control)
    if control.unknown is not None:  # a later release's rules hold: `judge_keys` refuses
        return control
    if (state.meta.format >= FACTS) != bool(control.upgrades):
        raise TamperedEvent(
            f"ledger_meta says format {state.meta.format}, and the control stream was"
            + ("" if control.upgrades else " never")
            + " upgraded: one of them was put back",
            hint="restore the database from a backup",
        )
    if control.generation > 0 and control.opened is None:
        raise TamperedEvent(
            f"generation {head.generation} was never opened, but its head row says that it is"
            f" {head.state}",
            hint="a migration that has not finished was put into use; restore the database from a"
            " backup",
        )
    if control.closed is not None and head.state == "active":
        raise TamperedEvent(
            f"generation {head.generation} was closed at position {control.closed}, but its head"
            " row says that it is active",
            hint="an old head row was put back; restore the database from a backup",
        )
    if control.closed is None and head.state == "moved":
        raise TamperedEvent(
            f"the head row says that the ledger moved, but generation {head.generation} was"
            " never closed"
        )
    if head.key_epoch != control.epoch:
        raise TamperedEvent(
            f"the head row is at key epoch {head.key_epoch}, the control stream at"
            f" {control.epoch}: this is damage, not a wrong key"
        )
    check_last(control, head, state.last)
    known = {key.id: key.fingerprint for key in control.keys}
    if len(state.keys) != len(known) or dict(state.keys) != known:
        raise TamperedEvent(
            "ledger_key does not agree with the control stream: this is damage, not a wrong key",
            hint="the control stream is the truth; restore ledger_key from it or from a backup",
        )
    return control


def check_last(control: Control, head: LogHead, last: Event | None) -> None:
    """Raises TamperedEvent if the head row is not at the position and time of the last event."""
    if last is None or head.position < control.last.position:
        raise TamperedEvent(
            f"the head row says that the log ends at position {head.position}; there is no such"
            " event, or the control stream goes on behind it",
            position=head.position,
        )
    if last.recorded_at != head.recorded_at and not is_damaged(control.ledger_id, last):
        raise TamperedEvent(
            f"the head row's time is not that of the last event, at position {head.position}",
            position=head.position,
        )


def is_damaged(ledger_id: bytes, event: Event) -> bool:
    """Whether the event is at fault, and not the head row. Step 6 of the gate reports the event.

    The ledger can still be opened at level `control`, to destroy the secret of the event."""
    try:
        return hash_of(ledger_id, event) != event.event_hash
    except TamperedEvent:
        return True


def _head_in_use(state: State) -> LogHead:
    if len(state.in_use) == 1:
        return state.in_use[0]
    # Generation 0 is never the target of a move.
    if not state.in_use and any(h.state == "building" and h.generation for h in state.heads):
        raise MigrationInProgress(
            "this database is the target of a move that has not finished",
            hint="run the same `secret-ledger migrate --to` again, at the source",
        )
    raise TamperedEvent(
        f"{len(state.in_use)} generations say that they are in use; exactly one must be",
        hint="restore the database from a backup",
    )


def has_moved(state: State) -> bool:
    """Whether the head row says that the ledger has moved to another database."""
    return bool(state.in_use) and state.in_use[0].state == "moved"


def check_not_moved(state: State) -> None:
    """Raises LedgerMoved if the head row says `moved`, and no key in hand has proven it.

    If a key proves the move, the refusal of `judge_keys` is LedgerMoved instead."""
    if has_moved(state):
        raise moved_error(
            moved_place(state.control), " (as its rows say; no key in hand proves it)"
        )


def moved_error(place: str, proof: str = "") -> LedgerMoved:
    """The error for a ledger that moved to `place`. `proof` says how that is known."""
    return LedgerMoved(
        f"this ledger moved to {place}{proof}; the ledger here stays as it was at the move, and"
        " can only be read",
        hint="point OS_SECRET_LEDGER_URL at the new database; if the move was interrupted, run the"
        " same `secret-ledger migrate --to` again; to read what was left here, give --moved, or in"
        " code open(…, read_only=True, read_moved=True)",
        moved_to=place,
    )


def moved_place(control: Sequence[Event]) -> str:
    """The place that the ledger moved to, as its last control event, `generation.closed`, says."""
    about = parse_metadata(control[-1].metadata).ledger.get("move") if control else None
    place = about.get("to") if isinstance(about, dict) else None
    return printable(place) if isinstance(place, str) else "another database"


def judge_keys(
    control: Control, keyring: Keyring, *, strict: bool = True, moved: bool = False
) -> Standing:
    """Steps 3 (the seals), 4 and 5 of the gate. Returns the Standing of the process.

    Raises TamperedEvent, and SchemaTooNew if a later release wrote to the control stream. If
    `strict` (at boot), raises KeyFingerprintMismatch or StaleKey. A running node keeps such an
    error as its refusal to write. `moved`: the head row says that the ledger has moved."""
    keys = bind(keyring, control.ledger_id)
    by_fingerprint = {key.fingerprint: key for key in keys}
    check_control_seals(control, by_fingerprint)
    check_known(control)
    verdict: SealingKeys | LedgerError
    try:
        verdict = choose_keys(control, keys)
    except (KeyFingerprintMismatch, StaleKey) as error:
        if strict:
            raise
        verdict = error
    check_control_authority(control)
    if moved:
        verdict = moved_error(moved_place(control.events))
    return Standing(control, by_fingerprint, verdict)


def out_of_reach(standing: Standing, end: int) -> list[str]:
    """One message for each key that is not in hand: its id, and how many versions lie under it.

    end: the position at which the log ends."""
    control = standing.control
    own = [event.position for event in control.events]
    found: list[str] = []
    for key in control.keys:
        if key.fingerprint in standing.keys or key.lost is not None:
            continue
        reign = control.positions_under(key, end)
        events = len(reign) - sum(position in reign for position in own)
        if events:
            found.append(
                f"{events:,} versions lie under {key.id} ({short(key.fingerprint)}…), which"
                " is not in the keyring: they can't be read; add it to OS_SECRET_PREVIOUS_KEYS"
            )
    return found


def check_not_behind(head: LogHead, seen: int) -> None:
    """Raises TamperedEvent if the log ends below position `seen`: a log never gets shorter."""
    if head.position < seen:
        raise TamperedEvent(
            f"the log ends at position {head.position}, behind position {seen} that this node"
            " has seen: events were lost, or an older copy of the database was put in place",
            hint="find out what happened; a fail-over to a standby that lagged loses its last"
            " writes",
            position=head.position,
            seen=seen,
        )


def check_not_exhausted(control: Control, position: int) -> None:
    """Raises KeyExhausted if the log may not grow to `position` under the active key.

    Copies of the history count too."""
    check_seals_left(control, position, 0)


def check_seals_left(control: Control, position: int, more: int) -> None:
    """Raises KeyExhausted if `more` events may not be sealed under the active key.

    They come on top of the events of a log that ends at `position`."""
    if control.seals_under_active(position) + more > MAX_EVENTS_PER_KEY:
        raise KeyExhausted(
            f"2^32 events were sealed under key {control.active.id}"
            f" ({short(control.active.fingerprint)}…), or would be: that is the bound of AES-GCM",
            hint="rotate to a new key: secret-ledger keys rotate",
        )
