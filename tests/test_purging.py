"""Purging: what is deleted, who may run at once, and what a head row's word is worth."""

from __future__ import annotations

import asyncio

import pytest

from attacker import attacking
from doomed import do
from histories import fill
from independent_fold import read_rows
from inside import emptying
from ledgers import NEW, OLD, THIRD, opened
from moves import states
from secret_ledger import KeyInUse, Progress, SecretLedger


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "BATCH", 5)


async def migrated(ledger: SecretLedger) -> None:
    await fill(ledger)
    await ledger.rotate(NEW)
    await ledger.migrate()


async def left(url: str, generation: int) -> int:
    found = await read_rows(
        url,
        f"SELECT (SELECT count(*) FROM secret_event WHERE generation = {generation})"  # noqa: S608  # a number
        f" + (SELECT count(*) FROM secret_current WHERE generation = {generation})",
    )
    return int(found[0][0])


@pytest.mark.usefixtures("small_batches")
async def test_of_purges_at_once_each_goes_on_until_nothing_is_left(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        end = ledger.position
        async with (
            opened(database_url, NEW, OLD, node="second") as second,
            opened(database_url, NEW, OLD, node="third") as third,
        ):
            done = await asyncio.gather(
                *(each.purge_generation(0) for each in (ledger, second, third))
            )
        assert sum(report.deleted for report in done) == end
        assert await left(database_url, 0) == 0
        assert await states(database_url) == [(0, "purged"), (1, "active")]
        assert [e.generation for e in await ledger.generations() if e.state == "purged"] == [0]
        assert (await ledger.retire("k-old")).changed
    async with opened(database_url, NEW, verify="full") as ledger:
        assert await said(database_url, "generation.purged") == 1


async def said(url: str, event_type: str) -> int:
    query = f"SELECT count(*) FROM secret_event WHERE event_type = '{event_type}'"  # noqa: S608  # ours
    return int((await read_rows(url, query))[0][0])


@pytest.mark.usefixtures("small_batches")
async def test_of_two_that_throw_a_half_made_generation_away_at_once_both_leave_nothing(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await half_made(ledger)
        async with opened(database_url, NEW, OLD, node="second") as second:
            await asyncio.gather(ledger.abandon_migration(), second.abandon_migration())
        assert await left(database_url, 1) == 0
        assert await states(database_url) == [(0, "active"), (1, "purged")]
        assert (await ledger.verify("full")).ok


async def half_made(ledger: SecretLedger) -> None:
    await fill(ledger)
    await ledger.rotate(NEW)
    await do(ledger, "begin")


async def test_a_generation_that_says_purged_and_has_rows_is_named_and_purged_again(
    database_url: str,
) -> None:
    """As a release left it whose purges ran twice at once."""
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        async with attacking(database_url) as attacker:
            rows = await attacker.sql(
                "SELECT * FROM secret_event WHERE generation = 0 ORDER BY position"
            )
            await ledger.purge_generation(0)
            await attacker.insert_rows("secret_event", rows[:7])
        assert [f.generation for f in (await ledger.verify("full")).findings] == [0]
        with pytest.raises(KeyInUse, match=r"7 events of generation 0 \(purged\)") as caught:
            await ledger.retire("k-old")
        assert caught.value.hint == "first: secret-ledger generations purge 0"
        healed = await ledger.purge_generation(0)
        assert (healed.changed, healed.deleted) == (True, 7)
        assert await left(database_url, 0) == 0
        assert await said(database_url, "generation.purged") == 1
        assert not (await ledger.purge_generation(0)).changed
        assert (await ledger.retire("k-old")).changed
    async with opened(database_url, NEW, verify="full"):
        pass


@pytest.mark.parametrize("state", ["purged", "purging"])
async def test_a_closed_generation_is_certified_before_it_is_deleted_whatever_its_head_row_says(
    database_url: str, state: str
) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        end = ledger.position
        async with attacking(database_url) as attacker:
            await attacker.sql(
                f"UPDATE ledger_head SET state = '{state}', position = 0 WHERE generation = 0"  # noqa: S608  # ours
            )
        done = await ledger.purge_generation(0)
        assert (done.changed, done.deleted) == (True, end)
        (metadata,) = await read_rows(
            database_url,
            "SELECT metadata FROM secret_event WHERE event_type = 'generation.purged'",
        )
        assert f'"position":{end}' in str(metadata[0])


async def test_what_reads_the_whole_log_before_a_key_ends_tells_how_far_it_has_got(
    database_url: str,
) -> None:
    told: list[Progress] = []
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        await ledger.purge_generation(0, on_progress=told.append)
        purged, told[:] = list(told), []
        assert (await ledger.retire("k-old", on_progress=told.append)).changed
        retired, told[:] = list(told), []
        await ledger.rotate(THIRD)
    async with opened(database_url, THIRD, verify="control") as ledger:
        await ledger.lost("k-new", reason="test", on_progress=told.append)
    for each in (purged, retired, told):
        steps = [progress.done for progress in each]
        assert steps == sorted(steps)
        assert each[-1].done == each[-1].total > 0
