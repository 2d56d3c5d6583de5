"""Somebody fills the database with what no ledger wrote: memory and loops stay bounded."""

# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import anyio
import pytest

from attacker import Attacker, attacking
from checkpoints import spelt_for
from inside import (
    HEAD_COLUMNS,
    MAX_GENERATIONS,
    MAX_KEYS,
    MAX_SEALED,
    MAX_SHOWN,
    MAX_VALUE,
    Level,
    behind,
    frame,
    sealed_size,
)
from ledgers import NEW, OLD, opened, refused
from secret_ledger import (
    Finding,
    KeyInUse,
    LedgerError,
    SecretDestroyed,
    SecretLedger,
    TamperedEvent,
    open_unverified,
)
from secret_ledger_projections import SysSecret, rebuild

MIB = 1024 * 1024
LARGE = 24 * MIB
ROOM = 10 * MIB
"""What a call may take while rows hold several times as much."""


@contextmanager
def in_bounded_memory(room: int = ROOM) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < room, f"{peak / MIB:.1f} MiB"


@pytest.fixture
async def filled(database_url: str) -> str:
    async with opened(database_url, OLD) as ledger:
        for name in ("a", "b", "c"):
            await ledger.put(name, f"value of {name}")
            await ledger.put(name, f"value of {name} 2")
    return database_url


async def edit(url: str, statement: str, *values: object) -> None:
    async with attacking(url) as attacker:
        await attacker.sql(statement, *values)


def numbers(attacker: Attacker, most: int) -> str:
    """A table expression of the numbers 1 to `most`, as `g (n)`."""
    if type(attacker).__name__.startswith("Postgres"):
        return f"generate_series(1, {most}) AS g (n)"
    counted = f"SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < {most}"
    return f"(WITH RECURSIVE c AS ({counted}) SELECT n FROM c) AS g"


async def names(ledger: SecretLedger) -> Sequence[str]:
    return [info.name async for info in ledger.list(deleted=True)]


async def error_of(ledger: SecretLedger, name: str, version: int | None = None) -> type[Exception]:
    with pytest.raises(LedgerError) as caught:
        await ledger.get(name, version=version)
    return type(caught.value)


@pytest.mark.parametrize("column", ["sealed", "metadata", "event_type", "key_id", "prev_hash"])
async def test_a_value_that_no_ledger_wrote_is_named_and_never_fetched(
    filled: str, column: str
) -> None:
    huge = "x" * LARGE if column in ("metadata", "event_type", "key_id") else b"\x01" * LARGE
    await edit(filled, f"UPDATE secret_event SET {column} = $1 WHERE stream = 'b'", huge)
    del huge
    with in_bounded_memory():
        report = await verified(filled)
        assert {f.stream for f in report if f.stream} == {"b"}
        assert "b" in (await refused(filled, TamperedEvent, OLD)).message
        async with opened(filled, OLD, verify="control") as ledger:
            assert await names(ledger) == ["a", "b", "c"]
            assert len([info async for info in ledger.history("b")]) == 2
            assert await error_of(ledger, "b") is TamperedEvent
            assert await error_of(ledger, "b", 1) is TamperedEvent
            with pytest.raises(TamperedEvent):
                await ledger.put("b", "over it")
            assert (await ledger.get("c")).value.reveal() == b"value of c 2"
            await ledger.destroy("b", reason="its rows are damaged")
            assert await error_of(ledger, "b") is SecretDestroyed


async def verified(url: str) -> Sequence[Finding]:
    """What both levels find."""
    found: list[Finding] = []
    levels: tuple[Level, ...] = ("latest", "full")
    async with opened(url, OLD, verify="control") as ledger:
        for level in levels:
            report = await ledger.verify(level)
            assert not report.ok
            found += report.findings
    return found


