"""Whoever edits a column, a row or a state of the database is found, or nothing rests on it.

A third of the campaign of `scripts/campaign`, always the same: every third case, of which every
fourth on PostgreSQL. All of it, on both databases, is run by `./scripts/campaign/run`.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from campaign import run
from damage import Case, Edit, cases, edit_of
from finding import Outcome
from grounds import SITUATIONS
from inside import OUR_TABLES
from page import Result, judge, table
from postgresql_server import DatabaseHost
from tampering import PRIMARY_KEYS


def _on_sqlite(number: int, _: Case) -> bool:
    return number % 3 == 0 and number % 12 != 0


def _on_postgresql(number: int, _: Case) -> bool:
    return number % 12 == 0


def _untold(results: list[Result]) -> list[str]:
    return [problem for result in results if (problem := judge(result))]


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_each_edit_of_a_sqlite_database_is_found_or_nothing_rests_on_it(
    situation: str, tmp_path: Path
) -> None:
    results = await run(
        lambda: f"sqlite+aiosqlite:///{tmp_path}/{uuid.uuid4().hex}.db",
        tmp_path,
        "SQLite",
        situations=(situation,),
        wanted=_on_sqlite,
    )
    assert len(results) > 60
    assert not _untold(results)


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_each_edit_of_a_postgresql_database_is_found_or_nothing_rests_on_it(
    situation: str, tmp_path: Path, postgres_server: DatabaseHost
) -> None:
    made: list[str] = []

    def url() -> str:
        made.append(f"campaign_{uuid.uuid4().hex}")
        return postgres_server.create_database(made[-1])

    results = await run(url, tmp_path, "PostgreSQL", situations=(situation,), wanted=_on_postgresql)
    for name in made:
        postgres_server.drop_database(name)
    assert len(results) > 20
    assert not _untold(results)


def test_every_table_of_a_ledger_is_edited() -> None:
    assert set(PRIMARY_KEYS) == set(OUR_TABLES) - {"sys_secret"}
    assert {case.table for case in cases({name: ["x"] for name in PRIMARY_KEYS})} == set(
        PRIMARY_KEYS
    )


def test_an_edit_that_nobody_finds_is_a_fault_unless_a_reason_covers_it() -> None:
    unread = Case("ledger_node", "of another node", "host", "edit")
    sealed = Case("secret_event", "an older version", "metadata", "edit")
    newest = Case("secret_event", "a newest version", "the row", "delete")
    nobody, opening = Outcome(""), Outcome("the next opening", ("a",))
    assert judge(Result("SQLite", "at rest", unread, nobody)) is None
    assert "nobody finds it" in (judge(Result("SQLite", "at rest", sealed, nobody)) or "")
    assert judge(Result("SQLite", "at rest", newest, opening)) is None
    assert "otherwise than is true" in (judge(Result("SQLite", "at rest", sealed, opening)) or "")


def test_the_table_leaves_nothing_blank_and_tells_the_databases_apart() -> None:
    case = Case("secret_event", "an older version", "metadata", "edit")
    results = [Result("SQLite", name, case, Outcome("a read")) for name in SITUATIONS]
    results += [Result("PostgreSQL", name, case, Outcome("an append")) for name in SITUATIONS]
    line = next(line for line in table(results).splitlines() if "`metadata`" in line)
    assert line.count("PostgreSQL: an append; SQLite: a read") == len(SITUATIONS)


def test_a_column_is_edited_in_the_row_that_the_case_names() -> None:
    rows = [{"projection": "sys_secret", "generation": 0, "position": 7}]
    edit = edit_of(Case("projection_checkpoint", "of a projection", "position", "edit"), rows)
    assert edit == Edit([rows[0]], [{**rows[0], "position": 8}])
