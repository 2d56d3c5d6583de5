"""What `health` and the command of that name rest on: could a service open here, and work?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from attacker import attacking, put_back, saved
from between import interrupted
from cli_session import KEY, NEW_KEY, Cli
from inside import Connection, Database, Level, LogHead
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import Keyring, MissingKey, SecretLedger, SecretNotFound
from secret_ledger_projections import Inline, SysSecret, default
from waiting import until

# --- could a service open here? ------------------------------------------------------------


async def under_an_old_key(url: str) -> None:
    """A secret whose only version lies under a key before the active one."""
    async with building(url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)


async def test_a_ledger_opened_unseen_is_not_ready_where_no_service_could_open(
    database_url: str,
) -> None:
    await under_an_old_key(database_url)
    async with opened(database_url, NEW, verify="control") as ledger:
        with pytest.raises(MissingKey):
            await ledger.get("a")
        health = await ledger.health()
        assert (health.ready, health.reasons) == (False, ("1 findings at the last verify",))
        assert health.verified_level == "latest"
        await ledger.reload_keys(Keyring.of(NEW, [OLD]))
        health = await ledger.health()
        assert (health.ready, health.verified_level) == (True, "latest")
        await ledger.reload_keys(Keyring.of(NEW))
        assert not (await ledger.health()).ready


async def test_a_ledger_opened_unseen_is_ready_once_its_secrets_have_been_opened(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    for read_only in (False, True):
        async with opened(database_url, OLD, verify="control", read_only=read_only) as ledger:
            assert [(await ledger.health()).state for _ in range(2)] == ["ready", "ready"]
            assert (await ledger.health()).verified_level == "latest"


async def test_a_probe_does_not_wait_for_the_secrets_and_is_not_ready_until_they_are_opened(
    database_url: str,
) -> None:
    free = asyncio.Event()

    async def meanwhile() -> None:
        await free.wait()

    async with opened(database_url, OLD, verify="control", heartbeat=3600) as ledger:
        looks = await transactions_of_a_look(ledger)
        ledger._first_proof.forget()
        async with interrupted(ledger, looks + 1, meanwhile):
            health = await ledger.health(within=0.5)
            free.set()
            assert health.reasons == (
                "the newest versions of the secrets are still being verified",
            )
            await until(lambda: is_ready(ledger))


async def transactions_of_a_look(ledger: SecretLedger) -> int:
    """How many a look at health takes once nothing is left to prove."""
    await ledger.health()

    async def nothing() -> None: ...

    async with interrupted(ledger, 0, nothing) as seen:
        await ledger.health()
    return seen.begun


async def is_ready(ledger: SecretLedger) -> bool:
    return (await ledger.health(within=0.5)).ready


async def test_a_ledger_closes_while_a_probe_waits_for_its_secrets(database_url: str) -> None:
    hold = asyncio.Event()
    reached = asyncio.Event()

    async def meanwhile() -> None:
        reached.set()
        await hold.wait()

    async with opened(database_url, OLD, verify="control", heartbeat=3600) as ledger:
        looks = await transactions_of_a_look(ledger)
        ledger._first_proof.forget()
        async with interrupted(ledger, looks + 1, meanwhile):
            probing = asyncio.create_task(ledger.health(within=60))
            await reached.wait()
            await ledger._first_proof.close()
            hold.set()
            assert (await probing).reasons == ("the ledger was closed",)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Cli:
    cli = Cli(monkeypatch, database_url)
    assert cli("init").code == 0
    assert cli("put", "a", value=b"1").code == 0
    cli.hold(NEW_KEY, KEY)
    assert cli("keys", "rotate").code == 0
    return cli


def test_the_command_ends_as_the_service_would(cli: Cli) -> None:
    assert cli("health").code == 0
    cli.hold(NEW_KEY)
    done = cli("health")
    assert (done.code, cli("get", "a").code) == (13, 13)
    assert "1 secrets are under k-old" in dict(row[:2] for row in done.rows)["reason"]
    assert cli("health", "--level", "incremental").code == 13
    assert cli("health", "--level", "full").code == 13


# --- what clears a finding -------------------------------------------------------------------

LEVELS: tuple[Level, ...] = ("control", "latest", "full")


@pytest.mark.parametrize(("version", "found_by"), [(2, "latest"), (2, "full"), (1, "full")])
async def test_a_finding_stands_until_a_verification_of_as_much_passes(
    database_url: str, version: int, found_by: Level
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await ledger.put("a", "1")
        await ledger.put("a", "2")
        before = await saved(attacker, "secret_event")
        await attacker.sql(
            "UPDATE secret_event SET metadata = '{ }' WHERE stream = 'a' AND version = $1", version
        )
        assert (await ledger.verify(found_by)).findings
        await put_back(attacker, before)
        for level in LEVELS[: LEVELS.index(found_by)]:
            assert (await ledger.verify(level)).ok
            health = await ledger.health()
            assert not health.ready, level
            assert health.reasons[0].endswith(f"findings at the last verify of level {found_by}")
        for level in LEVELS[LEVELS.index(found_by) :]:
            assert (await ledger.verify(level)).ok
            assert (await ledger.health()).ready, level


async def test_a_verification_of_more_clears_what_one_of_less_has_found(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        await ledger.put("a", "1")
        before = await saved(attacker, "secret_event")
        await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'a'")
        assert (await ledger.verify("latest")).findings
        await put_back(attacker, before)
        assert (await ledger.verify("full")).ok
        assert (await ledger.health()).ready


# --- a log whose time is ahead of the clock ---------------------------------------------------


@asynccontextmanager
async def ahead(url: str, by: timedelta) -> AsyncIterator[SecretLedger]:
    """A ledger whose last event was written while the clock ran ahead."""
    async with building(url, OLD) as log:
        real = log.database.clock
        microseconds = int(by.total_seconds() * 1_000_000)
        log.database.clock = lambda connection: real(connection) + microseconds  # type: ignore[method-assign]
        await log.put("a", b"ahead")
    async with opened(url, OLD) as ledger:
        yield ledger


async def test_a_log_whose_time_is_ahead_of_the_clock_is_warned_of(database_url: str) -> None:
    async with ahead(database_url, timedelta(days=30)) as ledger:
        await ledger.put("b", "now")
        expected = "the log's time is 29 days, 23:"
        told = [
            ledger.warnings,
            (await ledger.health()).warnings,
            *[(await ledger.verify(level)).warnings for level in LEVELS],
        ]
        for warnings in told:
            (warning,) = [w for w in warnings if "ahead of" in w]
            assert warning.startswith(expected)
            assert "get(at=…)" in warning
        assert (await ledger.health()).ready
        # Which is what the warning says, and the documentation.
        with pytest.raises(SecretNotFound):
            await ledger.get("b", at=datetime.now(UTC))
        later = datetime.now(UTC) + timedelta(days=31)
        assert (await ledger.get("b", at=later)).version == 1


async def test_a_log_whose_time_is_the_clock_s_is_not_warned_of(database_url: str) -> None:
    async with ahead(database_url, timedelta()) as ledger:
        await ledger.put("a", "1")
        told = ledger.warnings, (await ledger.health()).warnings, (await ledger.verify()).warnings
        assert [w for warnings in told for w in warnings if "clock" in w] == []


# --- what it looks at may fail ----------------------------------------------------------------


class Lost(Inline):
    """A projection whose own code fails where it is asked how far it is."""

    def lag(self, connection: Connection, database: Database, head: LogHead) -> int:
        raise ZeroDivisionError("hunter2")


class Astray(Inline):
    """A projection whose own SQL fails there."""

    def lag(self, connection: Connection, database: Database, head: LogHead) -> int:
        return int(connection.execute(text("SELECT at FROM nowhere")).scalar_one())


@pytest.mark.parametrize(
    ("kind", "told"), [(Lost, r"ZeroDivisionError"), (Astray, r".*the database refused.*")]
)
async def test_a_projection_that_can_t_say_how_far_it_is_degrades_health_by_its_name(
    database_url: str, kind: type[Inline], told: str
) -> None:
    lost: Any = kind(SysSecret())
    lost.name = "lost"
    async with opened(database_url, OLD, projections=[*default(), lost]) as ledger:
        health = await ledger.health()
        assert (health.ready, health.state) == (True, "degraded")
        (reason,) = health.reasons
        assert re.fullmatch(f"projection lost: {told}", reason)
        assert health.projection_lag is None
        assert (await ledger.health(within=5)).state == "degraded"
