"""A projection that fails: the error names it and where, and nobody else pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, MetaData, Table, Text

from attacker import attacking
from inside import Folded, checkpoint
from ledgers import OLD, opened
from log_builder import building
from secret_ledger import Event, InvalidValue, LedgerError, LedgerUnavailable, ProjectionFailed
from secret_ledger_projections import (
    Inline,
    SysSecret,
    catch_up,
    check,
    default,
    install,
    lag,
    rebuild,
)


def table(name: str, schema: str | None = None) -> Table:
    return Table(
        name,
        MetaData(schema=schema),
        Column("generation", Integer, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("writes", BigInteger, nullable=False),
    )


class Counted:
    """How many events each secret has; a secret called "poison" is more than it can take."""

    def __init__(self, name: str = "counted", its_table: Table | None = None) -> None:
        self.name = name
        self.table = table("counted") if its_table is None else its_table

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
        if event.stream == "poison":
            raise ZeroDivisionError("of its own")
        return {"writes": (row["writes"] if row else 0) + 1}


@pytest.mark.parametrize("alone", [True, False])
async def test_a_fold_that_fails_is_named_with_its_position_and_refuses_one_caller_alone(
    database_url: str, alone: bool
) -> None:
    kept = [Inline(Counted())] if alone else [*default(), Inline(Counted())]
    async with opened(database_url, OLD, projections=kept) as ledger:
        before = (await ledger.put("a", "1")).position
        with pytest.raises(ProjectionFailed) as caught:
            await ledger.put("poison", "1")
        expected = f"projection counted, at position {before + 1} (version 1 of poison)"
        assert caught.value.message == f"{expected}: ZeroDivisionError('of its own')"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert not caught.value.outcome_unknown
        outcomes = await asyncio.gather(
            *(ledger.put(name, "2") for name in ("a", "poison", "b")), return_exceptions=True
        )
        assert [isinstance(o, ProjectionFailed) for o in outcomes] == [False, True, False]
        assert ledger.position == before + 2
        assert (await ledger.verify("full")).ok
        assert (await ledger.health()).ready


class HostsOwnError(LedgerError):
    """Made from something else than ours are."""

    def __init__(self, event: Event) -> None:
        super().__init__(f"not {event.stream}")


async def test_a_fold_s_own_ledger_error_is_told_to_its_caller_and_to_nobody_else(
    database_url: str,
) -> None:
    class Picky(Counted):
        def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any] | None:
            if event.stream == "poison":
                raise HostsOwnError(event)
            return super().fold(row, event)

    async with opened(database_url, OLD, projections=[*default(), Inline(Picky())]) as ledger:
        with pytest.raises(ProjectionFailed, match="not poison") as caught:
            await asyncio.wait_for(ledger.put("poison", "1"), 30)
        assert isinstance(caught.value.__cause__, HostsOwnError)
        outcomes = await asyncio.wait_for(
            asyncio.gather(
                *(ledger.put(name, "2") for name in ("a", "poison", "b")), return_exceptions=True
            ),
            30,
        )
        assert [isinstance(o, ProjectionFailed) for o in outcomes] == [False, True, False]


async def test_what_stays_as_the_first_event_gave_it_is_no_column_of_another_table(
    database_url: str,
) -> None:
    class Misspelt(Counted):
        first_values = ("writes", "creatd_at")

    unknown = "first values for columns that it does not have: creatd_at"
    with pytest.raises(InvalidValue, match=unknown):
        async with opened(database_url, OLD, projections=[*default(), Inline(Misspelt())]):
            pass


async def test_a_fold_that_fails_on_what_is_there_is_named_by_whatever_meets_it(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        position = (await ledger.put("poison", "1")).position
        database = ledger.database
        await install(database, Counted())
        await database.run(lambda c: checkpoint.begin(c, database, "counted", 0), "write")
        await database.run(
            lambda c: checkpoint.advance(c, database, "counted", 0, 0, position), "write"
        )
        expected = f"projection counted, at position {position} "
        with pytest.raises(ProjectionFailed, match=expected.replace("(", r"\(")):
            _ = [one async for one in check(database, Counted())]
        with pytest.raises(ProjectionFailed, match=expected):
            await rebuild(database, Counted())
        await database.run(lambda c: checkpoint.forget(c, database, "counted", 0), "write")
        with pytest.raises(ProjectionFailed, match=expected):
            await catch_up(database, Counted())
        assert await lag(database, Counted()) == position
    with pytest.raises(ProjectionFailed, match=expected):
        async with opened(database_url, OLD, projections=[*default(), Inline(Counted())]):
            pass


@pytest.mark.parametrize("alone", [True, False])
async def test_a_table_that_went_away_is_named_by_its_projection(
    database_url: str, alone: bool
) -> None:
    kept = [Inline(Counted())] if alone else [*default(), Inline(Counted())]
    async with (
        building(database_url, OLD) as log,
        opened(database_url, OLD, projections=kept) as ledger,
    ):
        await ledger.put("a", "1")
        await log.execute("DROP TABLE {s}counted")
        for name in ("a", "b"):
            with pytest.raises(LedgerUnavailable, match="projection counted, ") as caught:
                await ledger.put(name, "2")
            assert "position" in caught.value.message or "newest events" in caught.value.message
            assert not caught.value.outcome_unknown
        health = await ledger.health()
        assert health.ready
        (finding,) = (await ledger.verify("full")).findings
        assert finding.reason == (
            f"counted: its table is gone; it was folded up to position {ledger.position}"
        )
        with pytest.raises(LedgerUnavailable, match="projection counted"):
            _ = [one async for one in check(ledger.database, Counted())]
        await Inline(Counted()).catch_up(ledger.database)  # made anew, and what it lacks is found
        await rebuild(ledger.database, Counted())
        assert (await ledger.verify("full")).ok


async def test_a_table_that_the_database_does_not_make_is_named_by_its_projection(
    database_url: str,
) -> None:
    its_table = table("counted")
    its_table.append_constraint(CheckConstraint("nowhere > 0"))
    expected = "projection counted, table counted: the database refused the statement"
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(LedgerUnavailable, match=expected):
            await install(ledger.database, Counted(its_table=its_table))
    with pytest.raises(LedgerUnavailable, match=expected):
        async with opened(database_url, OLD, projections=[Inline(Counted(its_table=its_table))]):
            pass


async def test_a_table_that_is_another_is_named_by_its_projection_and_positions(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await ledger.put("a", "1")
        await install(ledger.database, Counted())
        await attacker.sql("ALTER TABLE counted RENAME COLUMN writes TO written")
        expected = f"projection counted, at positions 1 to {ledger.position}: the database refused"
        with pytest.raises(LedgerUnavailable, match=expected):
            await catch_up(ledger.database, Counted())


async def test_a_projection_that_was_never_made_is_behind_and_no_damage(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    kept = [*default(), Inline(Counted())]
    async with opened(database_url, OLD, projections=kept, read_only=True, verify="full") as ledger:
        report = await ledger.verify("full")
        assert report.ok
        assert report.warnings[0].startswith("counted is ")
        assert (await ledger.health()).ready


async def test_a_projection_that_is_no_inline_one_of_ours_is_named_too(database_url: str) -> None:
    class Own:
        name = "own"

        def apply(self, *_: object) -> None:
            raise KeyError("x")

        async def catch_up(self, _: object) -> int:
            return 0

    async with opened(database_url, OLD, projections=[*default(), Own()]) as ledger:
        with pytest.raises(ProjectionFailed, match=r"projection own, at position \d+: KeyError"):
            await ledger.put("a", "1")
        with pytest.raises(ProjectionFailed, match=r"projection own, at positions \d+ to \d+"):
            await ledger.put_many({"a": "1", "b": "1"})


async def test_a_projection_that_fails_before_the_events_are_written_is_named_too(
    database_url: str,
) -> None:
    class Own(Inline):
        def folded(self, *_: object) -> Folded | None:
            raise KeyError("x")

    async with opened(database_url, OLD, projections=[Own(Counted()), *default()]) as ledger:
        place = f"position {ledger.position + 1} or after it"
        with pytest.raises(ProjectionFailed, match=f"projection counted, at {place}: KeyError"):
            await ledger.put("a", "1")


OURS = ("secret_event", "sys_secret", "secret_current", "ledger_head", "Projection_Checkpoint")


@pytest.mark.parametrize("name", OURS)
async def test_a_table_of_the_ledger_s_own_is_no_projection_s(database_url: str, name: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        schemas = [None, ledger.database.schema or "main"]
        for schema in schemas:
            mine = Counted(its_table=table(name, schema))
            calls: list[Any] = [install, catch_up, rebuild]
            for call in calls:
                with pytest.raises(InvalidValue, match="a table of the ledger's own"):
                    await call(ledger.database, mine)
        assert (await ledger.verify("full")).ok
    with pytest.raises(InvalidValue, match="a table of the ledger's own"):
        async with opened(database_url, OLD, projections=[Inline(Counted(its_table=table(name)))]):
            pass


async def test_a_name_that_is_taken_is_no_projection_s(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(InvalidValue, match="share its checkpoint"):
            await catch_up(ledger.database, Counted("sys_secret"))
        await catch_up(ledger.database, SysSecret())
    twice = [Inline(Counted()), Inline(Counted(its_table=table("other")))]
    with pytest.raises(InvalidValue, match="two projections are called counted"):
        async with opened(database_url, OLD, projections=twice):
            pass
    assert issubclass(ProjectionFailed, LedgerError)
