"""Is the schema as it was made? Compares it, fact by fact, with the database's own catalogue.

If a table of the log is a view, or has a rule, row-level security or a column of another type,
that is damage. The database may answer one statement otherwise than the next. Triggers,
constraints and unique indexes guard against accidents, and the other tables are never the truth.
If something is missing there, a warning says so; the seals hold all the same.

The facts to compare with follow from `sql/`: on SQLite from the numbered files, on PostgreSQL from
`postgresql/sql/made.txt`, which a test compares with a new ledger's catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from secret_ledger.rules.findings import Finding, VerifyReport
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database

__all__ = ["Deviations", "deviations"]

ANSWERING: Final = frozenset(
    ("table", "column", "rule", "row-level security", "inheritance", "stand-in")
)
"""Kinds of facts that decide how a statement is answered. All other kinds only guard rows."""
TRUTH: Final = frozenset(
    ("ledger_meta", "ledger_head", "ledger_key", "ledger_move", "secret_event")
)
"""Tables whose rows decide something, and are not folded from other rows."""
MENDED: Final = frozenset(("trigger", "function"))
"""Kinds of facts that `schema upgrade` puts back."""
LONG: Final = 60
"""Characters of the longest fact that is shown; a body or a definition is longer."""
MOST: Final = 20
"""Number of deviations that a message lists."""


class Deviations(NamedTuple):
    """The deviations from the schema as it was made, each a part of a sentence."""

    answering: tuple[str, ...] = ()
    guarding: tuple[str, ...] = ()
    mendable: bool = False
    """Whether `schema upgrade` puts back at least one of them."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about a ledger that works, with the way to mend it."""
        if not self.guarding:
            return ()
        way = (
            "to put the triggers back, run as the schema's owner: secret-ledger schema upgrade"
            if self.mendable
            else "compare the schema with a new ledger's, and put back the missing parts"
        )
        return (f"the schema is not as it was made: {_listed(self.guarding)}; {way}",)

    @property
    def reason(self) -> str | None:
        """The reason why no statement's answer is reliable; None if all answers are."""
        if not self.answering:
            return None
        return (
            f"the schema is not as it was made: {_listed(self.answering)}; with such a schema the"
            " database's answers are not reliable, whatever the key"
        )

    def added_to(self, report: VerifyReport) -> VerifyReport:
        """Returns `report` with the finding and the warnings about the schema."""
        findings = (*report.findings, Finding("tampered", self.reason)) if self.reason else None
        return replace(
            report,
            findings=report.findings if findings is None else findings,
            warnings=(*report.warnings, *self.warnings),
        )


def deviations(connection: Connection, database: Database) -> Deviations:
    """Find all deviations of the schema, in one statement."""
    made, found = database.made(), database.facts(connection)
    differing = [
        (_answers(kind, name), _told(kind, name, made.get((kind, name)), found.get((kind, name))))
        for kind, name in sorted({*made, *found})
        if made.get((kind, name)) != found.get((kind, name))
    ]
    return Deviations(
        tuple(told for answers, told in differing if answers),
        tuple(told for answers, told in differing if not answers),
        any(
            kind in MENDED and made.get((kind, name)) != found.get((kind, name))
            for kind, name in made
        ),
    )


def _answers(kind: str, name: str) -> bool:
    return kind == "stand-in" or (kind in ANSWERING and name.partition(".")[0] in TRUTH)


def _told(kind: str, name: str, made: str | None, found: str | None) -> str:
    what = f"{kind} {name}"
    if found is None:
        return f"{what} is gone"
    if made is None:
        return f"{what} is not the ledger's own"
    if len(made) > LONG:
        return f"{what} has another text"
    return f"{what} is {found or 'nothing'}, and was made {made}"


def _listed(told: Iterable[str]) -> str:
    each = list(told)
    more = f" and {len(each) - MOST} more" if len(each) > MOST else ""
    return ", ".join(each[:MOST]) + more
