# ruff: noqa: S608  # names of our own tables are put into SQL, nothing else
"""The read side: rows follow the log, whoever writes them, and damage is found and mended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.util import await_only

from attacker import attacking
from checkpoints import spelt
from commits import before_commit
from connections import each_statement
from held_commit import watching_waiters
from inside import (
    EVENT_COLUMNS,
    HEAD_COLUMNS,
    Database,
    LogHead,
    ProjectionTable,
    connect,
    encode_metadata,
    pages,
    to_microseconds,
)
from secret_ledger import (
    Event,
    EventType,
    InvalidValue,
    Key,
    Keyring,
    LedgerError,
    LedgerUnavailable,
    Progress,
    ProjectionFailed,
    SecretLedger,
    TamperedEvent,
)
from secret_ledger_projections import (
    Difference,
    Inline,
    Projection,
    SysSecret,
    catch_up,
    check,
    default,
    install,
    lag,
    rebuild,
)

KEYRING = Keyring.of(Key.generate())


class RotationAge:
    """How often each secret's value was written, and when last; no row once it is deleted."""

    name = "rotation_age"
    table = Table(
        "rotation_age",
        MetaData(),
        Column("generation", Integer, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("writes", BigInteger, nullable=False),
        Column("last_write", BigInteger, nullable=False),
    )

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
        if event.event_type == EventType.DELETED:
            return None
        if event.event_type != EventType.WRITTEN:
            return row
        writes = row["writes"] if row else 0
        return {"writes": writes + 1, "last_write": event.recorded_at}


@asynccontextmanager
async def opened(url: str, *projections: Inline, none: bool = False) -> AsyncIterator[SecretLedger]:
    kept = () if none else projections or default()
    async with SecretLedger.open(url, KEYRING, projections=kept) as ledger:
        yield ledger


async def rows(
    database: Database, projection: Projection, generation: int = 0
) -> dict[str, dict[str, Any]]:
    table = ProjectionTable(projection, database).table

    def unit(connection: Any) -> dict[str, dict[str, Any]]:
        found = connection.execute(table.select().where(table.c.generation == generation))
        named = [dict(zip(table.columns.keys(), row, strict=True)) for row in found]
        return {row["name"]: row for row in named}

    return await database.run(unit, "snapshot")


async def edit(database: Database, statement: str, **parameters: object) -> None:
    """What an administrator's hand may do to a table of ours."""
    sql = text(spelt(database, statement).replace("{s}", database.statements.prefix))
    await database.run(lambda c: c.execute(sql, parameters), "write")


async def differences(database: Database, projection: Projection) -> list[Difference]:
    return [difference async for difference in check(database, projection)]


async def fill(ledger: SecretLedger) -> None:
    """Some secrets in every state, several of them with a history."""
    await ledger.put_many({f"a/{i:02}": f"value {i}" for i in range(9)}, actor="alice")
    for i in range(4):
        await ledger.put("b/often", f"value {i}", actor=f"writer {i}")
    await ledger.delete("a/03")
    await ledger.destroy("a/05", reason="leaked")
    await ledger.put("a/00", "again", actor="bob")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE", 3)


async def test_the_row_of_a_secret_follows_each_of_its_events(database_url: str) -> None:
    async with opened(database_url) as ledger:
        first = await ledger.put("db/password", "1", actor="alice")
        second = await ledger.put("db/password", "2", actor="bob")
        (row,) = (await rows(ledger.database, SysSecret())).values()
        assert row == {
            "generation": 0,
            "name": "db/password",
            "version": 2,
            "position": second.position,
            "state": "live",
            "key_id": second.key_id,
            "key_fingerprint": second.key_fingerprint,
            "created_at": to_microseconds(first.recorded_at),
            "created_by": "alice",
            "updated_at": to_microseconds(second.recorded_at),
            "updated_by": "bob",
        }

        for step, state in (
            (ledger.delete("db/password", actor="carol"), "deleted"),
            (ledger.restore("db/password"), "live"),
            (ledger.destroy("db/password", reason="gone"), "destroyed"),
            (ledger.put("db/password", "3", actor="dave"), "live"),
        ):
            written = await step
            (row,) = (await rows(ledger.database, SysSecret())).values()
            assert (row["state"], row["version"]) == (state, written.version)
            assert row["position"] == written.position == ledger.position
            assert row["updated_by"] == written.actor
            assert (row["created_by"], row["created_at"]) == (
                "alice",
                to_microseconds(first.recorded_at),
            )
        assert await lag(ledger.database, SysSecret()) == 0
        assert await differences(ledger.database, SysSecret()) == []


async def test_the_view_sys_secret_shows_the_rows(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        sql = text(f"SELECT name, state FROM {ledger.database.statements.prefix}sys_secret")
        shown = await ledger.database.run(lambda c: c.execute(sql).all(), "statement")
    states = dict(map(tuple, shown))
    assert len(states) == 10
    assert {n: s for n, s in states.items() if s != "live"} == {
        "a/03": "deleted",
        "a/05": "destroyed",
    }


def test_a_re_encryption_changes_the_key_and_neither_time_nor_author() -> None:
    projection = SysSecret()

    def event(version: int, event_type: str, at: int, **metadata: Any) -> Event:
        return Event(
            0, 2 + version, "a", version, event_type, f"k{version}", bytes([version]) * 32, at,
            encode_metadata(**metadata), bytes(32), b"", bytes(32),
        )  # fmt: skip

    row = projection.fold(None, event(1, EventType.WRITTEN, 10, actor="alice"))
    row = projection.fold(row, event(2, EventType.DELETED, 20, actor="bob"))
    rekeyed = {"of": 2, "at": 20, "state": "deleted", "by": "root"}
    row = projection.fold(row, event(3, EventType.REKEYED, 30, actor="bob", ledger=rekeyed))
    assert row["key_id"] == "k3"
    assert (row["version"], row["position"], row["state"]) == (3, 5, "deleted")
    assert (row["created_at"], row["created_by"]) == (10, "alice")
    assert (row["updated_at"], row["updated_by"]) == (20, "bob")

    for hostile in (True, "20", None, [1]):
        broken = event(4, EventType.REKEYED, 40, ledger={"at": hostile, "state": "live"})
        assert projection.fold(row, broken)["updated_at"] == 40


DAMAGE = {
    "a changed value": "UPDATE {s}secret_current SET state = 'live' WHERE name = 'a/03'",
    "another changed value": "UPDATE {s}secret_current SET created_by = NULL WHERE name = 'a/04'",
    "a changed key": "UPDATE {s}secret_current SET key_fingerprint = prev_hash"
    " FROM {s}secret_event AS e WHERE e.version = 1 AND name = 'a/04'",
    "a missing row": "DELETE FROM {s}secret_current WHERE name = 'b/often'",
    "the first row missing": "DELETE FROM {s}secret_current WHERE name = 'a/00'",
    "a row in between": "UPDATE {s}secret_current SET name = 'a/044' WHERE name = 'a/04'",
    "a row before all": "UPDATE {s}secret_current SET name = '!' WHERE name = 'a/04'",
    "a row behind all": "UPDATE {s}secret_current SET name = 'zz' WHERE name = 'a/04'",
    "a row for the control stream": "UPDATE {s}secret_current SET name = '$ledger'"
    " WHERE name = 'a/04'",
    "an empty table": "DELETE FROM {s}secret_current",
    "a checkpoint set back": "UPDATE {checkpoints} SET {checkpoint} = 4",
    "a checkpoint ahead": "UPDATE {checkpoints} SET {checkpoint} = 4000",
    "a checkpoint below zero": "UPDATE {checkpoints} SET {checkpoint} = -7",
    "no checkpoint": "{forget_checkpoints}",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_and_mended(
    database_url: str, damage: str, small_pages: None
) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        before = await rows(ledger.database, SysSecret())
        assert len(before) == 10
        await edit(ledger.database, DAMAGE[damage])
        found = await differences(ledger.database, SysSecret())
        assert found
        assert "projection" in {f.kind for f in (await ledger.verify("full")).findings}
        await rebuild(ledger.database, SysSecret())
        assert await rows(ledger.database, SysSecret()) == before
        assert await differences(ledger.database, SysSecret()) == []
        assert (await ledger.verify("full")).ok
        await ledger.put("a/00", "kept again")
        assert await lag(ledger.database, SysSecret()) == 0


async def test_a_difference_names_the_secret_the_column_and_both_values(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        database = ledger.database
        await edit(database, "UPDATE {s}secret_current SET state = 'live' WHERE name = 'a/03'")
        await edit(database, "UPDATE {s}secret_current SET name = 'zz' WHERE name = 'a/04'")
        await edit(database, "UPDATE {checkpoints} SET {checkpoint} = {checkpoint} + 5")
        checkpoint, state, missing, surplus = await differences(database, SysSecret())
        assert checkpoint == Difference(None, "checkpoint", ledger.position, ledger.position + 5)
        assert "ahead of the log" in str(checkpoint)
        assert state == Difference("a/03", "state", "deleted", "live")
        assert str(state) == "a/03: state is 'live', not 'deleted'"
        assert (missing.secret, missing.column, missing.actual) == ("a/04", None, None)
        assert missing.expected["created_by"] == "alice"
        assert (surplus.secret, surplus.column, surplus.expected) == ("zz", None, None)
        assert await lag(database, SysSecret()) == ledger.position
        assert (await ledger.health()).projection_lag == ledger.position

        await edit(database, "UPDATE {checkpoints} SET {checkpoint} = {checkpoint} - 8")
        assert str((await differences(database, SysSecret()))[0]).endswith(
            "3 positions behind the log"
        )
        assert (await ledger.health()).projection_lag == 3


async def test_a_rebuild_writes_only_what_differs(database_url: str, small_pages: None) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        database = ledger.database
        mark = "CREATE TABLE {s}touched (name text)"
        await edit(database, mark)
        if database.name == "sqlite":
            for event in ("INSERT", "UPDATE"):
                await edit(
                    database,
                    f"CREATE TRIGGER touch_{event} AFTER {event} ON secret_current"
                    " BEGIN INSERT INTO touched VALUES (new.name); END",
                )
        else:
            await edit(
                database,
                "CREATE FUNCTION {s}touch() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN INSERT INTO {s}touched VALUES (new.name); RETURN new; END'",
            )
            await edit(
                database,
                "CREATE TRIGGER touch AFTER INSERT OR UPDATE ON {s}secret_current"
                " FOR EACH ROW EXECUTE FUNCTION {s}touch()",
            )
        report = await rebuild(database, SysSecret())
        assert (report.rows, report.changed, report.added, report.removed) == (10, 0, 0, 0)
        await edit(database, "DELETE FROM {s}secret_current WHERE name = 'b/often'")
        await edit(database, DAMAGE["a changed value"])
        await edit(database, DAMAGE["a row behind all"])
        await edit(database, "DELETE FROM {s}touched")
        steps: list[Progress] = []
        report = await rebuild(database, SysSecret(), on_progress=steps.append)
        assert (report.rows, report.changed, report.added, report.removed) == (10, 1, 2, 1)
        sql = text(f"SELECT name FROM {database.statements.prefix}touched")
        touched = await database.run(lambda c: c.execute(sql).scalars().all(), "statement")
        assert sorted(touched) == ["a/03", "a/04", "b/often"]
        assert steps[-1] == Progress(ledger.position, ledger.position)


async def test_rows_of_other_generations_are_left_alone(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        database = ledger.database
        await edit(database, "UPDATE {s}secret_current SET generation = 7 WHERE name = 'a/04'")
        (missing,) = await differences(database, SysSecret())
        assert missing.secret == "a/04"
        report = await rebuild(database, SysSecret())
        assert (report.added, report.removed) == (1, 0)
        assert set(await rows(database, SysSecret(), 7)) == {"a/04"}


@pytest.mark.parametrize("projection", [SysSecret(), RotationAge()], ids=lambda p: p.name)
async def test_a_rebuild_and_a_check_beside_writers_find_their_work_whole(
    database_url: str, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes write, one of them without projections; nothing they do is a difference."""
    monkeypatch.setattr(pages, "PAGE", 20)
    async with (
        opened(database_url, Inline(projection)) as ledger,
        opened(database_url, none=True) as other,
    ):
        await fill(ledger)
        table = projection.table.name
        going = True

        async def write(to: SecretLedger, prefix: str) -> None:
            number = 0
            while going:
                number += 1
                await to.put(f"{prefix}/{number % 7}", str(number))
                if number % 5 == 0:
                    await to.delete(f"{prefix}/{number % 7}")
                    await to.restore(f"{prefix}/{number % 7}")
                await asyncio.sleep(0.002)

        writers = [asyncio.create_task(write(ledger, "a")), asyncio.create_task(write(other, "zz"))]
        try:
            for i in range(6):
                if i % 2:
                    await edit(ledger.database, f"DELETE FROM {{s}}{table} WHERE name LIKE 'a/%'")
                await asyncio.gather(
                    rebuild(ledger.database, projection), rebuild(other.database, projection)
                )
                found = await differences(ledger.database, projection)
                assert [d for d in found if d.secret is not None] == []
        finally:
            going = False
            await asyncio.gather(*writers)
        await catch_up(ledger.database, projection)
        assert await differences(ledger.database, projection) == []


async def test_what_a_process_without_projections_wrote_is_caught_up_by_the_next_append(
    database_url: str, small_pages: None
) -> None:
    async with opened(database_url) as ledger, opened(database_url, none=True) as other:
        await ledger.put("a", "1")
        for i in range(3):  # one page
            await other.put("a", str(i))
        assert await lag(ledger.database, SysSecret()) == 3
        await ledger.put("b", "1")
        assert await lag(ledger.database, SysSecret()) == 0
        assert await differences(ledger.database, SysSecret()) == []

        for i in range(4):  # more than a page
            await other.put("a", str(i))
        await ledger.put("b", "2")
        assert await lag(ledger.database, SysSecret()) == 5
        assert (await ledger.health()).projection_lag == 5
        behind, *_ = await differences(ledger.database, SysSecret())
        assert "5 positions behind" in str(behind)
        assert len(await differences(ledger.database, SysSecret())) == 1
        assert await catch_up(ledger.database, SysSecret()) == 5
        assert await catch_up(ledger.database, SysSecret()) == 0
        assert await differences(ledger.database, SysSecret()) == []


async def test_an_append_begins_a_projection_that_never_was(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await ledger.put("a", "1")
        await edit(ledger.database, "{forget_checkpoints}")
        await edit(ledger.database, "DELETE FROM {s}secret_current")
        await ledger.put("b", "1")
        assert set(await rows(ledger.database, SysSecret())) == {"a", "b"}
        assert await lag(ledger.database, SysSecret()) == 0


async def test_opening_catches_up(database_url: str, small_pages: None) -> None:
    async with opened(database_url, none=True) as ledger:
        await fill(ledger)
        assert await rows(ledger.database, SysSecret()) == {}
        assert await lag(ledger.database, SysSecret()) == ledger.position
    async with opened(database_url) as ledger:
        assert len(await rows(ledger.database, SysSecret())) == 10
        assert await differences(ledger.database, SysSecret()) == []


async def test_many_runners_fold_each_event_once(database_url: str, small_pages: None) -> None:
    async with opened(database_url, none=True) as first, opened(database_url, none=True) as second:
        await install(first.database, RotationAge())
        for _ in range(3):
            await fill_counts(first)
        done = await asyncio.gather(
            *(catch_up(ledger.database, RotationAge()) for ledger in (first, second) * 3)
        )
        assert sum(done) == first.position
        assert await differences(first.database, RotationAge()) == []


async def fill_counts(ledger: SecretLedger) -> None:
    for i in range(10):
        await ledger.put(f"c/{i % 3}", str(i))


async def test_a_projection_of_ones_own_works_inline_and_by_itself(
    database_url: str, small_pages: None
) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        assert await install(ledger.database, RotationAge())
        assert not await install(ledger.database, RotationAge())
        assert await catch_up(ledger.database, RotationAge()) == ledger.position
        counted = await rows(ledger.database, RotationAge())
        assert counted["b/often"]["writes"] == 4
        assert counted["a/00"]["writes"] == 2
        assert "a/03" not in counted
        await ledger.put("b/often", "5")
        assert await lag(ledger.database, RotationAge()) == 1
    async with opened(database_url, *default(), Inline(RotationAge())) as ledger:
        last = await ledger.put("b/often", "6")
        counted = await rows(ledger.database, RotationAge())
        assert counted["b/often"]["writes"] == 6
        assert counted["b/often"]["last_write"] == to_microseconds(last.recorded_at)
        await ledger.delete("b/often")
        assert "b/often" not in await rows(ledger.database, RotationAge())
        assert await differences(ledger.database, RotationAge()) == []
        assert await differences(ledger.database, SysSecret()) == []
        assert (await ledger.verify("full")).ok


async def test_a_checkpoint_set_back_does_not_count_twice_after_a_rebuild(
    database_url: str, small_pages: None
) -> None:
    async with opened(database_url, Inline(RotationAge())) as ledger:
        await fill(ledger)
        before = await rows(ledger.database, RotationAge())
        for position in (0, 5, ledger.position - 2, ledger.position + 2):
            await edit(
                ledger.database, "UPDATE {s}projection_checkpoint SET position = :p", p=position
            )
            await rebuild(ledger.database, RotationAge())
            assert await rows(ledger.database, RotationAge()) == before


async def test_two_processes_install_the_same_table_at_once(database_url: str) -> None:
    async with opened(database_url) as first, opened(database_url) as second:
        made = await asyncio.gather(
            *(install(ledger.database, RotationAge()) for ledger in (first, second) * 4)
        )
        assert sum(made) >= 1
        assert await install(first.database, RotationAge()) is False


async def test_on_postgresql_a_projection_lies_in_the_schema_of_the_ledger(
    postgres_url: str,
) -> None:
    projections = (*default(), Inline(RotationAge()))
    async with SecretLedger.open(
        postgres_url, KEYRING, schema="elsewhere", projections=projections
    ) as ledger:
        await ledger.put("a", "1")
        assert await differences(ledger.database, RotationAge()) == []
        sql = text("SELECT name, writes FROM elsewhere.rotation_age")
        found = await ledger.database.run(lambda c: c.execute(sql).one(), "statement")
        assert tuple(found) == ("a", 1)


async def test_a_projection_catches_up_with_a_generation_that_is_not_in_use_yet(
    database_url: str, small_pages: None
) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
        database = ledger.database
        await copy_generation(database, "building")
        assert await catch_up(database, SysSecret(), generation=1) == ledger.position
        assert len(await rows(database, SysSecret(), 1)) == 10


async def copy_generation(database: Database, state: str) -> None:
    for table, columns in (
        ("ledger_head", HEAD_COLUMNS),
        ("secret_event", EVENT_COLUMNS),
    ):
        copied = columns.replace("generation", "1").replace("state", f"'{state}'")
        await edit(
            database, f"INSERT INTO {{s}}{table} ({columns}) SELECT {copied} FROM {{s}}{table}"
        )


@pytest.mark.parametrize("call", ["catch_up", "check", "rebuild"])
async def test_a_flip_of_the_generation_is_followed(
    database_url: str, call: str, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, none=True) as ledger:
        await fill(ledger)
        database = ledger.database
        await copy_generation(database, "closed")
        await catch_up(database, SysSecret(), generation=1)
        if call != "catch_up":
            await catch_up(database, SysSecret(), generation=0)
        else:
            await edit(database, "{forget_checkpoints} WHERE generation = 1")
        run = database.run
        units = 0

        async def flipping(unit: Any, mode: Any, **options: Any) -> Any:
            nonlocal units
            units += 1
            if units == 4:
                await run(lambda c: flip(c, database), "write")
            return await run(unit, mode, **options)

        monkeypatch.setattr(database, "run", flipping)
        if call == "check":
            assert await differences(database, SysSecret()) == []
        elif call == "rebuild":
            assert (await rebuild(database, SysSecret())).rows == 10
        else:
            await catch_up(database, SysSecret())
        monkeypatch.undo()
        assert len(await rows(database, SysSecret(), 1)) == 10
        assert await lag(database, SysSecret()) == 0


def flip(connection: Any, database: Database) -> None:
    for generation, state in ((0, "closed"), (1, "active")):
        sql = f"UPDATE {database.statements.prefix}ledger_head SET state = :s WHERE generation = :g"
        connection.execute(text(sql), {"s": state, "g": generation})


async def test_an_actor_that_a_database_can_not_hold_does_not_stop_a_write(
    database_url: str,
) -> None:
    async with opened(database_url) as ledger:
        await ledger.put("a", "1", actor="al\x00ice")
        (row,) = (await rows(ledger.database, SysSecret())).values()
        assert row["updated_by"] == "al\\x00ice"
        assert await differences(ledger.database, SysSecret()) == []


HOSTILE_EVENTS: dict[str, list[Any]] = {
    "metadata": ["{", "[]", '{"actor":"\\ud800"}', '{"actor":"\\u0000"}', "[" * 5000],
    "event_type": ["secret.rekeyed", "nonsense", ""],
    "stream": ["$other", "", "a\u0301", "x" * 2000],
    "version": [0, -1, 2**62],
    "recorded_at": [-(2**63), 2**63 - 1],
    "key_fingerprint": [b"", b"\xff" * 99],
    "generation": [5, -1],
}
HOSTILE_TIMES = [10**40, True, -(10**40), 1.5]


async def test_no_damaged_row_of_the_log_is_more_than_a_difference(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await fill(ledger)
    cases = [(column, value) for column, values in HOSTILE_EVENTS.items() for value in values]
    cases += [
        ("metadata", encode_metadata(ledger={"at": at, "state": "live"})) for at in HOSTILE_TIMES
    ]
    async with attacking(database_url) as attacker, opened(database_url) as ledger:
        await edit(ledger.database, "UPDATE {s}secret_event SET event_type = 'secret.rekeyed'"
                   " WHERE stream = 'b/often' AND version > 2")  # fmt: skip
        for column, value in cases:
            ((was,),) = await attacker.sql(f"SELECT {column} FROM secret_event WHERE position = 14")
            update = f"UPDATE secret_event SET {column} = $1 WHERE position = 14"
            await attacker.sql(update, value)
            await rebuild(ledger.database, SysSecret())
            assert await differences(ledger.database, SysSecret()) == [], (column, value)
            await attacker.sql(update, was)


async def test_no_damaged_text_in_a_sqlite_file_is_more_than_a_difference(
    sqlite_url: str, small_pages: None
) -> None:
    async with opened(sqlite_url) as ledger:
        await fill(ledger)
        before = await rows(ledger.database, SysSecret())
        async with attacking(sqlite_url) as attacker:
            for bad in (b"\xff\xfe", b"a/0\xff", b"\xed\xa0\x80", b"nul\x00nul", b"zz\xff"):
                hostile = "cast($1 AS text)"
                await attacker.sql(
                    f"UPDATE secret_current SET name = {hostile} WHERE name = 'a/04'", bad
                )
                await attacker.sql(
                    f"UPDATE secret_current SET created_by = {hostile} WHERE name = 'a/06'", bad
                )
                found = await differences(ledger.database, SysSecret())
                assert {d.secret for d in found} >= {"a/04", "a/06"}
                assert len(found) == 3
                assert all(str(d).isprintable() for d in found)
                await rebuild(ledger.database, SysSecret())
                assert await rows(ledger.database, SysSecret()) == before
                for column in ("stream", "key_id", "metadata", "event_type"):
                    kept = await attacker.sql(
                        f"SELECT {column} FROM secret_event WHERE position = 6"
                    )
                    change = f"UPDATE secret_event SET {column} = {hostile} WHERE position = 6"
                    await attacker.sql(change, bad)
                    await rebuild(ledger.database, SysSecret())
                    assert await differences(ledger.database, SysSecret()) == [], (column, bad)
                    await attacker.sql(change, kept[0][0].encode())
                await rebuild(ledger.database, SysSecret())
                assert await rows(ledger.database, SysSecret()) == before


TABLES = ["ledger_head", "secret_event", "secret_current", "projection_checkpoint"]


@pytest.mark.parametrize("table", TABLES)
async def test_tables_without_types_and_keys_raise_nothing_of_python(
    sqlite_url: str, table: str, small_pages: None
) -> None:
    values: list[object] = [None, 7, -1.5, "text", b"blob", "", 2**63 - 1]
    async with opened(sqlite_url) as ledger:
        await fill(ledger)
    database = connect(sqlite_url)
    head = LogHead(0, 18, 0, 1, "active")
    async with attacking(sqlite_url) as attacker:
        await attacker.loosen(table)
        kept = await attacker.sql(f"SELECT * FROM {table}")
        for column in await attacker.columns(table):
            for value in values:
                change = f"UPDATE {table} SET {column} = $1 WHERE rowid % 2 = 1"
                await attacker.sql(change, value)
                for call in (
                    differences(database, SysSecret()),
                    lag(database, SysSecret()),
                    rebuild(database, SysSecret()),
                    database.run(lambda c: Inline(SysSecret()).lag(c, database, head), "snapshot"),
                ):
                    with suppress(LedgerError):
                        await asyncio.wait_for(call, 10)
                await attacker.sql(f"DELETE FROM {table}")
                await attacker.insert_rows(table, kept)
    await database.close()


async def test_a_checkpoint_that_is_no_number_is_refused_by_name(sqlite_url: str) -> None:
    async with opened(sqlite_url) as ledger, attacking(sqlite_url) as attacker:
        await attacker.loosen("ledger_head")
        await attacker.sql("UPDATE ledger_head SET sys_secret_position = 'x'")
        with pytest.raises(TamperedEvent, match="checkpoint of projection sys_secret"):
            await rebuild(ledger.database, SysSecret())


async def test_a_row_whose_values_can_not_be_read_is_mended(sqlite_url: str) -> None:
    async with opened(sqlite_url) as ledger, attacking(sqlite_url) as attacker:
        await ledger.put("a", "1")
        await ledger.put("b", "1")
        before = await rows(ledger.database, SysSecret())
        await attacker.sql("CREATE TABLE loose AS SELECT * FROM secret_current")
        await attacker.sql("CREATE UNIQUE INDEX loose_key ON loose (generation, name)")
        await attacker.sql("UPDATE loose SET key_fingerprint = 'text' WHERE name = 'a'")
        await attacker.sql("PRAGMA legacy_alter_table = ON")
        await attacker.sql("DROP TABLE secret_current")
        await attacker.sql("ALTER TABLE loose RENAME TO secret_current")
        found = await differences(ledger.database, SysSecret())
        assert {d.secret for d in found} == {"a"}
        report = await rebuild(ledger.database, SysSecret())
        assert (report.changed, report.added) == (1, 0)
        assert await rows(ledger.database, SysSecret()) == before


class Careless(RotationAge):
    name = "careless"

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
        return {"writes": 1, "last_write": 1, "typo": 1}


async def test_a_fold_to_a_column_that_is_not_there_is_said(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await ledger.put("a", "1")
        await install(ledger.database, Careless())
        with pytest.raises(ProjectionFailed, match=r"projection careless, .*its fold returns typo"):
            await catch_up(ledger.database, Careless())
        assert await lag(ledger.database, Careless()) == ledger.position


async def test_a_table_with_another_primary_key_is_refused(sqlite_url: str) -> None:
    class Wrong(RotationAge):
        table = Table("wrong", MetaData(), Column("name", Text, primary_key=True))

    async with opened(sqlite_url) as ledger:
        with pytest.raises(InvalidValue, match=r"must be \(generation, name\)"):
            await install(ledger.database, Wrong())


async def test_a_fold_never_sees_sealed_bytes(database_url: str) -> None:
    seen: list[bytes] = []

    class Looking(RotationAge):
        def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
            seen.append(event.sealed)
            return super().fold(row, event)

    async with opened(database_url, Inline(Looking())) as ledger:
        await ledger.put("a", "1")
        assert seen
        await rebuild(ledger.database, Looking())
    assert set(seen) == {b""}


async def test_a_write_waits_for_a_row_that_is_being_mended_and_builds_on_it(
    postgres_url: str,
) -> None:
    async with opened(postgres_url) as ledger:
        await ledger.put("a", "1", actor="alice")
        await edit(ledger.database, "UPDATE {s}secret_current SET created_by = 'mallory'")
        writing: list[asyncio.Task[Any]] = []

        def write() -> None:
            writing.append(asyncio.create_task(ledger.put("a", "2", actor="bob")))
            await_only(waiters.come(1))

        with watching_waiters(postgres_url) as waiters, before_commit(1, write):
            assert (await rebuild(ledger.database, SysSecret())).changed == 1
        await writing[0]
        row = (await rows(ledger.database, SysSecret()))["a"]
        assert (row["created_by"], row["updated_by"], row["version"]) == ("alice", "bob", 2)
        assert await differences(ledger.database, SysSecret()) == []


async def test_a_write_beside_a_catch_up_that_overtakes_it_folds_every_event(
    postgres_url: str,
) -> None:
    """Its rows were read while the table was behind, and by then the checkpoint is where an
    append expects it."""
    async with opened(postgres_url) as ledger, opened(postgres_url, none=True) as unkept:
        await ledger.put("other", "1")
        await unkept.put("a", "1", actor="alice")
        caught_up: list[int] = []

        def overtake(statement: str) -> None:
            if "INSERT INTO" in statement and not caught_up:
                caught_up.append(-1)
                caught_up.append(await_only(catch_up(unkept.database, SysSecret())))

        with each_statement(overtake):
            await ledger.put("a", "2", actor="bob")
        assert caught_up == [-1, 1]
        row = (await rows(ledger.database, SysSecret()))["a"]
        assert (row["created_by"], row["updated_by"], row["version"]) == ("alice", "bob", 2)
        assert await differences(ledger.database, SysSecret()) == []


async def test_a_row_that_should_not_be_there_goes_where_its_secret_begins_without_one(
    database_url: str,
) -> None:
    class Late(RotationAge):
        """From version 2 on."""

        def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
            return super().fold(row, event) if event.version > 1 else None

    async with opened(database_url, Inline(Late())) as ledger:
        await edit(
            ledger.database,
            "INSERT INTO {s}rotation_age (generation, name, writes, last_write)"
            " VALUES (0, 'a', 7, 7), (0, 'b', 7, 7)",
        )
        await ledger.put_many([("a", "1"), ("c", "1")])
        assert set(await rows(ledger.database, Late())) == {"b"}
        await ledger.put("a", "2")
        assert (await rows(ledger.database, Late()))["a"]["writes"] == 1


async def test_a_row_that_should_not_be_there_is_written_over_whole_where_its_secret_begins(
    database_url: str,
) -> None:
    async with opened(database_url, *default()) as ledger:
        await edit(
            ledger.database,
            "INSERT INTO {s}secret_current (generation, name, version, position, state, key_id,"
            " key_fingerprint, created_at, created_by, updated_at)"
            " SELECT 0, 'a', 1, 1, 'live', key_id, key_fingerprint, 7, 'nobody', 7"
            " FROM {s}ledger_key",
        )
        await ledger.put("a", "1", actor="founder")
        await ledger.put("a", "2", actor="other")
        row = (await rows(ledger.database, SysSecret()))["a"]
        assert (row["created_by"], row["updated_by"]) == ("founder", "other")
        assert await differences(ledger.database, SysSecret()) == []


async def test_what_a_subclass_does_with_an_append_is_not_passed_over(database_url: str) -> None:
    class Counting(Inline):
        applied = 0

        def apply(self, *given: Any) -> None:
            self.applied += 1
            super().apply(*given)

    projection = Counting(SysSecret())
    async with opened(database_url, projection) as ledger:
        before = projection.applied
        await ledger.put("a", "1")
        await ledger.put_many({"a": "2", "b": "1"})
        assert projection.applied == before + 2
        assert await differences(ledger.database, SysSecret()) == []


@pytest.mark.parametrize("listed", [False, True])
async def test_many_rows_at_once_keep_the_types_of_their_columns(
    postgres_url: str, listed: bool
) -> None:
    """As arrays, one a column; or, where a column holds lists itself, row by row."""
    more: list[Column[Any]] = [Column("list", ARRAY(Integer))] if listed else []

    class Typed:
        name = "typed"
        table = Table(
            "typed",
            MetaData(),
            Column("a_float", Float),
            Column("name", String(600), primary_key=True),  # not in the order of the key
            Column("generation", Integer, primary_key=True),
            Column("yes", Boolean),
            Column("a_number", Numeric(12, 2)),
            Column("small", SmallInteger),
            Column("short", String(5)),
            Column("bytes", LargeBinary),
            Column("nothing", Text),
            *more,
        )

        def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
            folded = {
                "a_float": event.position / 4,
                "yes": event.position % 2 == 0,
                "a_number": Decimal(event.position) / 4,
                "small": event.position,
                "short": event.stream[-5:],
                "bytes": event.event_hash,
            }
            return {**folded, "list": [1, event.position]} if listed else folded

    async with opened(postgres_url, Inline(Typed())) as ledger:
        upsert = ProjectionTable(Typed(), ledger.database)._upsert
        assert ("unnest" in upsert.columnar) == (not listed)
        await ledger.put_many({f"s/{n:05}": "x" for n in range(300)})
        found = await rows(ledger.database, Typed())
        assert len(found) == 300
        row = found["s/00007"]
        position = row["small"]
        assert (row["a_float"], row["yes"]) == (position / 4, position % 2 == 0)
        assert (row["a_number"], row["short"]) == (Decimal(position) / 4, "00007")
        assert (row["nothing"], len(row["bytes"])) == (None, 32)
        assert row.get("list") == ([1, position] if listed else None)
        assert await differences(ledger.database, Typed()) == []
        await ledger.put_many({f"s/{n:05}": "y" for n in range(300)})
        await ledger.put_many({f"s/{n:05}": "z" for n in range(30)})
        await ledger.put("s/00000", "alone")
        assert await differences(ledger.database, Typed()) == []


NAMES = ["a", "b/c", "ä", "\U0001f511", "a!", "A"]
STEP = st.tuples(
    st.sampled_from(["put", "delete", "restore", "destroy", "many", "unkept"]),
    st.sampled_from(NAMES),
    st.sampled_from([None, "alice", "b\x00b"]),
)


async def play(
    ledger: SecretLedger, other: SecretLedger, steps: list[tuple[str, str, Any]]
) -> None:
    for what, name, actor in steps:
        try:
            match what:
                case "put":
                    await ledger.put(name, "v", actor=actor)
                case "delete":
                    await ledger.delete(name, actor=actor)
                case "restore":
                    await ledger.restore(name, actor=actor)
                case "destroy":
                    await ledger.destroy(name, reason="test", actor=actor)
                case "many":
                    await ledger.put_many(dict.fromkeys(NAMES[2:], "v"), actor=actor)
                case "unkept":
                    await other.put(name, "v", actor=actor)
        except LedgerError:
            pass


async def sequence_agrees(url: str, steps: list[tuple[str, str, Any]]) -> None:
    kept = (*default(), Inline(RotationAge()))
    async with opened(url, *kept) as ledger, opened(url, none=True) as other:
        await play(ledger, other, steps)
        for inline in kept:
            await inline.catch_up(ledger.database)
            before = await rows(ledger.database, inline.projection)
            assert await differences(ledger.database, inline.projection) == []
            await edit(ledger.database, f"DELETE FROM {{s}}{inline.projection.table.name}")
            await rebuild(ledger.database, inline.projection)
            assert await rows(ledger.database, inline.projection) == before
            await edit(ledger.database, "DELETE FROM {s}projection_checkpoint")
            await edit(ledger.database, "{forget_checkpoints}")
            await edit(ledger.database, f"DELETE FROM {{s}}{inline.projection.table.name}")
            await rebuild(ledger.database, inline.projection)
            assert await rows(ledger.database, inline.projection) == before


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, max_size=25))
def test_any_sequence_of_writes_gives_the_same_rows_inline_as_from_scratch(
    steps: list[tuple[str, str, Any]], small_pages: None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{Path(folder)}/ledger.db"
        asyncio.run(sequence_agrees(url, steps))


async def test_a_sequence_of_writes_on_postgresql_gives_the_same_rows(
    postgres_url: str, small_pages: None
) -> None:
    steps: list[tuple[str, str, Any]] = [
        (what, name, actor)
        for what in ("put", "many", "delete", "unkept", "restore", "destroy", "put")
        for name in NAMES
        for actor in (None, "b\x00b")
    ]
    await sequence_agrees(postgres_url, steps)


async def test_a_checkpoint_that_can_not_be_moved_is_said_and_not_tried_for_ever(
    database_url: str,
) -> None:
    """A trigger that is none of ours takes the update away, and says nothing."""
    async with opened(database_url, none=True) as ledger:
        await ledger.put("a", "1")
        async with attacking(database_url) as attacker:
            if database_url.startswith("sqlite"):
                await attacker.sql(
                    "CREATE TRIGGER stay BEFORE UPDATE OF sys_secret_position ON ledger_head"
                    " BEGIN SELECT RAISE(IGNORE); END"
                )
            else:
                await attacker.sql(
                    "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RETURN NULL; END $$"
                )
                await attacker.sql(
                    "CREATE TRIGGER stay BEFORE UPDATE ON projection_checkpoint"
                    " FOR EACH ROW EXECUTE FUNCTION stay()"
                )
        async with asyncio.timeout(30):
            with pytest.raises(LedgerUnavailable, match="sys_secret"):
                await catch_up(ledger.database, SysSecret())