async def test_many_rows_of_much_metadata_take_no_more_memory_than_a_page(filled: str) -> None:
    async with attacking(filled) as attacker:
        ((end,),) = await attacker.sql("SELECT max(position) FROM secret_event")
        await attacker.sql(
            f"INSERT INTO secret_event SELECT generation, {end} + n, 'many/' || n, 1, event_type,"
            f" key_id, key_fingerprint, recorded_at, $1, prev_hash, sealed, event_hash"
            f" FROM secret_event, {numbers(attacker, 150)} WHERE stream = 'a' AND version = 1",
            '{"user":"' + "x" * 256 * 1024 + '"}',
        )
        await attacker.sql(f"UPDATE ledger_head SET position = {end} + 150")
        await attacker.sql("DELETE FROM secret_current")
        await attacker.sql(spelt_for(filled, "UPDATE {checkpoints} SET {checkpoint} = 0"))
    with in_bounded_memory():
        async with opened(filled, OLD, verify="control") as ledger:
            assert len(await names(ledger)) == 153
        assert len(await verified(filled)) > 150


async def test_a_secret_of_the_largest_size_and_the_most_metadata_is_read_everywhere(
    database_url: str,
) -> None:
    value, actor = b"v" * MAX_VALUE, "ä" * 2035
    assert sealed_size(MAX_VALUE) == MAX_SEALED == 1 + 12 + len(frame(value)) + 16
    async with opened(database_url, OLD) as ledger:
        await ledger.put("large", value, actor=actor)
    async with opened(database_url, NEW, OLD) as ledger:
        await ledger.rotate(actor=actor)
        assert (await ledger.rekey(actor=actor)).ok
        assert (await ledger.verify("full")).ok
        assert (await ledger.get("large")).value.reveal() == value
        assert (await ledger.get("large", version=1)).actor == actor
        assert [info.actor async for info in ledger.history("large")] == [actor, actor]
        assert (await ledger.migrate()).changed
    async with opened(database_url, NEW, OLD, verify="full") as ledger:
        assert (await ledger.get("large", version=1)).value.reveal() == value


async def test_names_too_long_to_be_names_hide_no_others(filled: str) -> None:
    long = "b" * 600
    async with attacking(filled) as attacker:
        ((end,),) = await attacker.sql("SELECT max(position) FROM secret_event")
        await attacker.sql(
            f"INSERT INTO secret_event SELECT generation, {end} + n, $1 || n, 1, event_type,"
            " key_id, key_fingerprint, recorded_at, metadata, prev_hash, sealed, event_hash"
            f" FROM secret_event, {numbers(attacker, 700)} WHERE stream = 'a' AND version = 1",
            long,
        )
        await attacker.sql(f"UPDATE ledger_head SET position = {end} + 700")
    async with opened(filled, OLD, verify="control") as ledger:
        found = await names(ledger)
        assert [name for name in found if len(name) < 512] == ["a", "b", "c"]
        assert max(len(name) for name in found) <= 513
        assert sum(count.secrets for count in (await ledger.census()).heads) > 3
    assert any("bbb" in (finding.stream or "") for finding in await verified(filled))


def test_a_page_of_names_goes_on_behind_a_name_unless_that_was_cut() -> None:
    assert behind("a" * 512) == "a" * 512
    assert behind("é" * 256) == "é" * 256
    assert behind("a" * 513) > "a" * 600


async def test_a_registry_full_of_planted_lines_is_read_up_to_a_bound(filled: str) -> None:
    async with opened(filled, OLD, node="honest") as ledger:
        async with attacking(filled) as attacker:
            (line,) = await attacker.sql("SELECT * FROM ledger_node")
            columns = await attacker.columns("ledger_node")
            taken = ["node_id", "readable", "last_seen"]
            others = ", ".join(c if c not in taken else _planted(c) for c in columns)
            await attacker.sql(
                f"INSERT INTO ledger_node SELECT {others}"
                f" FROM ledger_node, {numbers(attacker, 2 * MAX_SHOWN)}",
                "x" * 100_000,
            )
        assert line
        with in_bounded_memory():
            nodes = await ledger.nodes()
            assert len(nodes) == MAX_SHOWN
            assert "honest" in {node.node for node in nodes}
            assert await ledger.rotate() is not None
    async with open_unverified(filled) as look:
        assert len(await look.nodes()) == MAX_SHOWN


