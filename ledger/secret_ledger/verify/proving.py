"""The full verification before a generation is purged or a key is retired.

A census counts columns, which anybody with SQL access can write. So a certificate rests on a
full verification without the keys that go: every row that stays opens under another key, or
sealed events say that its data is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, replace

from secret_ledger.errors import LedgerError, NotALedger
from secret_ledger.model.control import Control
from secret_ledger.rules.attestation import Attestation
from secret_ledger.rules.findings import OnProgress, VerifyReport
from secret_ledger.session.following import Follower
from secret_ledger.store.retry import through_outages
from secret_ledger.store.schema import read_meta
from secret_ledger.verify.verify import Others, verify_ledger

__all__ = ["Proven", "check_whole", "prove_without"]


@dataclass(frozen=True, slots=True)
class Proven:
    """The result of a full verification."""

    control: Control
    """The control stream that the verification built on."""
    report: VerifyReport
    proof: Attestation | None
    """The end of the log, and the hash of its last event. None if anything was found."""


async def prove_without(
    follower: Follower,
    keys: Collection[bytes],
    others: Others,
    on_progress: OnProgress | None = None,
) -> Proven:
    """Verify the whole ledger as if the keys of these fingerprints were gone.

    `others`: how far to check the generations that are not in use. Raises TamperedEvent if the
    control stream is damaged; the reason if this node may not write (StaleKey, LedgerMoved);
    NotALedger if the ledger is gone; LedgerUnavailable.
    """
    database = follower.database
    meta = await through_outages(database, lambda c: read_meta(c, database), "statement")
    if meta is None:
        raise NotALedger(f"{database.place} holds no ledger any more")
    while True:
        standing = await follower.follow(read=through_outages)
        if standing.refusal is not None:
            raise copy(standing.refusal)
        left = {mark: key for mark, key in standing.keys.items() if mark not in keys}
        checked = await verify_ledger(
            database,
            meta,
            replace(standing, keys=left),
            "full",
            on_progress=on_progress,
            read=through_outages,
            others=others,
        )
        if checked is not None:  # else the control stream has grown meanwhile
            return Proven(standing.control, checked.report, checked.proof)


def check_whole(proven: Proven, kept: str) -> None:
    """Raises TamperedEvent or MissingKey if the verification found anything.

    The message begins with `kept`, which names the generation or key that stays.
    """
    try:
        proven.report.raise_if_not_ok()
    except LedgerError as error:
        found = error
    else:
        return
    raise type(found)(f"{kept}: {found.message}", hint=found.hint, **found.details)
