"""An index of SQLite that has lost entries: rows are there, and reads don't find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacker import attacking
from inside import Level
from ledgers import OLD, file_of, opened, refused
from secret_ledger import SecretLedger, SecretNotFound, TamperedEvent


async def _forget(url: str, index: str, condition: str) -> None:
    """Take the entries of some rows out of one index of secret_event."""
    async with attacking(url) as attacker:
        await attacker.sql("PRAGMA journal_mode = DELETE")
        await attacker.sql("PRAGMA writable_schema = ON")
        (kept,) = await attacker.sql("SELECT rootpage FROM sqlite_master WHERE name = $1", index)
        # A partial index over the other rows, made whole, then passed off as the one of all.
        await attacker.sql(f"CREATE INDEX shorter ON secret_event {condition}")
        (root,) = await attacker.sql("SELECT rootpage FROM sqlite_master WHERE name = 'shorter'")
        await attacker.sql("UPDATE sqlite_master SET rootpage = $1 WHERE name = $2", root[0], index)
        await attacker.sql(
            "UPDATE sqlite_master SET name = 'gone', rootpage = $1,"
            " sql = 'CREATE INDEX gone ON secret_event (generation)' WHERE name = 'shorter'",
            kept[0],
        )
        await attacker.sql("PRAGMA journal_mode = WAL")
    assert Path(file_of(url)).exists()


@pytest.fixture
async def filled(sqlite_url: str) -> str:
    async with opened(sqlite_url, OLD) as ledger:
        for name in ("a", "b", "c"):
            await ledger.put(name, "1")
            await ledger.put(name, "2")
        await ledger.destroy("c", reason="over")
        await ledger.put("c", "4")
    return sqlite_url


@pytest.mark.parametrize("level", ["latest", "full"])
@pytest.mark.parametrize("lost", ["stream = 'b'", "stream = 'b' AND version = 2"])
async def test_a_secret_that_its_index_has_lost_is_found(
    filled: str, lost: str, level: Level
) -> None:
    await _forget(
        filled,
        "sqlite_autoindex_secret_event_2",
        f"(generation, stream, version) WHERE NOT ({lost})",
    )
    async with opened(filled, OLD, verify="control", projections=()) as ledger:
        assert await _version(ledger, "b") != 2
        findings = (await ledger.verify(level)).findings
        assert any("streams" in f.reason for f in findings), findings
    await refused(filled, TamperedEvent, OLD, verify=level)


async def test_an_end_that_its_index_has_lost_is_found(filled: str) -> None:
    await _forget(
        filled, "secret_event_destroyed", "(generation, stream, version) WHERE version > 99"
    )
    async with opened(filled, OLD, verify="control", projections=()) as ledger:
        (finding,) = (await ledger.verify("full")).findings
        assert (finding.stream, finding.version) == ("c", 3)


async def _version(ledger: SecretLedger, name: str) -> int | None:
    try:
        return (await ledger.get(name)).version
    except SecretNotFound:
        return None
