"""Opening on the strength of an earlier verification: `verify="incremental"`.

A node attests (`attestation`) that the log was in order up to a position. If a boot finds this
attestation, it checks the events above that position, the ends of the log and a random sample of
the rest. Then the ledger is ready, and `scrub` checks the rest. If a boot can't build on an
attestation, it verifies at `latest`; if it finds nothing wrong, that is attested for the next boot.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final, NamedTuple

import anyio

from secret_ledger.errors import LedgerError, TamperedEvent
from secret_ledger.log import log
from secret_ledger.model.control import Control
from secret_ledger.model.events import Event, from_microseconds
from secret_ledger.model.refusals import printable
from secret_ledger.model.rows import LogHead, Meta, State
from secret_ledger.rules.attestation import Attestation, attest, verdict_on
from secret_ledger.rules.findings import OpenLevel, Tally
from secret_ledger.rules.gate import Standing
from secret_ledger.rules.row_checks import Rules
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.reads import event_at, read_state
from secret_ledger.store.retry import patiently
from secret_ledger.verify.scan import Scan
from secret_ledger.verify.verify import Checked, has_changed, unchanged, verify_ledger

__all__ = ["SAMPLE", "keep_proof", "verify_to_open"]

SAMPLE: Final = 500
"""Old positions that an incremental boot draws; all of them, if the log has fewer."""
FORGED: Final = (
    "the attestation of an earlier verification does not authenticate: somebody without the key has"
    " written it; the attestation was ignored, and everything was verified again"
)


class _Look(NamedTuple):
    """One snapshot of the rows that an incremental boot builds on."""

    state: State
    attestation: Attestation | None
    last: Event | None
    """The event at the position that the attestation names."""
    ends: tuple[object, object]
    """The lowest and the highest position of the log's rows."""


async def verify_to_open(
    database: Database, meta: Meta, standing: Standing, level: OpenLevel
) -> Checked | None:
    """Verify at `level`: step 6 of the boot gate.

    Returns None if the control stream has grown since `standing`. Raises LedgerUnavailable, and
    TamperedEvent if the head row is gone or an authentic attestation contradicts the log.
    """
    if level != "incremental":
        return await verify_ledger(database, meta, standing, level)
    began = time.monotonic()
    look = await patiently(database, lambda c: _look(c, database, meta, standing), "snapshot")
    head = unchanged(look.state, standing.control)
    if head is None:
        return None
    attestation, last = look.attestation, None
    problem = _why_not_believed(standing, attestation)
    if attestation is not None and problem is None:
        # Whatever is verified next: a log that an authentic attestation contradicts is refused.
        last = _last_attested(standing.control, head, attestation, look)
        problem = _why_not_built_on(standing, attestation, head)
    if attestation is None or last is None or problem is not None:
        log.info("ledger_boot_not_incremental", reason=problem)
        checked = await verify_ledger(database, meta, standing, "latest")
        if checked is None or problem != FORGED:
            return checked
        return replace(checked, warnings=(FORGED,))
    tally = Tally()
    scan = Scan(database, Rules(standing.control, standing.keys), tally)
    await scan.every_event(head, after=last.position, time_before=last.recorded_at)
    await scan.sample(head, last.position, SAMPLE)
    if tally.findings and await has_changed(database, meta, standing.control):
        return None
    log.info(
        "ledger_boot_incremental",
        since_position=attestation.position,
        since=from_microseconds(attestation.verified_at).isoformat(),
        level=attestation.level,
        secrets=attestation.heads,
        release=attestation.release,
    )
    return Checked(tally.report("incremental", time.monotonic() - began))


def _look(connection: Connection, database: Database, meta: Meta, standing: Standing) -> _Look:
    place = {"generation": standing.control.generation}
    sql = database.statements
    row = connection.execute(sql.attestation, place).first()
    attestation, last = None, None
    if row is not None:
        attestation = Attestation._make(row)
        position: object = attestation.position  # nothing is authenticated yet
        if isinstance(position, int) and 0 < position < 2**63:
            last = event_at(connection, database, **place, position=position)
    lowest, highest = connection.execute(sql.ends, place).one()
    state = read_state(connection, database, meta)
    return _Look(state, attestation, last, (lowest, highest))


