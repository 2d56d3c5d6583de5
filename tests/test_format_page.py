"""docs/format.md says what there is: each table with its columns, each type of an event."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from ledgers import opened
from secret_ledger import EventType, Key

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text("utf-8")


async def test_the_page_names_each_table_of_a_ledger_with_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    async with opened(f"sqlite+aiosqlite:///{file}", Key.generate()):
        pass
    plain = sqlite3.connect(file)
    try:
        names = plain.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        made = {
            name: [row[1] for row in plain.execute(f"PRAGMA table_info({name})")]
            for (name,) in names
        }
    finally:
        plain.close()
    section = PAGE.partition("## The tables\n")[2].partition("\n## ")[0]
    said = {
        name: re.findall(r"\w+", columns.replace("; on SQLite ", ", "))
        for name, columns in re.findall(r"^\| `(\w+)` \| ([a-z][^|]+) \|", section, re.MULTILINE)
    }
    assert said == made


def test_the_page_names_each_type_of_an_event() -> None:
    types = {value for name, value in vars(EventType).items() if name.isupper()}
    named = set(re.findall(r"`((?:secret|key|generation|ledger)\.[a-z]+)`", PAGE))
    assert named == types
