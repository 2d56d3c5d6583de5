"""The read side: projections check, projections rebuild."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from secret_ledger.cli.opening import opened
from secret_ledger.cli.options import DEFAULTS, Common, Moved, examples, register
from secret_ledger.cli.output import Columns, Output, facts
from secret_ledger.cli.usage import UsageError
from secret_ledger.cli.verifying import progress
from secret_ledger.errors import TamperedEvent

if TYPE_CHECKING:
    from secret_ledger.ledger import SecretLedger
    from secret_ledger_projections import Projection

__all__ = ["add_to"]

_FIELDS: Final = ("projection", "secret", "column", "expected", "actual")
_DIFFERENCE: Final = Columns(all=_FIELDS, shown=_FIELDS)
_Which = Annotated[
    str | None, Parameter(name="NAME", help="The projection's name. Default: all projections.")
]


@dataclass(frozen=True, slots=True)
class _Difference:
    projection: str
    secret: str | None
    column: str | None
    expected: Any
    actual: Any


def add_to(app: App) -> None:
    """Register these verbs."""
    family = App(
        name="projections",
        help="The tables that are folded from the log: sys_secret.",
        version_flags=[],
        help_epilogue=examples(),
    )
    register(family, check)
    register(family, rebuild)
    app.command(family)


async def check(name: _Which = None, /, *, moved: Moved = False, common: Common = DEFAULTS) -> None:
    """Compare each table with the fold of the log. Exit 12 if a table differs.

    Writes nothing. Fields in a pipe: projection, secret, column, expected, actual.
    """
    output = Output(common.json)
    chosen = _chosen(name)
    found: Counter[str] = Counter()
    async with opened(common, output, read_only=True, read_moved=moved) as ledger:
        await output.rows(
            "differences",
            _DIFFERENCE,
            _differences(ledger, chosen, found),
            none=f"{', '.join(each.name for each in chosen)}: the same as the log",
            ledger_id=ledger.ledger_id,
            projections=[each.name for each in chosen],
        )
    if found:
        counts = ", ".join(f"{name} in {count} values" for name, count in found.items())
        raise TamperedEvent(
            f"differs from the log: {counts}",
            hint="the log is the truth; mend the table with: secret-ledger projections rebuild",
            differences=dict(found),
        )


async def rebuild(name: _Which = None, /, *, common: Common = DEFAULTS) -> None:
    """Make each table equal to the fold of the log. Writes only the rows that differ.

    Safe beside running nodes. Fields in a pipe: projection, rows, changed, added, removed,
    positions caught up, seconds.
    """
    from secret_ledger_projections import rebuild as rebuild_table

    output = Output(common.json)
    chosen = _chosen(name)
    done: list[dict[str, Any]] = []
    async with opened(common, output) as ledger:
        for each in chosen:
            with progress(output, f"rebuild {each.name}") as tell:
                report = await rebuild_table(ledger.database, each, on_progress=tell)
            done.append({"projection": each.name, **facts(report)})
    if output.as_json:
        output.document({"rebuilt": done})
        return
    for one in done:
        if sys.stdout.isatty():
            print(
                f"{one['projection']}: {one['rows']:,} rows compared with the log;"
                f" {one['changed']} changed, {one['added']} added, {one['removed']} removed"
            )
        else:
            output.line(*one.values())


def _chosen(name: str | None) -> Sequence[Projection]:
    from secret_ledger_projections import SysSecret

    known: list[Projection] = [SysSecret()]
    chosen = [each for each in known if name in (None, each.name)]
    if not chosen:
        raise UsageError(
            "the command line knows no such projection",
            hint=f"one of: {', '.join(each.name for each in known)}; a projection of your own is"
            " rebuilt in your own code, with secret_ledger_projections.rebuild",
        )
    return chosen


async def _differences(
    ledger: SecretLedger, chosen: Sequence[Projection], found: Counter[str]
) -> AsyncIterator[_Difference]:
    from secret_ledger_projections import check as check_table

    for each in chosen:
        async for one in check_table(ledger.database, each):
            found[each.name] += 1
            yield _Difference(each.name, one.secret, one.column, one.expected, one.actual)
