"""For each edit of a single column of a row there is a way back to a ledger that opens.

Two ways: `destroy`, which ends the secret that a damaged row says it is of; and the row's own
value, put back from a backup. Neither may make the damage permanent.
"""
# ruff: noqa: S608  # the attacker puts names of columns into his SQL

from __future__ import annotations

from typing import Any

import pytest

from attacker import attacking, events
from inside import Event
from ledgers import NEW, OLD, THIRD, opened
from secret_ledger import SecretDestroyed, SecretLedger, TamperedEvent

OLDER, NEWEST, LAST = ("kept", 1), ("kept", 2), ("last", 2)
"""A version below the newest, a newest version, and the newest event of the log."""


async def _ledger(ledger: SecretLedger) -> None:
    await ledger.put("other", "other one")
    await ledger.put("kept", "one")
    await ledger.put("kept", "two")
    await ledger.put("other", "other two")
    await ledger.put("last", "one")
    await ledger.put("last", "two")


EDITS: dict[str, tuple[Any, str]] = {
    "generation": (7, "put back"),
    "position": (77_777, "put back"),
    "stream": ("elsewhere", "destroy"),
    "version": (50, "destroy"),
    "version, the highest": (2**63 - 1, "put back"),
    "version, none": (0, "destroy"),
    "event_type": ("secret.deleted", "destroy"),
    "key_id": ("k-new", "destroy"),
    "key_fingerprint": (bytes(32), "destroy"),
    "recorded_at": (1, "destroy"),
    "metadata": ('{"actor":"mallory"}', "destroy"),
    "metadata, of no kind": ("[1", "destroy"),
    "prev_hash": (bytes(31) + b"\x01", "destroy"),
    "sealed": (b"\x01" + bytes(100), "destroy"),
    "sealed, nothing": (b"", "destroy"),
    "event_hash": (bytes(32), "destroy"),
}
"""What a column is changed to, and the way back."""


async def _change(url: str, row: Event, column: str, value: object, found: Event) -> None:
    async with attacking(url) as attacker:
        await attacker.sql(
            f"UPDATE secret_event SET {column} = $1 WHERE generation = $2 AND stream = $3"
            " AND version = $4",
            value, found.generation, found.stream, found.version,
        )  # fmt: skip


async def _destroy_what_is_damaged(url: str) -> set[str]:
    """What an operator does: destroy each secret that a full verification names."""
    async with opened(url, OLD, verify="control", projections=()) as ledger:
        findings = (await ledger.verify("full")).findings
        assert findings
        streams = {finding.stream for finding in findings if finding.stream}
        for stream in sorted(streams):
            await ledger.destroy(stream, reason="damaged")
        return streams


async def _is_refused(url: str) -> bool:
    try:
        async with opened(url, OLD, projections=(), verify="full"):
            return False
    except TamperedEvent:
        return True


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("place", [OLDER, NEWEST, LAST], ids=["older", "newest", "last"])
async def test_after_an_edit_of_a_column_there_is_a_way_back_to_a_ledger_that_opens(
    database_url: str, edit: str, place: tuple[str, int]
) -> None:
    column = edit.partition(",")[0]
    value, way = EDITS[edit]
    async with opened(database_url, OLD) as ledger:
        await _ledger(ledger)
    async with attacking(database_url) as attacker:
        row = next(e for e in await events(attacker) if (e.stream, e.version) == place)
    edited = row._replace(**{column: value})
    await _change(database_url, row, column, value, row)
    if way == "destroy":
        ended = await _destroy_what_is_damaged(database_url)
        assert edited.stream in ended
    else:
        assert await _is_refused(database_url)
        await _change(database_url, row, column, getattr(row, column), edited)
    for level in ("latest", "full"):
        async with opened(database_url, OLD, verify=level, projections=()) as ledger:
            assert (await ledger.get("other")).value.reveal_text() == "other two"
            if way == "destroy":
                with pytest.raises(SecretDestroyed):
                    await ledger.get(edited.stream)
    async with opened(database_url, OLD, projections=()) as ledger:
        await ledger.put(edited.stream if way == "destroy" else "anew", "anew")
        assert (await ledger.verify("full")).ok


