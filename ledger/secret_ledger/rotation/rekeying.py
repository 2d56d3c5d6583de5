"""Re-encryption: the newest event of every secret is sealed again under the active key.

Online and resumable: the log itself is the plan. While one page of newest events is written, the
next page is read and opened. Each page is one transaction, which locks the head row. It leaves out
the secrets that were written to since the page was read, and seals the others again at the end of
the log. If a run is killed, run it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from anyio import to_thread

from secret_ledger.errors import Incomplete, LedgerError, LedgerUnavailable
from secret_ledger.model.control import Control
from secret_ledger.model.events import CONTROL_STREAM, Event
from secret_ledger.model.floors import ended_at
from secret_ledger.model.format import check_hash
from secret_ledger.model.refusals import tampered
from secret_ledger.model.secret import Secret
from secret_ledger.read.older import walk_to_floor
from secret_ledger.rules.authority import read_newest
from secret_ledger.rules.decide import Draft, Walked, rekeyed
from secret_ledger.rules.findings import Finding, OnProgress, Progress, Tally, finding_of
from secret_ledger.rules.gate import Standing, check_not_behind, check_not_exhausted
from secret_ledger.session.opened import Session
from secret_ledger.store.connection import Connection
from secret_ledger.store.read_ahead import ahead
from secret_ledger.store.reads import BULK, count_secrets, head_in_use, heads_page, streams_between
from secret_ledger.store.retry import through_outages
from secret_ledger.write.append import Attempt, append_events, seal_draft
from secret_ledger.write.committing import commit
from secret_ledger.write.control_log import lock_control

__all__ = ["RekeyReport", "rekey"]

PART: Final = 100
"""Events that are opened at a stretch.

The transaction under way, which goes on in the event loop, has to wait for the interpreter as long
as that.
"""


@dataclass(frozen=True, slots=True)
class RekeyReport:
    """The result of a re-encryption."""

    key_id: str
    """Id of the active key, under which the newest events lie now."""
    key_fingerprint: bytes
    rekeyed: int
    """Newest events that this run sealed under that key.

    A secret counts once, even if the key changed meanwhile and its event was sealed twice.
    """
    already: int
    """Newest events that lay under the active key without this run."""
    skipped: int
    """Newest events that don't open, or whose key is not held. They are unchanged."""
    findings: Sequence[Finding]
    """Why newest events were skipped: the first 1,000 findings of each kind."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no newest event was skipped."""
        return not self.skipped

    def raise_if_not_ok(self) -> None:
        """Raises Incomplete if newest events were skipped."""
        if self.ok:
            return
        first = self.findings[0]
        raise Incomplete(
            f"{self.skipped} secrets still lie under another key, because they could not be"
            f" opened; the first is {first.stream}, at position {first.position}: {first.reason}",
            hint="`secret-ledger verify` names them; bring their keys back, restore their rows"
            " from a backup, or `destroy` them, then run it again",
            skipped=self.skipped,
        )


@dataclass(slots=True)
class _Page:
    """Newest events, judged and opened before the lock is taken."""

    read_at: int
    """The position at which the log ended when the page was read."""
    drafts: list[Draft] = field(default_factory=list)
    """The events that seal the newest events again."""
    heads: int = 0
    under: int = 0
    """Newest events that lie under the active key."""
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class _Pass:
    """The result of one pass over the newest events."""

    rekeyed: Counter[bytes] = field(default_factory=Counter)
    """Events that were sealed under each key: a rotation may come in between."""
    under: int = 0
    skipped: Tally = field(default_factory=Tally)


