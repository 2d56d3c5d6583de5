"""Re-encrypting the heads: what it changes, what it leaves alone, and how it is run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from attacker import attacking
from between import interrupted
from inside import EventType
from ledgers import NEW, OLD, THIRD, opened
from log_builder import building
from secret_ledger import (
    Incomplete,
    Key,
    MissingKey,
    Progress,
    SecretDeleted,
    SecretDestroyed,
    SecretLedger,
    StaleKey,
)


async def heads(ledger: SecretLedger) -> dict[str, tuple[str, str]]:
    return {s.name: (s.key_id, s.event_type) async for s in ledger.list(deleted=True)}


async def test_every_head_goes_under_the_active_key_and_says_what_it_said_before(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        first = await ledger.put("live", "value", actor="alice", metadata={"ticket": 7})
        await ledger.put("deleted", "x")
        tombstone = await ledger.delete("deleted", actor="bob")
        await ledger.put("destroyed", "x")
        await ledger.destroy("destroyed", reason="leaked", actor="carol")
        await ledger.rotate(NEW)
        await ledger.put("new", "1")
        done = await ledger.rekey(actor="operator")
        assert (done.rekeyed, done.already, done.skipped, done.key_id) == (3, 1, 0, "k-new")
        assert {key for key, _ in (await heads(ledger)).values()} == {"k-new"}

        got = await ledger.get("live")
        assert got.value == first.value
        assert (got.version, got.event_type) == (2, EventType.REKEYED)
        assert (got.recorded_at, got.actor, got.metadata) == (
            first.recorded_at, "alice", {"ticket": 7},
        )  # fmt: skip
        with pytest.raises(SecretDeleted):
            await ledger.get("deleted")
        with pytest.raises(SecretDestroyed):
            await ledger.get("destroyed")
        versions = [v async for v in ledger.history("deleted")]
        assert (versions[-1].recorded_at, versions[-1].actor) == (tombstone.recorded_at, "bob")
        assert (await ledger.verify("full")).ok
    async with opened(database_url, NEW) as ledger:  # the old key is not needed for any head
        assert (await ledger.get("live")).value == first.value


async def test_a_rekeyed_secret_is_the_version_that_its_reader_saw(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        seen = await ledger.put("a", "1")
        await ledger.rotate(NEW)
        await ledger.rekey()
        await ledger.rotate(THIRD)
        await ledger.rekey()
        assert (await ledger.get("a")).version == 3
        assert (await ledger.get("a")).recorded_at == seen.recorded_at
        assert (await ledger.put("a", "2", expect=seen.version)).version == 4


async def test_deleted_secrets_are_restored_after_a_rekey(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.delete("a")
        await ledger.rotate(NEW)
        await ledger.rekey()
        await ledger.restore("a")
        assert (await ledger.get("a")).value.reveal() == b"1"


async def test_running_it_again_finds_nothing_to_do(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({f"s/{n}": "x" for n in range(20)})
        await ledger.rotate(NEW)
        assert (await ledger.rekey()).rekeyed == 20
        position = ledger.position
        again = await ledger.rekey()
        assert (again.rekeyed, again.already, again.ok) == (0, 20, True)
        assert ledger.position == position


async def test_a_damaged_head_is_skipped_and_named_and_the_rest_goes_on(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await ledger.put_many({name: name for name in ("a", "b", "c")})
        await attacker.sql("UPDATE secret_event SET metadata = '{\"a\":1}' WHERE stream = 'b'")
        await ledger.rotate(NEW)
        done = await ledger.rekey()
        assert (done.rekeyed, done.skipped, done.ok) == (2, 1, False)
        (finding,) = done.findings
        assert (finding.stream, finding.kind, finding.position) == ("b", "tampered", 5)
        with pytest.raises(Incomplete, match="the first is b, at position 5"):
            done.raise_if_not_ok()
        assert {n: k for n, (k, _) in (await heads(ledger)).items()} == {
            "a": "k-new", "b": "k-old", "c": "k-new",
        }  # fmt: skip
        await ledger.destroy("b", reason="damaged")
        assert (await ledger.rekey()).ok


async def test_a_head_whose_key_is_not_held_is_skipped_and_not_passed_over_as_done(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.rotate(NEW)
        await ledger.put("b", "2")
        await ledger.rotate(THIRD)
    async with opened(database_url, THIRD, NEW, verify="control") as ledger:
        done = await ledger.rekey()
        assert (done.rekeyed, done.skipped) == (1, 1)
        (finding,) = done.findings
        assert (finding.stream, finding.kind, finding.key_id) == ("a", "missing_key", "k-old")
    async with opened(database_url, THIRD, OLD) as ledger:
        assert (await ledger.rekey()).rekeyed == 1


async def test_the_end_of_a_secret_that_went_with_its_key_is_sealed_again(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        await log.put("gone", b"1")
        await log.rotate(NEW)
        await log.put("here", b"2")
        await log.lose(OLD)
        await log.rotate(THIRD)
    async with opened(database_url, THIRD, NEW) as ledger:
        done = await ledger.rekey()
        assert (done.rekeyed, done.ok) == (2, True)
        with pytest.raises(SecretDestroyed, match=r"its key k-old is lost"):
            await ledger.get("gone")


async def test_writers_go_on_while_heads_are_sealed_again(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for start in range(0, 1500, 500):
            await ledger.put_many({f"s/{n:04}": f"old {n}" for n in range(start, start + 500)})
        await ledger.rotate(NEW)
        written: set[str] = set()

        async def write(step: int) -> None:
            for n in range(step, 1500, 150):
                await ledger.put(f"s/{n:04}", f"new {n}")
                written.add(f"s/{n:04}")

        told: list[Progress] = []
        async with asyncio.TaskGroup() as group:
            rekeying = group.create_task(ledger.rekey(on_progress=told.append))
            for step in (3, 77, 140):
                group.create_task(write(step))
        assert rekeying.result().ok
        assert told[-1] == Progress(1500, 1500)
        assert [one.done for one in told] == sorted(one.done for one in told)
        assert {key for key, _ in (await heads(ledger)).values()} == {"k-new"}
        for n in (0, 3, 77, 140, 153, 1499):
            name = f"s/{n:04}"
            expected = f"new {n}" if name in written else f"old {n}"
            assert (await ledger.get(name)).value.reveal_text() == expected
        assert (await ledger.verify("full")).ok


async def test_a_head_that_is_written_at_any_step_is_left_alone_and_not_passed_over(
    database_url: str, more_databases: Callable[[], str]
) -> None:
    step, wrote = 0, True
    while wrote:
        step, wrote = step + 1, False
        async with opened(more_databases(), OLD) as ledger:
            await ledger.put_many({f"s/{n}": "old" for n in range(6)})
            await ledger.rotate(NEW)

            async def write(ledger: SecretLedger = ledger) -> None:
                nonlocal wrote
                wrote = True
                await ledger.delete("s/1")
                await ledger.put_many({"s/4": "new", "s/9": "new"})

            async with interrupted(ledger, step, write):
                done = await ledger.rekey()
            assert done.ok
            assert done.rekeyed + done.already >= 6
            assert {key for key, _ in (await heads(ledger)).values()} == {"k-new"}
            if wrote:
                with pytest.raises(SecretDeleted):
                    await ledger.get("s/1")
                assert (await ledger.get("s/4")).value.reveal() == b"new"
            assert (await ledger.get("s/5")).value.reveal() == b"old"
            assert (await ledger.verify("full")).ok
    assert step > 4


@pytest.mark.parametrize(("active", "key_id"), [(THIRD, "k-third"), (NEW, "k-new")])
async def test_a_rotation_or_a_migration_at_any_step_is_followed(
    more_databases: Callable[[], str], active: Key, key_id: str
) -> None:
    step, happened = 0, True
    while happened:
        step, happened, url = step + 1, False, more_databases()
        async with opened(url, OLD) as ledger:
            await ledger.put_many({f"s/{n}": "old" for n in range(6)})
            await ledger.rotate(NEW)

        async def meanwhile(url: str = url) -> None:
            nonlocal happened
            happened = True
            async with opened(url, active, NEW, OLD, node="another") as other:
                await (other.rotate() if active is THIRD else other.migrate())

        async with opened(url, NEW, OLD, THIRD) as ledger:
            async with interrupted(ledger, step, meanwhile):
                done = await ledger.rekey()
            assert (done.key_id, done.ok) == (key_id if happened else "k-new", True)
            # Whatever came in between, each secret was sealed by this run or lay there already.
            assert done.rekeyed + done.already == 6
            assert 0 <= done.rekeyed <= 6
            assert active is NEW or done.rekeyed == 6
            assert {key for key, _ in (await heads(ledger)).values()} == {done.key_id}
            assert (await ledger.get("s/5")).value.reveal() == b"old"
            assert (await ledger.verify("full")).ok
    assert step > 4


async def test_a_stale_node_seals_nothing_again(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as stale:
        await stale.put("a", "1")
        await log.rotate(NEW)
        with pytest.raises(StaleKey):
            await stale.rekey()


async def test_opening_without_a_historical_key_says_how_much_is_out_of_reach(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({"a": "1", "b": "2"})
        await ledger.put("a", "3")
        await ledger.rotate(NEW)
        await ledger.rekey()
    async with opened(database_url, NEW) as ledger:
        (warning,) = [w for w in ledger.warnings if "keyring" in w]
        assert warning.startswith("3 versions lie under k-old (")
        assert (await ledger.get("a")).value.reveal() == b"3"
        with pytest.raises(MissingKey) as caught:
            await ledger.get("a", version=1)
        assert caught.value.details["key_id"] == "k-old"
    async with opened(database_url, NEW, OLD) as ledger:
        assert not [w for w in ledger.warnings if "keyring" in w]
        await ledger.migrate()
    async with opened(database_url, NEW) as ledger:
        assert not [w for w in ledger.warnings if "keyring" in w]
