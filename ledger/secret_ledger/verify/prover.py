"""Verifications of an open ledger: findings are remembered, a proof is attested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.rows import Meta
from secret_ledger.rules.findings import Level, OnProgress, VerifyReport, report_of
from secret_ledger.session.opened import Session
from secret_ledger.store.catalogue import deviations
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database
from secret_ledger.store.projection import CheckedProjection
from secret_ledger.store.reads import ahead_of_clock, head_in_use
from secret_ledger.store.retry import Read, patiently
from secret_ledger.verify.incremental import keep_proof
from secret_ledger.verify.verified import Verified
from secret_ledger.verify.verify import Checked, verify_ledger

__all__ = ["Prover"]


class Prover:
    """The verifications of one open ledger."""

    def __init__(self, session: Session, meta: Meta, report: VerifyReport) -> None:
        """`report`: the report of the boot gate."""
        self.verified = Verified(report)
        self._session = session
        self._meta = meta

    async def verify(
        self, level: Level = "latest", on_progress: OnProgress | None = None, read: Read = patiently
    ) -> VerifyReport:
        """Check the stored rows at `level`.

        Raises LedgerUnavailable, InvalidValue for an unknown level, and TamperedEvent if the
        control stream itself is damaged.
        """
        session, follower = self._session, self._session.follower
        database = session.database
        while True:
            standing = await follower.follow()
            checked = await verify_ledger(
                database,
                self._meta,
                standing,
                level,
                projections=[p for p in session.projections if isinstance(p, CheckedProjection)],
                on_progress=on_progress,
                read=read,
            )
            now = await follower.follow()
            if checked is not None and now.control.generation == standing.control.generation:
                break  # else a rotation or a migration came in between
        checked = await self._with_the_database(checked, read)
        self.verified.record(checked.report)
        if checked.proof is not None and not session.read_only:
            await keep_proof(database, standing, checked.proof, release=session.identity.release)
        return checked.report

    async def _with_the_database(self, checked: Checked, read: Read) -> Checked:
        """If the schema was altered, no read proves anything: then the proof is dropped."""
        database = self._session.database
        ahead, schema = await read(
            database, lambda c: (_ahead_of_clock(c, database), deviations(c, database))
        )
        report = schema.added_to(checked.report)
        return replace(
            checked,
            report=replace(report, warnings=(*report.warnings, *ahead)),
            proof=checked.proof if schema.reason is None else None,
        )

    async def go_over(self, read: Read) -> VerifyReport:
        """Verify, for the scrub, all that an incremental boot took on trust.

        If the control stream is damaged, the report says so: no TamperedEvent is raised.
        """
        try:
            return await self.verify("latest", read=read)
        except TamperedEvent as error:  # the control stream itself is damaged
            report = report_of("latest", error)
            self.verified.record(report)
            return report


def _ahead_of_clock(connection: Connection, database: Database) -> Sequence[str]:
    head = head_in_use(connection, database)
    return [] if head is None else ahead_of_clock(connection, database, head)
