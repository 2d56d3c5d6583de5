"""Other keys for an open ledger: the gate's steps from the third on, newest events included."""

from __future__ import annotations

from secret_ledger.boot.boot import check_not_ephemeral
from secret_ledger.config.keyring import KeyProvider, Keyring, keyring_of
from secret_ledger.errors import InvalidKey
from secret_ledger.log import log
from secret_ledger.model.rows import Meta
from secret_ledger.rules.authority import bind
from secret_ledger.rules.findings import OpenLevel, VerifyReport
from secret_ledger.session.opened import Session
from secret_ledger.verify.incremental import verify_to_open

__all__ = ["reload_keys"]


async def reload_keys(
    session: Session,
    meta: Meta,
    source: Keyring | KeyProvider | InvalidKey | None,
    level: OpenLevel,
) -> VerifyReport | None:
    """Use the keys of `source` from now on, if the gate lets them pass; else nothing is changed.

    Returns the report of the verification under these keys. Returns None if they are the keys in
    hand. Raises the refusals of the gate, and InvalidKey if `source` is None.
    """
    if source is None:
        raise InvalidKey(
            "the ledger was opened with a fixed Keyring: there is nothing to load again",
            hint="open it with EnvKeyProvider(), or give reload_keys a keyring",
        )
    database, follower = session.database, session.follower
    fresh = await keyring_of(source)
    check_not_ephemeral(fresh, database)
    if bind(fresh, meta.ledger_id) == bind(follower.keyring, meta.ledger_id):
        return None
    checked = None
    while checked is None:  # None: a rotation came in between
        checked = await verify_to_open(
            database,
            meta,
            await follower.judge(fresh),
            "latest" if level == "full" else level,
        )
    checked.report.raise_if_not_ok()
    await follower.adopt(fresh)
    log.info("ledger_keys_reloaded", ledger_id=meta.ledger_id.hex())
    return checked.report
