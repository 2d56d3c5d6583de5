"""Which check finds an edit: a read, an append, an opening, a verification, or the migration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from damage import Case, edit_of
from grounds import Ground, asked, quiet
from secret_ledger import LedgerError, SecretLedger
from tampering import Constraint, Tampering

__all__ = ["Outcome", "find"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which check found one edit."""

    by: str
    """The check that found the edit, or the reason why the case has no edit; else empty."""
    untrue: tuple[str, ...] = ()
    """Questions with an untrue answer before a check found the edit."""
    why: str = ""
    """Type of the error, or reason of the finding."""


class _Found(Exception):
    def __init__(self, by: str, why: str) -> None:
        self.by, self.why = by, why


async def find(ground: Ground, case: Case) -> Outcome:
    """Make the edit of a case, ask every question, and put the database back."""
    side = _side(ground, case)
    edit = edit_of(case, await side.rows(case.table))
    if isinstance(edit, str):
        return Outcome(edit)
    untrue: list[str] = []

    async def tamper() -> None:
        await side.replace(case.table, edit.old, edit.new)

    try:
        if ground.situation == "while running":
            await _running(ground, tamper, untrue)
        else:
            await tamper()
            await _at_rest(ground, untrue)
    except _Found as found:
        return Outcome(found.by, tuple(untrue), found.why)
    except Constraint as refusal:
        return Outcome("refused by the database", why=str(refusal))
    finally:
        await ground.put_back()
    return Outcome("", tuple(untrue))


def _side(ground: Ground, case: Case) -> Tampering:
    at_target = ground.there is not None and case.which in ("of a copy being made", "building")
    return ground.there if at_target and ground.there is not None else ground.here


async def _at_rest(ground: Ground, untrue: list[str]) -> None:
    async def reads(ledger: SecretLedger) -> None:
        await _reads(ledger, ground, untrue)
        if ground.situation == "at rest":
            await _verifications(ledger)

    if ground.situation == "at rest":
        await _with(ground, reads, read_only=True)
        return
    await _with(ground, reads)
    await _goes_on(ground)
    url = ground.target or ground.url
    await _with(ground, _verifications, url=url)
    await _with(ground, lambda ledger: _reads(ledger, ground, untrue), url=url)
    if ground.target is not None:
        await _with(ground, _of_the_old_place, read_only=True, read_moved=True)


async def _of_the_old_place(ledger: SecretLedger) -> None:
    report = await ledger.verify("full")
    if not report.ok:
        raise _Found("full verification of the old place", report.findings[0].reason)


async def _goes_on(ground: Ground) -> None:
    async def migrate(ledger: SecretLedger) -> None:
        await _said("the migration", ledger.migrate(ground.target))

    await _with(ground, migrate)


async def _running(
    ground: Ground, tamper: Callable[[], Awaitable[None]], untrue: list[str]
) -> None:
    async with quiet(ground.url, verify="control") as ledger:
        await ledger.get("last")
        await tamper()
        await _reads(ledger, ground, untrue)
        await _said("an append", ledger.put("planted/later", "new"))
    await _with(ground, _verifications, read_only=True)


async def _reads(ledger: SecretLedger, ground: Ground, untrue: list[str]) -> None:
    for question, true in ground.truth.items():
        try:
            answer = await asked(ledger, question)
        except LedgerError as error:
            raise _Found("a read", type(error).__name__) from None
        if answer != true:
            name, version, time = question
            how = f" version {version}" if version else " at a time" if time else ""
            untrue.append(f"{name}{how}")


async def _verifications(ledger: SecretLedger) -> None:
    for level, by in (("latest", "the next opening"), ("full", "full verification")):
        report = await ledger.verify("full" if level == "full" else "latest")
        if not report.ok:
            raise _Found(by, report.findings[0].reason)


async def _said(by: str, work: Awaitable[object]) -> None:
    try:
        await work
    except LedgerError as error:
        raise _Found(by, type(error).__name__) from None


async def _with(
    ground: Ground,
    work: Callable[[SecretLedger], Awaitable[None]],
    *,
    url: str | None = None,
    **options: bool,
) -> None:
    """Opens at level `control`, as a command does: a refusal there refuses every opening."""
    opening = quiet(url or ground.url, keys=ground.keys, verify="control", **options)
    try:
        ledger = await opening.__aenter__()
    except LedgerError as error:
        raise _Found("every opening", type(error).__name__) from None
    try:
        await work(ledger)
    finally:
        await opening.__aexit__(None, None, None)
