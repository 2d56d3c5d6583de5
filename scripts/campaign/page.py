"""The verdict on each outcome, and the table of all outcomes in docs/threat-model.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from damage import Case
from finding import Outcome
from grounds import SITUATIONS

__all__ = ["Result", "judge", "table", "write"]

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "threat-model.md"
BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"

CUT_OFF = ("generation", "stream", "the row")
"""An edit of these takes a newest version out of its stream: the stated limit of a single read."""


class Result(NamedTuple):
    """One case and its outcome, in one situation on one database."""

    database: str
    situation: str
    case: Case
    outcome: Outcome


class Reason(NamedTuple):
    """Why an edit may stay unnoticed."""

    covers: Callable[[Case], bool]
    text: str


def _of(table: str, which: str = "", *columns: str) -> Callable[[Case], bool]:
    def covers(case: Case) -> bool:
        there = case.table == table and which in ("", case.which)
        return there and (not columns or case.column in columns)

    return covers


REASONS = (
    Reason(
        _of("ledger_node"),
        "A node's line is shown, and only a line with a proof holds a rotation up. That a line was"
        " deleted stays unseen.",
    ),
    Reason(
        _of("ledger_attestation"),
        "An attestation is authenticated. If it does not authenticate, the next opening verifies"
        " everything.",
    ),
    Reason(
        _of("ledger_wrap"),
        "A wrapped key counts only if an event that opens names it; none does here.",
    ),
    Reason(
        _of("ledger_move"),
        "A note of a move that was abandoned, for whoever clears its target. It leads no read.",
    ),
    Reason(
        _of("ledger_head", "closed", "key_epoch", "sys_secret_position"),
        "No answer rests on these columns of a closed generation.",
    ),
    Reason(
        _of("ledger_head", "", "sys_secret_position"),
        "Says how far the current view is folded. The next append folds the rest, and a migration"
        " folds the new generation anew.",
    ),
    Reason(
        _of("ledger_head", "building", "recorded_at"),
        "Written anew when the generation is put in use.",
    ),
    Reason(
        _of("ledger_head", "building", "the row"),
        "Says that a migration was begun. Nothing is read from a generation before its sealed"
        " opening; `migrate --abandon` clears it.",
    ),
    Reason(
        _of("projection_checkpoint"),
        "Says how far a projection is folded. It is no truth, and can be rebuilt.",
    ),
)


def reason(case: Case) -> int | None:
    """Return the number, from 1, of the reason that covers a case; None if no reason does."""
    return next((n for n, each in enumerate(REASONS, 1) if each.covers(case)), None)


def judge(result: Result) -> str | None:
    """Return why an outcome is a fault of the ledger; None if it is no fault."""
    case, outcome = result.case, result.outcome
    place = f"{result.database}, {result.situation}: {case.table}, {case.which}, {case.column},"
    place = f"{place} {case.kind}"
    if not outcome.by and reason(case) is None:
        return f"{place}: nobody finds it"
    limit = case.which == "a newest version" and case.column in CUT_OFF
    if outcome.untrue and not (limit and outcome.by):
        return f"{place}: {', '.join(outcome.untrue)} answered otherwise than is true"
    return None


def _cell(outcomes: dict[str, str]) -> str:
    said = set(outcomes.values())
    if len(said) == 1:
        return said.pop()
    return "; ".join(f"{database}: {outcome}" for database, outcome in sorted(outcomes.items()))


def _said(result: Result) -> str:
    outcome = result.outcome
    if not outcome.by:
        return f"nobody [{reason(result.case)}]"
    return f"{outcome.by}{' †' if outcome.untrue else ''}"


def table(results: Sequence[Result]) -> str:
    """Make the table of outcomes in Markdown. Columns with equal outcomes share a line."""
    cells: dict[Case, dict[str, dict[str, str]]] = {}
    for result in results:
        situations = cells.setdefault(result.case, {name: {} for name in SITUATIONS})
        situations[result.situation][result.database] = _said(result)
    lines: dict[tuple[str, ...], list[str]] = {}
    for case, situations in cells.items():
        told = tuple(_cell(situations[name]) for name in SITUATIONS)
        lines.setdefault((case.table, case.which, case.kind, *told), []).append(case.column)
    page = [
        f"| table | row | column | | {' | '.join(SITUATIONS)} |",
        f"| --- | --- | --- | --- | {' | '.join(['---'] * len(SITUATIONS))} |",
    ]
    before: tuple[str, ...] = ()
    for line, columns in lines.items():
        name, which, kind = line[:3]
        first = (f"`{name}`", which) if (name, which) != before else ("", "")
        shown = ", ".join(c if c == "the row" else f"`{c}`" for c in columns)
        page.append("| " + " | ".join([*first, shown, kind, *line[3:]]) + " |")
        before = (name, which)
    page += ["", "† A read before was fooled: the newest event of a stream was taken out of it."]
    page += ["", "Why nobody has to find it:", ""]
    page += [f"{number}. {each.text}" for number, each in enumerate(REASONS, 1)]
    return "\n".join(page)


def write(results: Sequence[Result]) -> None:
    """Put the table into the page, between its two markers."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")