def _why_not_believed(standing: Standing, attestation: Attestation | None) -> str | None:
    """Returns None if the attestation is authentic."""
    if attestation is None:
        return "nothing has been attested yet in this generation"
    verdict = verdict_on(standing.control, standing.keys, attestation)
    if verdict == "forged":
        return FORGED
    if verdict == "unknown":
        return "the attestation is of another release, or of a key that is not in hand"
    return None


def _why_not_built_on(standing: Standing, attestation: Attestation, head: LogHead) -> str | None:
    """Returns None if the boot can build on this attestation, which is authentic."""
    control = standing.control
    # The newest events at that position lay under the former; later events lie under the latter.
    needed = attestation.fingerprints | {
        key.fingerprint for key in control.keys if key.activated > attestation.position
    }
    for key in control.keys:
        if key.fingerprint in needed and key.fingerprint not in standing.keys and not key.lost:
            return f"newest events may lie under {key.id}, which is not in hand"
    if head.position - attestation.position > max(attestation.heads, SAMPLE):
        return (
            "the log has more new events than secrets: to open each secret's newest event is faster"
        )
    return None


def _last_attested(control: Control, head: LogHead, attestation: Attestation, look: _Look) -> Event:
    """Returns the event at the attested position.

    Raises TamperedEvent if the log is not the attested log, or if its rows do not lie at
    positions 1 to the head row's.
    """
    at = attestation.position
    when = from_microseconds(attestation.verified_at).isoformat(" ", "seconds")
    if look.ends != (1, head.position):
        first, last = map(printable, look.ends)
        raise TamperedEvent(
            f"the log has rows at positions {first} to {last}; its head row says {head.position}",
            hint="`secret-ledger verify --level full` lists every damaged row",
        )
    told = [e for e in control.events if e.position <= at]
    event = look.last
    if (
        event is None
        or event.event_hash != attestation.event_hash
        or told[-1].event_hash != attestation.control_hash
    ):
        raise TamperedEvent(
            f"the log is not the one that was verified on {when} up to position {at}: events were"
            " lost or exchanged, or an older copy of the database was put in place",
            hint="restore the log from a backup that has those events; to accept the log as it is,"
            ' open the ledger once with verify="latest"',
            position=at,
        )
    return event


async def keep_proof(
    database: Database, standing: Standing, proof: Attestation, *, release: str
) -> None:
    """Attest a proof for the next boot, unless an authentic attestation reaches further.

    This takes two seconds at most. If it fails, the next boot takes longer, and nothing else
    happens.
    """
    control = standing.control
    owner = control.authority(proof.position)
    key = standing.keys.get(owner.fingerprint)
    if key is None:
        return
    mine = attest(proof, control.ledger_id, key, key_id=owner.id, release=release)

    def unit(connection: Connection) -> None:
        # The head row's lock lets nodes attest one after the other.
        head = database.lock_generation(connection, proof.generation)
        if head is None or head.state != "active":
            return
        sql = database.statements
        place = {"generation": proof.generation}
        for theirs in map(Attestation._make, connection.execute(sql.attestation, place).all()):
            if verdict_on(control, standing.keys, theirs) != "authentic":
                continue
            if proof.position < theirs.position <= head.position:
                return
            if theirs.position > head.position:
                log.warning(
                    "ledger_shorter_than_attested",
                    position=head.position,
                    attested=theirs.position,
                )
        connection.execute(sql.forget_attestations)
        connection.execute(sql.insert_attestation, mine._asdict())

    try:
        with anyio.move_on_after(2):
            await database.run(unit, "note")
    except LedgerError as error:
        log.info("ledger_proof_not_kept", reason=error.message)
