"""--check: rows that are opened, marked, and counted by what opening them gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from secret_ledger.cli.output import Columns
from secret_ledger.errors import MissingKey, TamperedEvent

if TYPE_CHECKING:
    from secret_ledger.cli.opening import Look
    from secret_ledger.ledger import SecretLedger
    from secret_ledger.model.versions import SecretInfo

__all__ = ["Check", "Marked", "opening", "raise_if_any_failed", "with_problems"]

Check = Annotated[
    bool,
    Parameter(
        name="--check",
        negative=(),
        show_default=False,
        help="Open each row with the key, and mark what fails. Exit 12 if something does.",
    ),
]


def opening(seen: Look) -> SecretLedger:
    """The ledger whose rows can be opened. Raises why it can't be."""
    from secret_ledger.ledger import SecretLedger

    if isinstance(seen.ledger, SecretLedger):
        return seen.ledger
    assert seen.refusal is not None  # noqa: S101  # `look` has one, or a ledger with keys
    raise seen.refusal


def with_problems(columns: Columns, *, check: bool) -> Columns:
    """The columns of a table, with what is wrong with each row if that was looked at."""
    return replace(columns, shown=(*columns.shown, "problem")) if check else columns


class Marked:
    """Rows on their way to the output, those that failed counted."""

    def __init__(self, rows: AsyncIterator[SecretInfo]) -> None:
        self._rows = rows
        self._checks = Counter[str]()

    async def __aiter__(self) -> AsyncIterator[object]:
        async for row in self._rows:
            self._checks[row.check] += 1
            yield row

    def raise_if_any_failed(self) -> None:
        """Raises what `raise_if_any_failed` raises."""
        raise_if_any_failed(self._checks)


def raise_if_any_failed(checks: Iterable[str]) -> None:
    """What opening each row gave, or how often. Raises TamperedEvent; or MissingKey if nothing
    else kept rows from being opened."""
    counts = checks if isinstance(checks, Counter) else Counter(checks)
    if counts["tampered"]:
        raise TamperedEvent(
            f"{counts['tampered']:,} of the rows above do not authenticate",
            hint="`secret-ledger verify --level full` lists every damaged row",
        )
    if counts["missing_key"]:
        raise MissingKey(
            f"{counts['missing_key']:,} of the rows above lie under keys that are not in hand",
            hint="add those keys to OS_SECRET_PREVIOUS_KEYS",
        )
