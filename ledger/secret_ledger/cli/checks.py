"""--check: each row is opened, marked with the result, and counted by it."""

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
        help="Open each row with the key, and mark rows that fail. If a row fails, exit with 12.",
    ),
]


def opening(seen: Look) -> SecretLedger:
    """Return the ledger with its keys. If it is unverified, raises the gate's refusal."""
    from secret_ledger.ledger import SecretLedger

    if isinstance(seen.ledger, SecretLedger):
        return seen.ledger
    assert seen.refusal is not None  # noqa: S101  # `look` gives a refusal, or a ledger with keys
    raise seen.refusal


def with_problems(columns: Columns, *, check: bool) -> Columns:
    """Add the column `problem` to a table if its rows were checked."""
    return replace(columns, shown=(*columns.shown, "problem")) if check else columns


class Marked:
    """Rows on their way to the output, counted by their check."""

    def __init__(self, rows: AsyncIterator[SecretInfo]) -> None:
        self._rows = rows
        self._checks = Counter[str]()

    async def __aiter__(self) -> AsyncIterator[object]:
        async for row in self._rows:
            self._checks[row.check] += 1
            yield row

    def raise_if_any_failed(self) -> None:
        """Raises TamperedEvent or MissingKey if any row did not open."""
        raise_if_any_failed(self._checks)


def raise_if_any_failed(checks: Iterable[str]) -> None:
    """Raises TamperedEvent if any row is tampered, else MissingKey if a row's key is missing.

    `checks`: the check of each row, or a Counter of them.
    """
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
