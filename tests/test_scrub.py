"""The scrub behind an incremental boot: it goes over the rest, says what it found, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from attacker import attacking
from between import interrupted
from inside import Event, EventType, Scan, readiness
from ledgers import NEW, OLD, opened, rows
from log_builder import building
from log_rows import Entry
from postgresql_server import PostgresServer
from secret_ledger import SecretLedger
from test_incremental import attestations, attested_position
from waiting import until

MANY = 1200
"""More than two pages."""


@pytest.fixture
async def attested(database_url: str) -> str:
    await build(database_url)
    return database_url


async def build(url: str) -> None:
    async with building(url, OLD) as log:
        await log.append(*(Entry(f"n/{n:04}", EventType.WRITTEN, b"1") for n in range(MANY)))
    async with opened(url, OLD):
        pass


def incremental(url: str, *keys: Any, **options: Any) -> Any:
    return opened(url, *(keys or (OLD,)), verify="incremental", **options)


async def scrubbed(ledger: SecretLedger) -> None:
    """Return once the scrub has ended, in whatever. Asks the database nothing."""

    async def ended() -> bool:
        return ledger._prover.verified.report.level == "latest"

    await until(ended)


async def test_it_ends_in_health_and_in_a_new_attestation(attested: str) -> None:
    before = await attestations(attested)

    async def attested_anew() -> bool:
        return await attestations(attested) != before

    async with incremental(attested, scrub_rate=1e9) as ledger:
        assert ledger._prover.verified.report.level == "incremental"
        await scrubbed(ledger)
        assert ledger._prover.verified.report.heads == MANY
        assert (await ledger.health()).state == "ready"
        await until(attested_anew)


async def test_damage_that_it_finds_turns_the_node_unready_and_is_logged(
    attested: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def damage() -> None:
        async with attacking(attested) as attacker:
            await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'n/0700'")

    async with incremental(attested, scrub_rate=1e9) as ledger:
        async with interrupted(ledger, 1, damage):  # after the boot's sample, before the first page
            await scrubbed(ledger)
        health = await ledger.health()
        assert not health.ready
        found, schema = health.reasons
        assert found == "1 findings at the last verify"
        assert schema.startswith("the schema is not as it was made: ")
        assert (await readiness(ledger)).status == 503
        logged = [r.getMessage() for r in caplog.records if "scrub_found_damage" in r.getMessage()]
        assert len(logged) == 1
        assert "n/0700" in logged[0]
        assert await attested_position(attested) == MANY + 3
        # The way on: end that secret, and prove the rest.
        await ledger.destroy("n/0700", reason="damaged")
        assert (await ledger.verify()).ok
        assert (await ledger.health()).ready


async def test_a_damaged_control_stream_turns_the_node_unready(attested: str) -> None:
    async def damage() -> None:
        async with attacking(attested) as attacker:
            await attacker.sql("UPDATE secret_event SET metadata = '{}' WHERE position = 1")

    async with incremental(attested, scrub_rate=1e9) as ledger:
        async with interrupted(ledger, 1, damage):
            await scrubbed(ledger)
        assert not (await ledger.health()).ready


async def test_it_ends_with_its_ledger(attested: str) -> None:
    async with incremental(attested, scrub_rate=0.01) as ledger:
        assert (await ledger.health()).verified_level == "incremental"
        assert "secret-ledger scrub" in {task.get_name() for task in asyncio.all_tasks()}
    assert {task.get_name() for task in asyncio.all_tasks()} & {"secret-ledger scrub"} == set()
    before = await rows(attested)
    async with incremental(attested, scrub_rate=1e9):
        pass  # closed at its first page
    assert (await rows(attested, "ledger_attestation")).keys() < before.keys()


async def test_only_an_incremental_boot_leaves_anything_to_go_over(attested: str) -> None:
    for level in ("control", "latest", "full"):
        async with opened(attested, OLD, verify=level) as ledger:
            assert ledger._scrub is None


async def test_it_is_no_faster_than_it_is_told(attested: str) -> None:
    """Not timed: at this rate the second page is hours away."""
    async with incremental(attested, scrub_rate=0.01) as ledger:
        await ledger.verify("full")
        await ledger.put("x", "1")
        assert (await ledger.health()).verified_level == "full"
        assert ledger._scrub is not None
        assert ledger._scrub._task is not None
        assert not ledger._scrub._task.done()


@pytest.mark.parametrize("at", range(1, 9))
async def test_what_is_written_rotated_and_rekeyed_meanwhile_is_no_finding(
    attested: str, at: int
) -> None:
    done: list[str] = []

    async def meanwhile() -> None:
        async with opened(attested, NEW, OLD, verify="control") as other:
            await other.put("n/0001", "2")
            await other.rotate()
            await other.put_many({"n/0000": "2", "z": "1"})
            await other.delete("n/1199")
        done.append("all")

    async with incremental(attested, NEW, OLD, scrub_rate=1e9) as ledger:
        async with interrupted(ledger, at, meanwhile):
            await scrubbed(ledger)
        assert done
        assert (await ledger.health()).ready


@pytest.mark.parametrize("at", [3, 5, 8])
async def test_a_generation_that_is_left_meanwhile_is_gone_over_anew(
    attested: str, at: int
) -> None:
    done: list[str] = []

    async def meanwhile() -> None:
        async with opened(attested, NEW, OLD, verify="control") as other:
            await other.migrate()
            await other.purge_generation(0)
        done.append("all")

    async with incremental(attested, NEW, OLD, scrub_rate=1e9) as ledger:
        async with interrupted(ledger, at, meanwhile):
            await scrubbed(ledger)
        assert done
        report = ledger._prover.verified.report
        assert (report.ok, report.heads, report.by_key) == (True, MANY, {"k-new": MANY})


async def test_it_waits_for_a_database_that_is_out_of_reach_and_goes_on_where_it_was(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = private_postgres.create_database("elsewhere")
    await build(url)
    begun: list[Scan] = []
    pages = Scan._head_rows

    def noted(self: Scan) -> AsyncGenerator[Sequence[Event]]:
        begun.append(self)
        return pages(self)

    async with incremental(url, scrub_rate=1e9, read_only=True) as ledger:
        monkeypatch.setattr(Scan, "_head_rows", noted)

        async def stop() -> None:
            private_postgres.stop("immediate")

        async def waits() -> bool:
            return ledger._scrub is not None and ledger._scrub.failure is not None

        async with interrupted(ledger, 5, stop):  # at its second page
            await until(waits)
        told = (await ledger.health()).reasons
        assert [reason for reason in told if reason.startswith("scrub: ")]
        private_postgres.start()
        await scrubbed(ledger)
        assert ledger._prover.verified.report.heads == MANY
        assert len(begun) == 1
        assert (await ledger.health()).reasons == ()
