"""Migration: the whole history under the active key, beside writers, proven, resumed."""

from __future__ import annotations

import asyncio

import pytest

from attacker import attacking
from doomed import Enough
from histories import facts, fill
from inside import BULK
from ledgers import NEW, OLD, THIRD, opened
from log_builder import building
from secret_ledger import (
    KeyInUse,
    KeyReused,
    MigrationInProgress,
    MissingKey,
    NodeNotReady,
    SecretDeleted,
    SecretDestroyed,
    TamperedEvent,
)


async def test_the_history_is_the_same_under_the_new_key_and_the_old_one_is_not_needed(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await fill(ledger)
    async with opened(database_url, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("after", "the rotation")
        before, end = await facts(ledger), ledger.position
        done = await ledger.migrate(actor="alice")
        assert (done.changed, done.generation, done.replaced) == (True, 1, 0)
        assert (done.copied, done.purged) == (end, 2)
        assert ledger.position == end + 1
        assert await facts(ledger) == before
        assert (await ledger.verify("full")).ok
        assert (await ledger.put("often", "value 3")).position == end + 2
    async with opened(database_url, NEW, verify="full") as ledger:
        assert (await ledger.get("often", version=1)).value.reveal() == b"value 0"
        assert (await ledger.get("often")).value.reveal() == b"value 3"
        assert (await ledger.get("back")).value.reveal() == b"here again"
        assert (await ledger.get("anew")).value.reveal() == b"second"
        assert (await ledger.get("large")).value.reveal() == b"large " * 20_000
        with pytest.raises(SecretDeleted):
            await ledger.get("deleted")
        for name in ("ended", "anew"):
            with pytest.raises(SecretDestroyed):
                await ledger.get(name, version=1)


async def test_a_pending_key_is_rotated_to_first(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, NEW, OLD) as ledger:
        async with opened(database_url, OLD, node="behind"):
            with pytest.raises(NodeNotReady, match="behind"):
                await ledger.migrate()
        done = await ledger.migrate()
        assert (done.changed, done.key_id) == (True, "k-new")
        assert {info.key_id async for info in ledger.history("a")} == {"k-new"}


async def test_running_it_again_finds_nothing_to_do(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await fill(ledger)
        assert not (await ledger.migrate()).changed  # a first key: all lies under it
        await ledger.rotate(NEW)
        assert (await ledger.migrate()).changed
        position = ledger.position
        again = await ledger.migrate()
        assert (again.changed, again.generation, again.replaced) == (False, 1, None)
        assert ledger.position == position
        await ledger.rotate(THIRD)
        assert (await ledger.migrate()).generation == 2
        assert (await ledger.verify("full")).ok


async def test_a_superseded_current_key_is_refused(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.rotate(NEW)
    async with opened(database_url, OLD, NEW) as ledger:
        with pytest.raises(KeyReused, match="k-old is not the active one"):
            await ledger.migrate()


async def test_writers_and_readers_go_on_and_see_no_stale_or_missing_value(
    database_url: str,
) -> None:
    async with (
        opened(database_url, NEW, OLD, node="writer") as writer,
        opened(database_url, NEW, OLD, node="reader") as reader,
        opened(database_url, NEW, OLD, node="migrator") as migrator,
    ):
        await fill(migrator)
        await migrator.put_many({f"bulk/{n:04}": "x" for n in range(1500)})
        await migrator.rotate(THIRD, force_reason="they follow below")
    keys = (THIRD, NEW, OLD)
    async with (
        opened(database_url, *keys, node="writer") as writer,
        opened(database_url, *keys, node="reader") as reader,
        opened(database_url, *keys, node="migrator") as migrator,
    ):
        acknowledged = 0
        stop = False
        await writer.put("counter", "0")

        async def write() -> None:
            nonlocal acknowledged
            while not stop:
                await writer.put("counter", str(acknowledged + 1))
                acknowledged += 1

        async def read() -> None:
            while not stop:
                least = acknowledged
                assert int((await reader.get("counter")).value.reveal_text()) >= least
                assert (await reader.get("often", version=1)).value.reveal() == b"value 0"

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(write()), group.create_task(read())]
            done = await migrator.migrate()
            least = acknowledged + 20
            while acknowledged < least and not any(t.done() for t in tasks):  # noqa: ASYNC110
                await asyncio.sleep(0)  # a while longer, in the new generation
            stop = True
        assert done.changed
        assert (await reader.get("counter")).key_id == "k-third"
        versions = [v.version async for v in reader.history("counter")]
        assert versions == list(range(1, acknowledged + 2))
        assert (await reader.verify("full")).ok


async def test_a_damaged_event_stops_it_with_the_list_and_nothing_is_put_in_use(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await fill(ledger)
        for version, stream in ((1, "often"), (1, "many/7")):
            await attacker.sql(
                "UPDATE secret_event SET metadata = '{\"a\":1}' WHERE stream = $1 AND version = $2",
                stream,
                version,
            )
        await ledger.rotate(NEW)
        with pytest.raises(TamperedEvent, match="2 damaged: often version 1"):
            await ledger.migrate()
        assert (await ledger.get("many/8")).key_id == "k-old"
        await ledger.destroy("often", reason="damaged")
        await ledger.destroy("many/7", reason="damaged")
        assert (await ledger.migrate()).changed  # their ends state the damage as it was found
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def test_a_damaged_head_that_was_destroyed_is_carried_without_its_data(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await fill(ledger)
        await attacker.sql("UPDATE secret_event SET metadata = '{\"a\":1}' WHERE stream = 'many/7'")
        await ledger.destroy("many/7", reason="damaged")
        await ledger.rotate(NEW)
        done = await ledger.migrate()
        assert done.purged == 3
        with pytest.raises(SecretDestroyed):
            await ledger.get("many/7", version=1)
        report = await ledger.verify("full")
        assert report.ok, report.findings
    async with opened(database_url, NEW, verify="latest") as ledger:
        assert (await ledger.get("many/8")).value.reveal() == b"many 8"


async def test_what_lies_under_a_lost_key_is_carried_without_its_data(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("gone", b"1")
        await log.put("kept", b"1")
        await log.put("tomb", b"1")
        await log.delete("tomb")
        await log.rotate(NEW)
        await log.put("kept", b"2")
        await log.lose(OLD)
        await log.rotate(THIRD)
    async with opened(database_url, THIRD, NEW) as ledger:
        done = await ledger.migrate()
        assert done.purged == 4
        assert (await ledger.verify("full")).ok
    async with opened(database_url, THIRD, verify="full") as ledger:
        assert (await ledger.get("kept")).value.reveal() == b"2"
        for name in ("gone", "tomb"):
            with pytest.raises(SecretDestroyed):
                await ledger.get(name, version=1)
        with pytest.raises(SecretDestroyed, match="its key k-old is lost"):
            await ledger.get("tomb")


async def test_no_rotation_and_no_second_migrator_while_one_is_under_way(
    database_url: str,
) -> None:
    async with (
        opened(database_url, NEW, OLD, THIRD, node="one") as one,
        opened(database_url, NEW, OLD, THIRD, node="two") as two,
    ):
        await fill(one)
    async with opened(database_url, NEW, OLD, THIRD) as ledger:
        await ledger.rotate(OLD)
    keys = (OLD, NEW, THIRD)
    async with (
        opened(database_url, *keys, node="one") as one,
        opened(database_url, *keys, node="two") as two,
    ):
        await one.put_many({f"bulk/{n:04}": "x" for n in range(1200)})
        outcomes = await asyncio.gather(one.migrate(), two.migrate(), return_exceptions=True)
        refused = [o for o in outcomes if isinstance(o, BaseException)]
        assert all(isinstance(o, MigrationInProgress) for o in refused), refused
        done = [o for o in outcomes if not isinstance(o, BaseException)]
        assert [d.generation for d in done] == [1] * len(done)
        assert done
        assert (await two.verify("full")).ok


async def test_a_stream_that_goes_on_over_many_pages_keeps_its_chain(database_url: str) -> None:
    batch = BULK // 10
    async with opened(database_url, OLD) as ledger:
        for n in range(32):  # each page has some versions of one, every third page of another
            more = {"often": f"{n}"} if n // 10 != 1 else {}
            bulk = {f"bulk/{n}/{k}": "x" for k in range(batch - 2)}
            await ledger.put_many({**bulk, **more, "always": f"{n}"})
        await ledger.rotate(NEW)
        assert (await ledger.migrate()).copied > 3 * BULK
        (await ledger.verify("full")).raise_if_not_ok()
        assert (await ledger.get("always")).version == 32
        assert (await ledger.get("often", version=11)).value.reveal() == b"20"


def stop(_: object) -> None:
    raise Enough


async def test_a_half_built_generation_is_gone_on_with_or_thrown_away(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await fill(ledger)
        await ledger.put_many({f"bulk/{n:04}": "x" for n in range(2 * BULK)})
        await ledger.rotate(NEW)
        for _ in range(2):
            with pytest.raises(Enough):
                await ledger.migrate(on_progress=stop)
        building_one = [g for g in await ledger.generations() if g.state == "building"]
        assert [(g.generation, g.position) for g in building_one] == [(1, BULK)]
        with pytest.raises(MigrationInProgress):
            await ledger.rotate(THIRD)
        abandoned = await ledger.abandon_migration()
        assert (abandoned.changed, abandoned.generation, abandoned.deleted) == (True, 1, BULK)
        assert not (await ledger.abandon_migration()).changed
        assert (await ledger.verify("full")).ok
        with pytest.raises(Enough):
            await ledger.migrate(on_progress=stop)
        done = await ledger.migrate()  # goes on: half of it was copied
        assert (done.generation, done.copied) == (2, ledger.position - 1 - BULK)
        assert (await ledger.verify("full")).ok
        assert [g.state for g in await ledger.generations()] == ["closed", "purged", "active"]


async def test_what_an_earlier_run_copied_under_a_key_that_is_dropped_by_now_is_no_tampering(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.rotate(NEW)
        await ledger.rekey()
        with pytest.raises(Enough):
            await ledger.migrate(on_progress=stop)
    async with opened(database_url, NEW) as ledger:
        with pytest.raises(MissingKey) as caught:
            await ledger.migrate()
        assert caught.value.details["key_ids"] == ["k-old"]
    async with opened(database_url, NEW, OLD) as ledger:
        assert (await ledger.migrate()).changed
    async with opened(database_url, NEW, verify="full") as ledger:
        assert (await ledger.get("a", version=1)).value.reveal() == b"1"


async def test_an_edit_of_the_new_generation_is_found_before_it_is_put_in_use(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await fill(ledger)
        await ledger.put_many({f"bulk/{n:04}": "x" for n in range(1200)})
        await ledger.rotate(NEW)
        with pytest.raises(Enough):
            await ledger.migrate(on_progress=stop)
        # A row of another version, sealed and chained as it should be, in the wrong place.
        await attacker.sql(
            "UPDATE secret_event SET recorded_at = recorded_at + 1"
            " WHERE generation = 1 AND position = 100"
        )
        with pytest.raises(TamperedEvent, match="generation 1 differs from its originals"):
            await ledger.migrate()
        assert (await ledger.get("often")).key_id == "k-old"
        await ledger.abandon_migration()
        assert (await ledger.migrate()).changed


async def test_purging_the_old_generation_and_retiring_its_key_ends_the_need_for_it(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await fill(ledger)
        await ledger.rotate(NEW)
        with pytest.raises(KeyInUse, match="generation 0") as caught:
            await ledger.retire("k-old")
        assert "secret-ledger migrate" in caught.value.hint
        await ledger.migrate()
        with pytest.raises(KeyInUse, match=r"generation 0 \(closed\)") as caught:
            await ledger.retire("k-old")
        assert caught.value.hint == "first: secret-ledger generations purge 0"
        done = await ledger.purge_generation(0, actor="alice")
        assert done.changed
        assert done.deleted == ledger.position - 1  # all but generation.purged itself
        assert not (await ledger.purge_generation(0)).changed
        retired = await ledger.retire("k-old", actor="alice")
        assert (retired.changed, retired.secrets) == (True, 0)
        assert sum(use.events for use in retired.uses) == 0
        assert not (await ledger.retire("k-old")).changed
        assert (await ledger.verify("full")).ok
        states = {s.key_id: s.state for s in await ledger.key_status()}
        assert states == {"k-old": "retired", "k-new": "active"}
    async with opened(database_url, NEW, verify="full") as ledger:
        assert (await ledger.get("often", version=1)).value.reveal() == b"value 0"
