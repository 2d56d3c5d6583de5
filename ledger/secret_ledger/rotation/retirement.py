"""How a key ends: it is retired once nothing needs it any more, or it is lost for good.

Each end is one control event, with the census as counted from the rows. A superseded key seals
nothing new, so ever less lies under it. The census does not prove that nothing needs the key: a
full verification without the key does (`proving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from secret_ledger.errors import InvalidValue, KeyInUse, UnknownKey
from secret_ledger.log import log
from secret_ledger.model.control import Control, ControlKey
from secret_ledger.model.events import EventType
from secret_ledger.model.metadata import encode_metadata
from secret_ledger.model.refusals import short
from secret_ledger.model.rows import LogHead
from secret_ledger.nodes.registry import list_nodes
from secret_ledger.read.census import KeyUse, census
from secret_ledger.rotation.losing import Ending, give_up
from secret_ledger.rules.findings import OnProgress
from secret_ledger.rules.gate import Standing
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import heads_of_generations
from secret_ledger.store.retry import through_outages
from secret_ledger.verify.proving import Proven, check_whole, prove_without
from secret_ledger.write.append import Attempt, append_events
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import Entry, control_events, lock_control

__all__ = ["KeyEnd", "loss", "record_loss", "retire"]


@dataclass(frozen=True, slots=True)
class KeyEnd:
    """How a key ended, and the rows that lay under it."""

    changed: bool
    """False if the key had ended in this way before."""
    key_id: str
    key_fingerprint: bytes
    uses: Sequence[KeyUse]
    """By generation: events that needed the key, and rows that were purged of their data."""
    secrets: int
    """Secrets whose newest event lay under the key."""
    nodes: Sequence[str]
    """Labels of the other live nodes that say that they still hold the key.

    They are no reason to refuse.
    """


async def retire(
    session: Session, key_id: str, *, actor: str | None, on_progress: OnProgress | None = None
) -> KeyEnd:
    """Certify that nothing needs a key any more.

    The `key.retired` event states the counts, and how far the log was verified without the key.

    Raises UnknownKey. Raises KeyInUse if the key is active or lost, and while any event of any
    generation needs it: the message names their generations, and the way on. Raises TamperedEvent
    or MissingKey if something else does not open: then nobody knows which events need the key.
    """
    ended = None
    while ended is None:
        ended = await _retire(session, key_id, actor, on_progress)
    return ended


async def _retire(
    session: Session, key_id: str, actor: str | None, on_progress: OnProgress | None
) -> KeyEnd | None:
    """Returns None if the ledger has changed since it was verified."""
    follower = session.follower
    control = (await follower.follow(read=through_outages)).control
    key = _named(control, key_id)
    if key.retired is not None:
        return await _report(session, key, changed=False)
    if key.lost is not None:
        raise KeyInUse(
            f"key {key.id} is lost: there is nothing to retire",
            hint="remove the key from the settings: nothing needs it any more",
            key_id=key.id,
        )
    report = await _report(session, key, changed=True)
    heads = await _generations(follower.database)
    _check_unused(key, report, heads)
    proven = await prove_without(follower, [key.fingerprint], "keys", on_progress)
    _check_unneeded(key, report, proven)
    seen = _Seen(proven, _states(heads))
    done = await _end(session, key, report, seen, actor)
    return report if done else None


class _Seen(NamedTuple):
    """The facts that a certificate rests on."""

    proven: Proven
    states: frozenset[tuple[int, str]]
    """Number and state of each generation, before they were verified."""


def _states(heads: Sequence[LogHead]) -> frozenset[tuple[int, str]]:
    return frozenset((head.generation, head.state) for head in heads)


def _check_unneeded(key: ControlKey, report: KeyEnd, proven: Proven) -> None:
    """Raises KeyInUse if a row opens under `key` alone, else the verification's findings."""
    needed = [
        finding
        for finding in proven.report.findings
        if finding.kind == "missing_key" and finding.expected_fingerprint == key.fingerprint.hex()
    ]
    if needed:
        first = needed[0]
        raise KeyInUse(
            f"key {key.id} ({short(key.fingerprint)}…) is needed for {len(needed):,} events: the"
            f" first is {first.stream} version {first.version} of generation {first.generation}",
            hint="run `secret-ledger migrate`, then purge the generation that it closes:"
            " `secret-ledger generations list` shows its number",
            key_id=key.id,
            events=len(needed),
            secrets=report.secrets,
        )
    check_whole(
        proven, f"key {key.id} was not retired, because the verification found another problem"
    )


async def loss(session: Session, key_id: str) -> KeyEnd:
    """Report the events and secrets that would be lost with a key.

    Raises UnknownKey, and KeyInUse if the key is active, retired or in the keyring.
    """
    follower = session.follower
    control = (await follower.follow(read=through_outages)).control
    key = _named(control, key_id)
    if key.retired is not None and key.lost is None:
        raise KeyInUse(
            f"key {key.id} was retired: nothing needs the key, so nothing can be lost with it",
            hint="remove the key from the settings; no loss needs a record",
            key_id=key.id,
        )
    if key.lost is None and key.fingerprint in follower.standing.keys:
        raise KeyInUse(
            f"key {key.id} ({short(key.fingerprint)}…) is in the keyring: it is not lost",
            hint="to seal its events under the active key, run `secret-ledger migrate`; for newest"
            " events alone, `secret-ledger keys rekey`",
            key_id=key.id,
        )
    return await _report(session, key, changed=key.lost is None)


