"""A projection that passes over its database's error: nothing is acknowledged that was undone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from inside import Connection, Database, Event, LogHead, Statement
from ledgers import OLD, opened, rows
from secret_ledger import LedgerUnavailable, SecretLedger
from secret_ledger_projections import default

FAILS = {
    "an error": "SELECT 1 FROM there_is_no_such_table",
    "an error that undoes": "INSERT INTO doomed (n) VALUES (1)",
    "a rollback": "ROLLBACK",
}


class Swallowing:
    """Runs a statement that fails, once it is told to, and says nothing."""

    name = "swallowing"

    def __init__(self, fail: Callable[[Connection], object]) -> None:
        self.fail = fail
        self.failing = False

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        if self.failing and any(event.stream == "bad" for event in events):
            with contextlib.suppress(Exception):
                self.fail(connection)

    async def catch_up(self, database: Database) -> int:
        return 0


@asynccontextmanager
async def keeping(url: str, swallowing: Swallowing, *, first: bool) -> AsyncIterator[SecretLedger]:
    kept = [swallowing, *default()] if first else [*default(), swallowing]
    async with opened(url, OLD, projections=kept, patience=1) as ledger:
        yield ledger


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("how", FAILS)
async def test_a_write_that_a_swallowed_error_undid_is_not_acknowledged(
    database_url: str, how: str, first: bool
) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(Statement(FAILS[how].replace("doomed", place)))

    place = "doomed" if database_url.startswith("sqlite") else "secret_ledger.doomed"
    swallowing = Swallowing(fail)
    async with keeping(database_url, swallowing, first=first) as ledger:
        for sql in _making(database_url, place):
            await ledger.database.run(lambda c, s=sql: c.exec_driver_sql(s), "write")  # type: ignore[misc]
        await ledger.put("a", "1")
        before = await rows(database_url, "ledger_node")
        swallowing.failing = True
        if how == "an error" and database_url.startswith("sqlite"):
            # It undoes its own statement alone: the write stands, and is there.
            assert (await ledger.put("bad", "2")).version == 1
            assert (await ledger.get("bad")).value.reveal() == b"2"
            return
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.put("bad", "2")
        assert not caught.value.outcome_unknown
        assert "projection" in caught.value.hint
        assert await rows(database_url, "ledger_node") == before
        assert (await ledger.put("a", "2")).version == 2
        swallowing.failing = False
        assert (await ledger.put("bad", "2")).version == 1
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.get("bad")).value.reveal() == b"2"


def _making(url: str, place: str) -> list[str]:
    """A table that no row can enter: who tries loses the whole transaction, where a trigger can
    say so."""
    if url.startswith("sqlite"):
        return [
            f"CREATE TABLE {place} (n INTEGER)",
            f"CREATE TRIGGER no_row BEFORE INSERT ON {place}"
            " BEGIN SELECT RAISE(ROLLBACK, 'undone'); END",
        ]
    return [f"CREATE TABLE {place} (n integer CHECK (n > 1))"]