@pytest.mark.parametrize("place", [OLDER, NEWEST], ids=["older", "newest"])
async def test_what_an_end_found_can_neither_go_nor_come_nor_change(
    database_url: str, place: tuple[str, int]
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await _ledger(ledger)
        async with attacking(database_url) as attacker:
            rows = await events(attacker)
            damaged = next(e for e in rows if (e.stream, e.version) == NEWEST)
            await _change(database_url, damaged, "metadata", '{"actor":"m"}', damaged)
            await ledger.destroy("kept", reason="damaged")
            await ledger.put("kept", "anew")
            assert (await ledger.verify("full")).ok
            row = next(e for e in rows if (e.stream, e.version) == place)
            await _change(database_url, row, "metadata", '{"actor":"again"}', row)
            assert not (await ledger.verify("full")).ok
            await _change(database_url, row, "metadata", '{"actor":"m"}', row)
            other = next(e for e in rows if (e.stream, e.version) == ("other", 1))
            await attacker.sql(
                "UPDATE secret_event SET stream = 'kept', version = 0"
                " WHERE stream = 'other' AND version = 1"
            )
            assert not (await ledger.verify("full")).ok
            assert other.version == 1


async def _end_over_damage(ledger: SecretLedger, url: str, place: Any, column: str) -> Event:
    """Damage one row of "kept", and destroy that secret; the row as it was."""
    await _ledger(ledger)
    async with attacking(url) as attacker:
        row = next(e for e in await events(attacker) if (e.stream, e.version) == place)
    await _change(url, row, column, EDITS[column][0], row)
    await ledger.destroy("kept", reason="damaged")
    return row


async def test_an_end_over_damage_is_kept_by_a_migration(database_url: str) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await _end_over_damage(ledger, database_url, NEWEST, "version")
        await ledger.rotate(NEW)
        await ledger.migrate()
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def test_after_damage_was_ended_a_key_can_be_lost_and_the_ledger_opens(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await _end_over_damage(ledger, database_url, NEWEST, "version")
        await ledger.put("kept", "anew")
        await ledger.rotate(NEW)
    async with opened(database_url, NEW, verify="control", projections=()) as ledger:
        await ledger.lost("k-old", reason="gone")
    for level in ("latest", "full"):
        async with opened(database_url, NEW, verify=level, projections=()) as ledger:
            with pytest.raises(SecretDestroyed, match="its key k-old is lost"):
                await ledger.get("kept")


@pytest.mark.parametrize("anew", [False, True], ids=["ended", "ended and written anew"])
async def test_damage_that_was_ended_stays_accounted_for_when_its_key_is_lost(
    database_url: str, anew: bool
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await _end_over_damage(ledger, database_url, OLDER, "metadata")
        if anew:
            await ledger.put("kept", "anew")
        await ledger.rotate(NEW)
    async with opened(database_url, NEW, verify="control", projections=()) as ledger:
        await ledger.lost("k-old", reason="gone")
        report = await ledger.verify("full")
        assert report.ok, report.findings
    async with opened(database_url, THIRD, NEW, verify="full", projections=()) as ledger:
        await ledger.rotate()
        await ledger.migrate()
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def test_what_changes_below_an_end_that_went_with_its_key_is_found(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        row = await _end_over_damage(ledger, database_url, OLDER, "metadata")
        await ledger.rotate(NEW)
    async with opened(database_url, NEW, verify="control", projections=()) as ledger:
        await ledger.lost("k-old", reason="gone")
        await _change(database_url, row, "metadata", '{"actor":"eve"}', row)
        assert not (await ledger.verify("full")).ok
