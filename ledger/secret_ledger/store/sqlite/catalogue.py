"""The ledger's schema as SQLite keeps it: the texts that made it (see `store.catalogue`)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, Final

from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Facts
from secret_ledger.store.schema import OUR_TABLES, guards, steps

__all__ = ["facts", "made"]

_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
_STAND_INS: Final = re.compile("json_each|pragma_.*", re.IGNORECASE)
"""Functions of SQLite: a table of the same name takes their place."""
_CONSTRAINT: Final = re.compile(r"(?:PRIMARY|UNIQUE|CHECK|FOREIGN|CONSTRAINT)\b", re.IGNORECASE)
_END_OF_TYPE: Final = re.compile(
    r" (?:NOT|NULL|PRIMARY|UNIQUE|CHECK|DEFAULT|COLLATE|REFERENCES|CONSTRAINT|GENERATED|AS)\b",
    re.IGNORECASE,
)


def facts(connection: Connection) -> Facts:
    """The facts about our names in the schema of the file."""
    found, expected = _facts(tuple(map(tuple, connection.exec_driver_sql(_SCHEMA)))), made()
    # A column without a type is no deviation: it takes every value and compares it as it is.
    return {key: what or expected.get(key, "") for key, what in found.items()}


@cache
def made() -> Facts:
    """The facts about a new schema, made by all numbered files and the guards."""
    memory = sqlite3.connect(":memory:")
    try:
        for _, _, statements in steps("sqlite"):
            for statement in statements:
                memory.execute(statement)
        for statement in guards("sqlite"):
            memory.execute(statement)
        return _facts(tuple(memory.execute(_SCHEMA)))
    finally:
        memory.close()


@lru_cache(maxsize=8)
def _facts(rows: tuple[tuple[Any, ...], ...]) -> Facts:
    found: dict[tuple[str, str], str] = {}
    for kind, name, table, sql in rows:
        plain = _plain(sql)
        if table in OUR_TABLES and kind == "table":
            found["table", str(name)] = "kept"
            found["definition", str(name)] = plain
            found |= {("column", f"{name}.{column}"): what for column, what in _columns(plain)}
        elif table in OUR_TABLES and (kind != "index" or "unique" in plain.lower()):
            found[str(kind), str(name)] = plain
        elif _STAND_INS.fullmatch(str(name)):
            found["stand-in", str(name)] = ""
    return found


def _columns(definition: str) -> Iterator[tuple[str, str]]:
    """The name of each column of a definition, and the words that decide how values compare."""
    for part in _parts(definition.partition("(")[2]):
        if _CONSTRAINT.match(part.strip()):
            continue
        name, _, rest = part.strip().partition(" ")
        kind = re.split(_END_OF_TYPE, f" {rest} ", maxsplit=1)[0].strip()
        further = re.findall(r" (COLLATE \w+|GENERATED|AS)\b", f" {rest}", re.IGNORECASE)
        yield name, " ".join([kind, *further]).strip()


def _parts(text: str) -> Iterator[str]:
    """The parts between commas, up to the closing bracket. Inner brackets stay whole."""
    depth = start = 0
    for at, mark in enumerate(text):
        depth += (mark == "(") - (mark == ")")
        if depth < 0 or (mark == "," and depth == 0):
            yield text[start:at]
            start = at + 1
        if depth < 0:
            return


def _plain(sql: object) -> str:
    """Tools that copy a schema change quotation marks, spaces and comments: leave them out."""
    text = re.sub(r"--[^\n]*", "", str(sql or "")).replace('"', "").replace("`", "")
    text = re.sub(r"\bIF NOT EXISTS\b", "", text, flags=re.IGNORECASE)
    return re.sub(r"\s*([(),])\s*|\s+", lambda match: match[1] or " ", text).strip()
