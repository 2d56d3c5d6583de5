"""Re-encrypting the heads: every secret's latest event under the active key.

Online and resumable: the plan is the log itself, read in pages; each page goes through the
writer like anybody's writes, decided under the lock against the heads as they are then. So a
secret that is written meanwhile is left alone, and a run that is killed is run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ledger.append import Outcome
from ledger.control import Control
from ledger.decide import Rekey
from ledger.errors import Incomplete, LedgerError, SecretNotFound, VersionConflict
from ledger.events import CONTROL_STREAM, Event
from ledger.findings import Finding, Progress, Tally, Tell, finding_of
from ledger.following import Follower
from ledger.format import printable
from ledger.store.reads import head_in_use, heads_page
from ledger.writer import Writer

__all__ = ["RekeyReport", "rekey"]


@dataclass(frozen=True, slots=True)
class RekeyReport:
    """What a re-encryption of the heads did, and what it left."""

    key_id: str
    """The active key, which the heads lie under now."""
    key_fingerprint: bytes
    rekeyed: int
    already: int
    """Heads that were under the active key without this done."""
    lost: int
    """Heads under a key that is lost for good: nothing is left of them to seal again."""
    skipped: int
    """Heads that don't open, or whose key is not held: they are as they were."""
    findings: Sequence[Finding]
    """The first of those that were skipped."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every head that can lie under the active key does."""
        return not self.skipped

    def raise_if_not_ok(self) -> None:
        """Raise Incomplete if heads were skipped."""
        if self.ok:
            return
        first = self.findings[0]
        raise Incomplete(
            f"{self.skipped} secrets still lie under another key, for they could not be opened;"
            f" the first is {first.stream}, at position {first.position}: {first.reason}",
            hint="`secret-ledger verify` names them; bring their keys back, restore their rows"
            " from a backup, or `destroy` them, then run it again",
            skipped=self.skipped,
        )


@dataclass(slots=True)
class _Pass:
    """What one pass over the heads found and did."""

    rekeyed: int = 0
    under: int = 0
    """Heads that this pass over them found under the active key."""
    lost: int = 0
    skipped: Tally = field(default_factory=Tally)


async def rekey(
    follower: Follower, writer: Writer, *, actor: str | None, on_progress: Tell | None
) -> RekeyReport:
    """Seal every head again that is not under the active key. Nothing else is changed.

    A head that does not open is skipped and reported; the rest goes on. Follows a rotation
    that comes in between. Raises LedgerUnavailable, StaleKey.
    """
    began = time.monotonic()
    rekeyed = 0
    while True:
        standing = await follower.follow()
        done, moved_on = await _pass(follower, writer, standing.control, actor, on_progress)
        now = (await follower.follow()).control
        if not moved_on and (now.generation, now.active) == (
            standing.control.generation,
            standing.control.active,
        ):
            break
        rekeyed += done.rekeyed
    return RekeyReport(
        key_id=now.active.id,
        key_fingerprint=now.active.fingerprint,
        rekeyed=rekeyed + done.rekeyed,
        already=done.under - rekeyed,
        lost=done.lost,
        skipped=len(done.skipped.findings) + done.skipped.omitted,
        findings=tuple(done.skipped.findings),
        seconds=time.monotonic() - began,
    )


async def _pass(
    follower: Follower,
    writer: Writer,
    control: Control,
    actor: str | None,
    on_progress: Tell | None,
) -> tuple[_Pass, bool]:
    """Once over all heads; whether some moved on meanwhile and must be looked at again."""
    database = follower.database
    head = await database.run(lambda c: head_in_use(c, database), "statement")
    total = head.position if head else 0
    done = _Pass()
    moved_on = False
    after: str | None = None
    while True:
        page = await database.run(
            partial(heads_page, database=database, generation=control.generation, after=after),
            "statement",
        )
        if not page or page[-1].stream == after:  # no text at all sorts behind all text
            return done, moved_on
        after = page[-1].stream
        moved_on = await _page(done, control, writer, page, actor) or moved_on
        if on_progress is not None:
            on_progress(Progress(min(done.rekeyed + done.under, total), total))


async def _page(
    done: _Pass, control: Control, writer: Writer, page: Sequence[Event], actor: str | None
) -> bool:
    """Re-encrypt one page's heads; whether some have moved on and must be looked at again."""
    behind: list[Event] = []
    for event in page:
        key = control.key(event.key_fingerprint)
        if event.stream == CONTROL_STREAM:
            continue
        if key == control.active:
            done.under += 1
        elif key is not None and key.lost is not None and control.may_be_under(event):
            done.lost += 1
        else:
            behind.append(event)
    moved_on = False
    for event, outcome in zip(behind, await _seal_again(writer, behind, actor), strict=True):
        if not isinstance(outcome, LedgerError):
            done.rekeyed += 1
        elif isinstance(outcome, VersionConflict | SecretNotFound):
            moved_on = True
        else:
            done.skipped.add(finding_of(event, outcome))
    return moved_on


async def _seal_again(
    writer: Writer, behind: Sequence[Event], actor: str | None
) -> Sequence[Outcome]:
    async def one(event: Event) -> Outcome:
        try:
            return await writer.submit([Rekey(event.stream, event.version, actor)])
        except (VersionConflict, SecretNotFound) as error:
            return error
        except LedgerError as error:
            if error.details.get("stream") != printable(event.stream):
                raise  # not this secret's fault: the database's, or the key's
            return error

    return await asyncio.gather(*map(one, behind))
