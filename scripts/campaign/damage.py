"""The edits: every column of every table, in every kind of row that a table has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tampering import PRIMARY_KEYS, Row

__all__ = ["KINDS", "Case", "Edit", "cases", "edit_of"]

KINDS = ("edit", "swap", "delete", "insert")


class Case(NamedTuple):
    """One edit that somebody with SQL access can make."""

    table: str
    which: str
    """The kind of row in the table."""
    column: str
    """Name of the column; `the row` if the edit deletes or inserts a whole row."""
    kind: str


class Edit(NamedTuple):
    """Rows to delete, and rows to insert."""

    old: Sequence[Row]
    new: Sequence[Row]


Rows = Mapping[str, Sequence[Row]]
Pick = Callable[[Sequence[Row]], Row | None]


def _first(wanted: Callable[[Row], bool]) -> Pick:
    return lambda rows: next((row for row in rows if wanted(row)), None)


def _is_in(state: str, row: Row) -> bool:
    return bool(row["state"] == state)


def _is_not_in(state: str, row: Row) -> bool:
    return bool(row["state"] != state)


def _event(stream: str, version: int, *, newest_generation: bool = True) -> Pick:
    def pick(rows: Sequence[Row]) -> Row | None:
        generations = sorted({row["generation"] for row in rows})
        used = [g for g in generations if any(_opens(row, g) for row in rows)] or generations[:1]
        generation = used[-1] if newest_generation else generations[0]
        found = [r for r in rows if r["generation"] == generation and r["stream"] == stream]
        found.sort(key=lambda row: row["version"])
        return found[version] if len(found) >= abs(version) + (version >= 0) else None

    return pick


def _opens(row: Row, generation: int) -> bool:
    if row["generation"] != generation or row["event_type"] != "generation.opened":
        return False
    return bool(json.loads(row["metadata"])["ledger"]["generation"] == generation)


def _copied(stream: str) -> Pick:
    """Picks the newest version in a generation that is being built."""

    def pick(rows: Sequence[Row]) -> Row | None:
        last = max((row["generation"] for row in rows), default=0)
        if any(_opens(row, last) for row in rows) or last == 0:
            return None
        found = [r for r in rows if r["generation"] == last and r["stream"] == stream]
        return max(found, key=lambda row: row["version"], default=None)

    return pick


TARGETS: dict[str, dict[str, tuple[Pick, Pick]]] = {
    "ledger_meta": {"the only one": (_first(bool), _first(lambda _: False))},
    "ledger_head": {
        state: (_first(partial(_is_in, state)), _first(partial(_is_not_in, state)))
        for state in ("active", "closed", "building")
    },
    "ledger_key": {
        "of the active key": (_first(lambda r: r["key_id"] == "k-new"),
                              _first(lambda r: r["key_id"] == "k-old")),
        "of an earlier key": (_first(lambda r: r["key_id"] == "k-old"),
                              _first(lambda r: r["key_id"] == "k-new")),
    },
    "secret_event": {
        "a newest version": (_event("a", -1), _event("other", -1)),
        "an older version": (_event("a", 0), _event("a", 1)),
        "a control event": (_event("$ledger", -2), _event("$ledger", -1)),
        "of a closed generation": (_event("a", -1, newest_generation=False),
                                   _event("other", -1, newest_generation=False)),
        "of a copy being made": (_copied("a"), _copied("other")),
    },
    "ledger_node": {
        "of another node": (_first(lambda r: r["node"] == "another"),
                            _first(lambda r: r["node"] == "a third")),
    },
    "secret_current": {
        "of a secret": (
            lambda rows: max((r for r in rows if r["name"] == "a"),
                             key=lambda r: r["generation"], default=None),
            lambda rows: max((r for r in rows if r["name"] == "other"),
                             key=lambda r: r["generation"], default=None),
        ),
    },
    "projection_checkpoint": {"of a projection": (_first(bool), _first(lambda _: False))},
    "ledger_move": {
        "of a move": (lambda rows: rows[-1] if rows else None, _first(lambda _: False))
    },
    "ledger_attestation": {"of the generation": (_first(bool), _first(lambda _: False))},
    "ledger_wrap": {"of a key": (_first(lambda r: bytes(r["wrapped"]) == b"one"),
                                 _first(lambda r: bytes(r["wrapped"]) == b"two"))},
}  # fmt: skip
"""By table and kind of row: how to pick the row, and the row that it swaps values with."""


def cases(columns: Mapping[str, Sequence[str]]) -> Iterator[Case]:
    """Yield every case, always in the same order. `columns`: the columns of each table."""
    for table in sorted(columns):
        for which in TARGETS[table]:
            for column in columns[table]:
                yield Case(table, which, column, "edit")
                yield Case(table, which, column, "swap")
            yield Case(table, which, "the row", "delete")
            yield Case(table, which, "the row", "insert")


def edit_of(case: Case, rows: Sequence[Row]) -> Edit | str:
    """Return the edit of a case, or why the case has no edit."""
    target, partner = (pick(rows) for pick in TARGETS[case.table][case.which])
    if target is None:
        return "no such row then"
    if case.kind == "delete":
        return Edit([target], [])
    if case.kind == "insert":
        return Edit([], [_another(case, target, rows)])
    if case.kind == "edit":
        return Edit([target], [{**target, case.column: _edited(case, target, rows)}])
    if partner is None:
        return "nothing to swap it with"
    name = case.column
    if target[name] == partner[name]:
        return "both are the same"
    new = [{**target, name: partner[name]}, {**partner, name: target[name]}]
    return Edit([target, partner], new)


_PLAUSIBLE: dict[tuple[str, str], tuple[object, ...]] = {
    ("ledger_head", "state"): ("closed", "purged"),
    ("secret_current", "state"): ("deleted",),
    ("secret_event", "event_type"): ("secret.deleted", "secret.written"),
    ("secret_event", "metadata"): ('{"actor":"mallory"}',),
    ("secret_event", "key_id"): ("k-old", "k-new"),
    ("secret_event", "stream"): ("planted",),
    ("secret_current", "key_id"): ("k-old", "k-new"),
}


def _edited(case: Case, row: Row, rows: Sequence[Row]) -> object:
    """Differs from the row's value, and is plausible for the column."""
    value = row[case.column]
    for other in _PLAUSIBLE.get((case.table, case.column), ()):
        if other != value:
            return other
    if isinstance(value, int):
        if case.column in (*PRIMARY_KEYS[case.table], "version"):
            return 1 + max(row[case.column] for row in rows)
        return value + 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if value is None:
        return b"planted" if case.column in ("proof", "pending_fingerprint") else "planted"
    return f"{value}x"


def _another(case: Case, row: Row, rows: Sequence[Row]) -> Row:
    """Like an existing row, with a primary key that is free."""
    new = dict(row)
    if case.table == "secret_event":
        same = [r for r in rows if r["generation"] == row["generation"]]
        stream = [r for r in same if r["stream"] == row["stream"]]
        new["position"] = 1 + max(r["position"] for r in same)
        new["version"] = 1 + max(r["version"] for r in stream)
        if case.which == "an older version":
            new["version"] = 0
        return new
    name = PRIMARY_KEYS[case.table][-1]
    new[name] = _edited(case._replace(column=name), row, rows)
    if case.table == "ledger_head" and new["state"] == "active":
        new["state"] = "closed"
    for unique in ("key_fingerprint", "move_id"):
        if unique in new and case.table in ("ledger_key", "ledger_move"):
            new[unique] = bytes(len(new[unique]))
    return new