async def rekey(
    session: Session,
    *,
    actor: str | None,
    on_progress: OnProgress | None,
) -> RekeyReport:
    """Seal every newest event again that is not under the active key. Nothing else is changed.

    If an event does not open, it is skipped and reported, and the run goes on. If a rotation comes
    in between, the run follows it. Raises LedgerUnavailable, StaleKey.
    """
    follower = session.follower
    began = time.monotonic()
    before: Counter[bytes] = Counter()
    while True:
        standing = await follower.follow(read=through_outages)
        rekeyer = _Rekeyer(session, standing, actor)
        done = await rekeyer.run(on_progress)
        now = (await follower.follow(read=through_outages)).control
        if _place(now) == _place(standing.control):
            break
        before += done.rekeyed
    active = now.active.fingerprint
    return RekeyReport(
        key_id=now.active.id,
        key_fingerprint=active,
        rekeyed=before[active] + done.rekeyed[active],
        # `under` counts events of earlier passes too; others may have replaced some.
        already=max(done.under - before[active], 0),
        skipped=done.skipped.kinds.total(),
        findings=tuple(done.skipped.findings),
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class _Rekeyer:
    """One pass over all newest events."""

    session: Session
    standing: Standing
    actor: str | None

    async def run(self, on_progress: OnProgress | None) -> _Pass:
        done = _Pass()
        heads = secrets = 0
        if on_progress is not None:
            database, generation = self.session.database, self.standing.control.generation
            secrets = await through_outages(
                database, lambda c: count_secrets(c, database, generation), "statement"
            )
        async with aclosing(ahead(self._pages())) as pages:
            async for page in pages:
                sealed = await self._write(page) if page.drafts else Counter[bytes]()
                written = sealed.total()
                done.rekeyed += sealed
                # Secrets that were written to meanwhile lie under the active key too.
                done.under += page.under + len(page.drafts) - written
                for finding in page.findings:
                    done.skipped.add(finding)
                heads += page.heads
                if on_progress is not None:
                    on_progress(Progress(heads, max(heads, secrets)))
        return done

    async def _pages(self) -> AsyncGenerator[_Page]:
        database, generation = self.session.database, self.standing.control.generation
        after: str | None = None

        def read(connection: Connection) -> tuple[int, Sequence[Event]]:
            head = head_in_use(connection, database)
            heads = heads_page(connection, database, generation, after, limit=BULK)
            return head.position if head else 0, heads

        while True:
            read_at, heads = await through_outages(database, read, "snapshot")
            if not heads or heads[-1].stream == after:  # damage: a name that is no text sorts last
                return
            after = heads[-1].stream
            page = _Page(read_at)
            floors = await self._floors(heads)
            for start in range(0, len(heads), PART):
                await to_thread.run_sync(self._judge, page, heads[start : start + PART], floors)
            yield page

    async def _floors(self, heads: Sequence[Event]) -> Mapping[str, Walked]:
        """Walks down the chains of secrets whose newest event does not state how far they ended."""
        control = self.standing.control
        found: dict[str, Walked] = {}
        for event in heads:
            if control.key(event.key_fingerprint) is control.active or event.version == 1:
                continue
            if ended_at(control, event) is None:
                try:
                    walked = await walk_to_floor(
                        self.session.follower, event.stream, through_outages
                    )
                except LedgerUnavailable:  # an outage is no damage: the rekey is run again
                    raise
                except LedgerError:  # `_judge` skips the event, and says why
                    continue
                if walked is not None:
                    found[event.stream] = walked
        return found

    def _judge(self, page: _Page, heads: Sequence[Event], walked: Mapping[str, Walked]) -> None:
        control = self.standing.control
        for event in heads:
            if event.stream == CONTROL_STREAM:
                continue
            page.heads += 1
            try:
                value = self._opened(event)  # a column that names the active key proves nothing
                if control.key(event.key_fingerprint) is control.active:
                    page.under += 1
                else:
                    floor = self._floor(event, walked.get(event.stream))
                    page.drafts.append(rekeyed(control, event, value, floor, self.actor))
            except LedgerError as error:
                page.findings.append(finding_of(event, error))

    def _floor(self, event: Event, walked: Walked | None) -> int:
        floor = ended_at(self.standing.control, event)
        if floor is not None:
            return floor
        if event.version == 1:
            return 0
        if walked is None or walked.newest != event.event_hash:
            raise tampered(event, "its older versions could not be read; run the rekey again")
        return walked.floor

    def _opened(self, event: Event) -> Secret:
        context = check_hash(self.standing.control.ledger_id, event)
        control, keys = self.standing.control, self.standing.keys
        return Secret(read_newest(control, keys, event, context=context))

    async def _write(self, page: _Page) -> Counter[bytes]:
        """Returns how many events of the page were sealed again, by key.

        Secrets that were written to meanwhile are left out.
        """
        follower, database = self.session.follower, self.session.database
        generation = self.standing.control.generation

        def write(connection: Connection, standing: Standing) -> Attempt | None:
            control, sealing = standing.control, standing.check_may_write()
            if control.generation != generation:
                return None  # that generation has other newest events
            locked = lock_control(connection, database, standing)
            head = locked.head
            check_not_behind(head, follower.seen)
            check_not_exhausted(control, head.position + len(page.drafts))
            ours = {draft.stream for draft in page.drafts}
            moved_on = streams_between(connection, database, head, page.read_at, ours)
            drafts = [draft for draft in page.drafts if draft.stream not in moved_on]
            events = [
                seal_draft(
                    control.ledger_id, generation, draft, position, locked.now,
                    sealing.active, sealing.active_id,
                )
                for position, draft in enumerate(drafts, head.position + 1)
            ]  # fmt: skip
            if not events:
                return None
            return append_events(connection, database, locked, events, self.session.projections)

        done = await commit(follower, write, patience=self.session.patience)
        if not isinstance(done, Attempt):
            return Counter()
        return Counter({done.first.key_fingerprint: done.head.position - done.first.position + 1})


def _place(control: Control) -> tuple[int, bytes]:
    """The generation of the newest events, and the key that they should lie under."""
    return control.generation, control.active.fingerprint