async def record_loss(
    session: Session,
    key_id: str,
    *,
    reason: str,
    actor: str | None,
    on_progress: OnProgress | None = None,
) -> KeyEnd:
    """Give up a superseded key for good: one `key.lost` event states which rows are lost with it.

    From then on its versions are destroyed, and nothing waits for the key any more. Nothing undoes
    that.

    Raises UnknownKey; InvalidValue without a reason; KeyInUse if the key is active, retired or in
    the keyring; MigrationInProgress. Raises TamperedEvent if the log is damaged: a damaged row must
    not pass for a row that is lost with the key.
    """
    given: object = reason
    if not isinstance(given, str) or not given.strip():
        raise InvalidValue("a reason is needed to give up a key; it is kept in the log")
    report = await loss(session, key_id)
    if report.changed:
        key = _named(session.follower.standing.control, key_id)
        ending = Ending(reason, actor, _about(key, report))
        await give_up(session, key, ending, on_progress)
        _tell(EventType.KEY_LOST, key, actor, reason)
    return report


def _named(control: Control, key_id: str) -> ControlKey:
    key = control.key_of_id(key_id)
    if key is None:
        raise UnknownKey(
            f"no key {key_id} was ever introduced here",
            hint=f"the keys of this ledger: {', '.join(k.id for k in control.keys)}",
            key_id=key_id,
        )
    if key == control.active:
        raise KeyInUse(
            f"key {key.id} ({short(key.fingerprint)}…) is the active one",
            hint="rotate to another key first: secret-ledger keys rotate",
            key_id=key.id,
        )
    return key


async def _generations(database: Database) -> Sequence[LogHead]:
    return await through_outages(database, lambda c: heads_of_generations(c, database), "statement")


async def _report(session: Session, key: ControlKey, *, changed: bool) -> KeyEnd:
    database, follower, me = session.database, session.follower, session.identity
    counted = await census(database, follower.standing.control.generation)
    nodes = await through_outages(database, lambda c: list_nodes(c, database, None), "statement")
    holding = [
        node.label
        for node in nodes
        if node.state == "live"
        and node.node_id != me.node_id
        and key.fingerprint.hex() in [mark for _, mark in node.readable]
    ]
    return KeyEnd(
        changed=changed,
        key_id=key.id,
        key_fingerprint=key.fingerprint,
        uses=[u for u in counted.events if u.key_fingerprint == key.fingerprint],
        secrets=sum(h.secrets for h in counted.heads if h.key_fingerprint == key.fingerprint),
        nodes=holding,
    )


def _check_unused(key: ControlKey, report: KeyEnd, heads: Sequence[LogHead]) -> None:
    places = [
        f"{use.events:,} events of generation {use.generation} ({use.state})"
        for use in report.uses
        if use.events
    ]
    # Until a purge is done, nobody knows which rows are left: the generation counts as whole.
    places += [f"generation {h.generation}, half purged" for h in heads if h.state == "purging"]
    if not places:
        return
    behind = ("closed", "purging", "purged")
    migrate = any(use.events and use.state not in behind for use in report.uses)
    steps = ["secret-ledger migrate"] if migrate else []
    left = {use.generation for use in report.uses if use.state == "purged" and use.events}
    steps += [
        f"secret-ledger generations purge {h.generation}"
        for h in heads
        if h.state in ("closed", "purging") or h.generation in left
    ]
    if migrate:
        steps.append("secret-ledger generations purge, of the generation that this closes")
    raise KeyInUse(
        f"key {key.id} ({short(key.fingerprint)}…) is needed for {', '.join(places)};"
        f" {report.secrets:,} secrets have their latest version under it",
        hint=f"first: {', then '.join(steps)}",
        key_id=key.id,
        events=sum(use.events for use in report.uses),
        secrets=report.secrets,
    )


async def _end(
    session: Session,
    key: ControlKey,
    report: KeyEnd,
    seen: _Seen,
    actor: str | None,
) -> bool:
    """Returns False if the control stream or the generations are not as `seen`."""
    follower = session.follower
    about = _about(key, report)
    if seen.proven.proof is not None:
        proof = seen.proven.proof
        about["verified"] = {
            "generation": proof.generation,
            "position": proof.position,
            "hash": proof.event_hash.hex(),
        }
    metadata = encode_metadata(actor=actor, ledger=about)

    def write(connection: Connection, standing: Standing) -> Attempt | bool:
        control = standing.control
        known = control.key(key.fingerprint)
        if known is None or known.retired is not None:
            return True  # another node was faster
        locked = lock_control(connection, follower.database, standing)
        states = _states(heads_of_generations(connection, follower.database))
        if control.events != seen.proven.control.events or states != seen.states:
            return False
        entry = Entry(EventType.KEY_RETIRED, metadata)
        events = control_events(control, standing.check_may_write(), locked, [entry])
        return append_events(connection, follower.database, locked, events, session.projections)

    done = await commit(follower, write, patience=session.patience)
    await follower.follow(read=through_outages)
    if done is False:
        return False
    _tell(EventType.KEY_RETIRED, key, actor, None)
    return True


def _about(key: ControlKey, report: KeyEnd) -> dict[str, Any]:
    return {
        "key": {"id": key.id, "fingerprint": key.fingerprint.hex()},
        "counts": {
            str(use.generation): {"events": use.events, "purged": use.purged} for use in report.uses
        },
        "secrets": report.secrets,
    }


def _tell(event_type: str, key: ControlKey, actor: str | None, reason: str | None) -> None:
    log.info(
        "key_ended",
        event_type=event_type,
        key_id=key.id,
        key_fingerprint=key.fingerprint.hex(),
        actor=actor,
        reason=reason,
    )
