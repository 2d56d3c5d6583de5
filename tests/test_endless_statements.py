"""A statement that never ends: it is given up with its caller, and closing does not wait for it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import asyncpg
import pytest
from sqlalchemy import text

from inside import READERS, Connection, writer
from inside import database as sqlite
from ledgers import OLD, file_of, opened, refused
from secret_ledger import LedgerUnavailable, SecretLedger, TamperedEvent

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
COLUMNS = (
    "generation, position, stream, version, event_type, key_id, key_fingerprint, recorded_at,"
    " metadata, prev_hash, sealed, event_hash"
)
VIEW = f"""
    ALTER TABLE secret_event RENAME TO hidden;
    CREATE VIEW secret_event AS {ENDLESS}
    SELECT {", ".join(f"h.{column}" for column in COLUMNS.split(", "))}
    FROM hidden AS h WHERE 0 = (SELECT max(i) FROM n WHERE i >= h.position);
"""  # noqa: S608  # made of nothing but ours
NO_VIEW = "DROP VIEW secret_event; ALTER TABLE hidden RENAME TO secret_event;"
TRIGGER = f"""
    CREATE TRIGGER endless BEFORE INSERT ON secret_event
    BEGIN SELECT max(i) FROM ({ENDLESS} SELECT i FROM n); END;
"""  # noqa: S608  # made of nothing but ours
TRIGGER_ON_POSTGRESQL = """
    CREATE FUNCTION endless() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(86400); RETURN NEW; END $$;
    CREATE TRIGGER endless BEFORE INSERT ON secret_ledger.secret_event
    FOR EACH ROW EXECUTE FUNCTION endless()
"""


def change(url: str, script: str) -> None:
    with closing(sqlite3.connect(file_of(url))) as raw:
        raw.executescript(script)


async def hang(ledger: SecretLedger, tasks: int) -> list[asyncio.Task[object]]:
    """Reads that don't end."""
    reads: list[asyncio.Task[object]] = [asyncio.create_task(ledger.get("a")) for _ in range(tasks)]
    await asyncio.wait(reads, timeout=0.1)
    assert not [read for read in reads if read.done()]
    return reads


async def test_a_view_in_a_tables_place_is_damage_and_is_not_asked(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    change(sqlite_url, VIEW)
    for read_only in (False, True):
        error = await refused(sqlite_url, TamperedEvent, OLD, read_only=read_only)
        assert "secret_event is no table" in error.message
    change(sqlite_url, NO_VIEW)
    async with opened(sqlite_url, OLD) as ledger:
        assert (await ledger.get("a")).version == 1


async def test_a_read_that_is_cancelled_ends_its_statement(sqlite_url: str) -> None:
    """A thread is not lost with it: else a few of them would be the end of all reading."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        change(sqlite_url, VIEW)
        reads = await hang(ledger, 3 * READERS)
        for read in reads:
            read.cancel()
        await asyncio.wait(reads)
        assert all(read.cancelled() for read in reads)
        change(sqlite_url, NO_VIEW)
        assert (await ledger.get("a")).version == 1
        assert (await ledger.put("a", "2")).version == 2


async def test_a_ledger_is_closed_while_reads_do_not_end(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "GRACE", 0.05)
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        change(sqlite_url, VIEW)
        reads = await hang(ledger, 3 * READERS)
    for read in reads:
        with pytest.raises(LedgerUnavailable):
            await read


async def test_a_ledger_is_closed_while_a_write_does_not_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "GRACE", 0.05)
    monkeypatch.setattr(writer, "GRACE", 0.05)
    async with opened(database_url, OLD, patience=0.1) as ledger:
        await ledger.put("a", "1")
        if database_url.startswith("sqlite"):
            change(database_url, TRIGGER)
        else:
            raw = await asyncpg.connect(database_url.replace("+asyncpg", ""))
            await raw.execute(TRIGGER_ON_POSTGRESQL)
            await raw.close()
        write = asyncio.create_task(ledger.put("a", "2"))
        await asyncio.wait([write], timeout=0.1)
        assert not write.done()
    with pytest.raises(LedgerUnavailable) as caught:
        await write
    assert caught.value.outcome_unknown


async def test_opening_can_be_cancelled_while_its_statement_does_not_end(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "GRACE", 0.05)
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    # A trigger on the registry, which is written to last of all.
    change(sqlite_url, TRIGGER.replace("secret_event", "ledger_node"))

    async def open_it() -> None:
        async with opened(sqlite_url, OLD):
            pass

    opening = asyncio.create_task(open_it())
    await asyncio.wait([opening], timeout=0.2)
    assert not opening.done()
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()


async def test_a_read_that_was_given_up_between_two_statements_begins_no_further_one(
    sqlite_url: str,
) -> None:
    between, go = threading.Event(), threading.Event()
    ends: list[object] = []

    def unit(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        between.set()
        go.wait(60)
        try:
            connection.execute(text(f"{ENDLESS} SELECT max(i) FROM n"))  # noqa: S608  # ours
        except LedgerUnavailable as error:
            ends.append(error.message)
            raise

    async with opened(sqlite_url, OLD) as ledger:
        read = asyncio.create_task(ledger.database.run(unit, "snapshot"))
        await asyncio.to_thread(between.wait, 60)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        go.set()
    assert ends == ["the unit of work was given up: nobody waits for it any more"]
