"""A database that answers with an authentic row that is not the answer to the question."""
# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from attacker import Attacker, attacking, events
from control_streams import GENESIS, MIGRATED, folded
from inside import Event, check_answer
from ledgers import OLD, opened
from secret_ledger import (
    LedgerError,
    SecretDestroyed,
    SecretLedger,
    SecretNotFound,
    SecretVersion,
    TamperedEvent,
)

FAR = 10_000_000_000
"""Microseconds, nearly three hours: more than any test takes."""


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[SecretLedger]:
    async with opened(database_url, OLD, projections=()) as one:
        yield one


async def said(ledger: SecretLedger, name: str, **what: object) -> object:
    """The value as text, or the kind of the error."""
    try:
        got: SecretVersion = await ledger.get(name, **what)  # type: ignore[arg-type]
    except LedgerError as error:
        return type(error)
    return got.value.reveal_text()


async def _names_that_only_end_in_blanks_are_one(url: str) -> None:
    """The column of the names gets a type or a collation that takes no notice of them."""
    async with attacking(url) as attacker:
        if not url.startswith("sqlite"):
            await attacker.sql("ALTER TABLE secret_event ALTER COLUMN stream TYPE bpchar")
            return
        await attacker.sql("PRAGMA writable_schema = ON")
        await attacker.sql(
            "UPDATE sqlite_master SET sql = replace(sql, 'stream          TEXT',"
            " 'stream TEXT COLLATE RTRIM') WHERE name = 'secret_event'"
        )
        await attacker.sql("PRAGMA writable_schema = RESET")
    async with attacking(url) as attacker:
        await attacker.sql("REINDEX")


async def test_a_name_that_the_database_takes_for_another_gives_no_value_of_it(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await ledger.put("alpha", "the value of alpha")
    await _names_that_only_end_in_blanks_are_one(database_url)
    async with opened(database_url, OLD, projections=(), verify="control") as ledger:
        assert await said(ledger, "alpha") == "the value of alpha"
        assert await said(ledger, "alpha ") is TamperedEvent
        # These compare as TEXT, so PostgreSQL's bpchar finds nothing, which is the truth.
        older = TamperedEvent if database_url.startswith("sqlite") else SecretNotFound
        assert await said(ledger, "alpha ", version=1) is older
        assert await said(ledger, "alpha ", at=datetime.now(UTC)) is older


def test_an_answer_is_of_the_secret_version_and_generation_that_were_asked_for() -> None:
    event = Event(
        0, 3, "alpha", 2, "secret.written", "k", b"", 1000, "{}", b"", b"", b""
    )  # fmt: skip
    check_answer(folded(GENESIS), event, "alpha")
    check_answer(folded(GENESIS), event, "alpha", 2)
    for control, stream, version in (
        (folded(GENESIS), "beta", None),
        (folded(GENESIS), "alpha", 1),
        (folded(MIGRATED), "alpha", 2),
    ):
        with pytest.raises(TamperedEvent, match="alpha version 2 at position 3"):
            check_answer(control, event, stream, version)


# --- the time of a version ---------------------------------------------------------------


async def _three_versions(ledger: SecretLedger, attacker: Attacker) -> list[datetime]:
    """Times at which versions 1 to 3 were the latest; each is authentic, and far apart."""
    times = []
    for number in (1, 2, 3):
        times.append((await ledger.put("alpha", f"value {number}")).recorded_at)
        before = datetime.now(UTC)
        while datetime.now(UTC) <= before + timedelta(microseconds=1):
            pass
    return times


@pytest.mark.parametrize("moved", [FAR, -FAR])
async def test_a_version_whose_time_was_changed_gives_no_other_version_its_time(
    database_url: str, ledger: SecretLedger, moved: int
) -> None:
    async with attacking(database_url) as attacker:
        times = await _three_versions(ledger, attacker)
        for version in (1, 2, 3):
            await attacker.sql(
                f"UPDATE secret_event SET recorded_at = recorded_at + {moved}"
                " WHERE stream = 'alpha' AND version = $1",
                version,
            )
            for number, at in enumerate(times, 1):
                assert await said(ledger, "alpha", at=at) in (f"value {number}", TamperedEvent)
            early = times[0] - timedelta(seconds=1)
            assert await said(ledger, "alpha", at=early) in (SecretNotFound, TamperedEvent)
            if version == 2 and moved > 0:
                assert await said(ledger, "alpha", at=times[1]) is TamperedEvent
            await attacker.sql(
                f"UPDATE secret_event SET recorded_at = recorded_at - {moved}"
                " WHERE stream = 'alpha' AND version = $1",
                version,
            )
        for number, at in enumerate(times, 1):
            assert await said(ledger, "alpha", at=at) == f"value {number}"


async def test_a_time_in_the_future_is_the_latest_version_while_others_write(
    ledger: SecretLedger,
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    for number in range(20):
        writing = ledger.put("alpha", f"value {number}")
        await writing
        assert await said(ledger, "alpha", at=later) == f"value {number}"


# --- the end of a secret -----------------------------------------------------------------


async def test_an_end_that_nobody_sealed_ends_nothing(
    database_url: str, ledger: SecretLedger
) -> None:
    await ledger.put("alpha", "value 1")
    await ledger.put("alpha", "value 2")
    await ledger.put("beta", "another")
    async with attacking(database_url) as attacker:
        last = (await events(attacker))[-1]
        for version, position in ((3, 7), (99, 1000), (3, 1)):
            planted = last._replace(
                stream="alpha", version=version, position=position, event_type="secret.destroyed"
            )
            if position == 1:
                await attacker.loosen("secret_event")
            await attacker.insert_rows("secret_event", [tuple(planted)])
            for number in (1, 2):
                assert await said(ledger, "alpha", version=number) is TamperedEvent
            await attacker.sql(
                "DELETE FROM secret_event WHERE stream = 'alpha' AND version = $1", version
            )
            assert await said(ledger, "alpha", version=1) == "value 1"


async def test_an_end_that_is_sealed_ends_what_was_before_it_only(
    database_url: str, ledger: SecretLedger
) -> None:
    await ledger.put("alpha", "value 1")
    await ledger.destroy("alpha", reason="over")
    await ledger.put("alpha", "value 3")
    assert await said(ledger, "alpha", version=1) is SecretDestroyed
    assert await said(ledger, "alpha", version=3) == "value 3"
    async with attacking(database_url) as attacker:
        # Put behind the version that it does not end.
        await attacker.sql(
            "UPDATE secret_event SET version = 7 WHERE event_type = 'secret.destroyed'"
        )
        assert await said(ledger, "alpha", version=3) is TamperedEvent
