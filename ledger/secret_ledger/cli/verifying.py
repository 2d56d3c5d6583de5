"""verify: shows the progress of a verification, and then its report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from secret_ledger.cli.opening import opened
from secret_ledger.cli.options import DEFAULTS, Common, Moved, register
from secret_ledger.cli.output import Columns, Output, facts
from secret_ledger.errors import TamperedEvent

if TYPE_CHECKING:
    from secret_ledger.rules.findings import Finding, Progress, VerifyReport

__all__ = ["FINDING", "add_to", "finding_lines", "progress"]

FINDING: Final = Columns(
    all=(
        "finding", "position", "stream", "version", "kind", "reason",
        "expected_fingerprint", "actual_fingerprint", "key_id", "generation",
    ),
    shown=(
        "position", "stream", "version", "kind", "reason",
        "expected_fingerprint", "actual_fingerprint",
    ),
)  # fmt: skip


def add_to(app: App) -> None:
    """Register this verb."""
    register(app, verify, "secret-ledger verify --level full")


async def verify(
    *,
    level: Annotated[
        Literal["latest", "full", "control"],
        Parameter(
            help="latest: the newest version of every secret opens, and no row is missing; full:"
            " every event, chain and position, and sys_secret; control: only what the keys rest on."
        ),
    ] = "latest",
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """Prove that the stored events open, are chained and belong here; name each row that fails.

    Fields in a pipe, by the first field: `checked` (level, events, secrets, seconds), `key`
    (id, events), `finding` (position, stream, version, kind, reason, expected and actual
    fingerprint, key id, generation), `omitted` (kind, number of further findings of this kind).
    Exit 12 if anything is damaged, 13 if only keys are missing.
    """
    output = Output(common.json)
    damage: TamperedEvent | None = None
    try:
        async with opened(common, output, read_only=True, read_moved=moved) as ledger:
            with progress(output, f"verify {level}") as tell:
                report = await ledger.verify(level, on_progress=tell)
    except TamperedEvent as error:
        # The control stream or the file itself is damaged: reported like any other damage.
        from secret_ledger.rules.findings import report_of

        damage = error
        report = report_of(level, error)
    _show(output, report)
    for warning in report.warnings:
        output.warning(warning)
    if damage is not None:
        raise damage
    report.raise_if_not_ok()


def _show(output: Output, report: VerifyReport) -> None:
    if output.as_json:
        output.document({"ok": report.ok, **facts(report)})
        return
    if not sys.stdout.isatty():
        output.line("checked", report.level, report.events, report.heads, f"{report.seconds:.3f}")
        for key_id, events in report.by_key.items():
            output.line("key", key_id, events)
        finding_lines(output, report.findings)
        for kind, count in report.omitted_by_kind.items():
            output.line("omitted", kind, count)
        return
    heads = f", {report.heads:,} secrets" if report.level != "control" else ""
    print(f"checked {report.events:,} events{heads} in {report.seconds:.2f} s ({report.level})")
    for key_id, events in report.by_key.items():
        print(f"  {events:>9,} under {key_id}")
    output.table(FINDING, report.findings)
    for kind, count in report.omitted_by_kind.items():
        print(f"and {count:,} more of kind {kind}")
    if report.ok and not report.warnings:
        print("nothing is wrong")


def finding_lines(output: Output, findings: Iterable[Finding]) -> None:
    """Print findings as tab-separated lines."""
    for finding in findings:
        known: dict[str, Any] = {"finding": "finding", **facts(finding)}
        output.line(*(known[column] for column in FINDING.all))


@contextmanager
def progress(output: Output, what: str) -> Iterator[Callable[[Progress], None] | None]:
    """Show a progress bar on stderr while the block runs.

    Yields the function that moves the bar; None with --json, or if stderr is no terminal.
    """
    if output.as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tell(made: Progress) -> None:
            bar.update(task, completed=made.done, total=made.total)

        yield tell