def _planted(column: str) -> str:
    return {"node_id": "'planted' || n", "readable": "$1", "last_seen": "last_seen - n"}[column]


async def test_no_loop_goes_by_the_position_that_a_head_row_claims(filled: str) -> None:
    async with opened(filled, NEW, OLD) as ledger:
        await ledger.migrate()
    await edit(filled, "UPDATE ledger_head SET position = $1 WHERE state = 'closed'", 9 * 10**18)
    with anyio.fail_after(60):
        async with opened(filled, NEW, OLD) as ledger:
            assert {use.generation for use in (await ledger.census()).events} == {0, 1}
            assert len(await ledger.generations()) == 2
            assert len(await ledger.key_history()) == 2
            assert not (await ledger.verify("full")).ok
            with pytest.raises(KeyInUse):
                await ledger.retire("k-old")
            with suppress(TamperedEvent):
                await ledger.purge_generation(0)


@pytest.mark.parametrize("table", ["ledger_head", "ledger_key"])
async def test_more_rows_than_a_ledger_writes_are_refused(filled: str, table: str) -> None:
    async with attacking(filled) as attacker:
        into = table
        if table == "ledger_head":
            into = f"ledger_head ({HEAD_COLUMNS})"
            planted = f"100 + n, 1, 1, 1, 'closed' FROM {numbers(attacker, MAX_GENERATIONS)}"
        else:
            # 32 bytes that differ from row to row, as both databases make them.
            mark = "CAST(hex(CAST(1000000000000000 + n AS TEXT)) AS BLOB)"
            if type(attacker).__name__.startswith("Postgres"):
                mark = "sha256(convert_to(CAST(n AS TEXT), 'UTF8'))"
            planted = f"'k-' || n, {mark} FROM ledger_key, {numbers(attacker, MAX_KEYS)}"
        await attacker.sql(f"INSERT INTO {into} SELECT {planted}")
    with in_bounded_memory():
        assert "more than" in (await refused(filled, TamperedEvent, OLD)).message


async def test_a_control_stream_that_is_too_large_to_keep_is_refused(filled: str) -> None:
    async with attacking(filled) as attacker:
        await attacker.sql(
            "INSERT INTO secret_event SELECT generation, 1000 + n, stream, 1000 + n, event_type,"
            " key_id, key_fingerprint, recorded_at, $1, prev_hash, sealed, event_hash"
            f" FROM secret_event, {numbers(attacker, 70)}"
            " WHERE stream = '$ledger' AND version = 1",
            "x" * 1_000_000,
        )
    assert "control stream" in (await refused(filled, TamperedEvent, OLD)).message


async def test_rows_of_a_projection_are_read_up_to_a_bound_and_mended(filled: str) -> None:
    async with opened(filled, OLD) as ledger:
        async with attacking(filled) as attacker:
            await attacker.sql("UPDATE secret_current SET created_by = $1", "x" * LARGE)
            columns = await attacker.columns("secret_current")
            planted = ", ".join("$1 || n" if c == "name" else c for c in columns)
            await attacker.sql(
                f"INSERT INTO secret_current SELECT {planted}"
                f" FROM secret_current, {numbers(attacker, 3)} WHERE name = 'a'",
                "b" * 1000,
            )
        with in_bounded_memory():
            assert (await ledger.put("a", "3")).version == 3
            report = await ledger.verify("full")
            found = " ".join(finding.reason for finding in report.findings)
            assert "created_by" in found
            assert "the table has a row, but by the log it has none" in found
            await rebuild(ledger.database, SysSecret())
            assert (await ledger.verify("full")).ok
