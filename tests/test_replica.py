"""A hot standby is read like any ledger, written to by nobody, and says how far it is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pytest

from cli_session import Cli
from inside import Connection, head_in_use, is_transient, patiently, upgrade_schema
from ledgers import NEW, OLD, STRANGER, opened, refused, rows
from secret_ledger import (
    KeyFingerprintMismatch,
    Keyring,
    LedgerUnavailable,
    NotALedger,
    SecretLedger,
    open_unverified,
)
from standby import DATABASE, Pair, ask, replicated, wait_until


@pytest.fixture
def pair() -> Iterator[Pair]:
    with replicated() as two:
        yield two


@pytest.fixture
def primary(pair: Pair) -> str:
    return pair.primary.url(DATABASE)


@pytest.fixture
def replica(pair: Pair) -> str:
    return pair.standby.url(DATABASE)


async def test_every_way_to_read_works_on_a_standby(pair: Pair, primary: str, replica: str) -> None:
    async with opened(primary, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.put("a", "2")
        await ledger.put("b", "x")
        await ledger.delete("b")
        pair.catch_up()
        before = await rows(primary)
        async with opened(replica, OLD, verify="full", read_only=True) as reader:
            assert (await reader.get("a")).value.reveal() == b"2"
            assert (await reader.get("a", version=1)).value.reveal() == b"1"
            assert (await reader.get("a", at=datetime.now(UTC))).version == 2
            assert [info.version async for info in reader.history("a")] == [1, 2]
            assert [info.name async for info in reader.list(deleted=True)] == ["a", "b"]
            for level in ("control", "latest", "full"):
                assert (await reader.verify(level)).ok
            assert len(await reader.nodes()) == 1
            assert [key.state for key in await reader.key_status()] == ["active"]
            with pytest.raises(LedgerUnavailable, match="read-only"):
                await reader.put("a", "3")
            await ledger.put("a", "3")
            pair.catch_up()
            assert (await reader.get("a")).value.reveal() == b"3"
            health = await reader.health()
            assert (health.state, health.read_only) == ("ready", True)
            assert health.position == 8
        async with open_unverified(replica) as unverified:
            assert [info.name async for info in unverified.list()] == ["a"]
            assert len(await unverified.nodes()) == 1
        await refused(replica, KeyFingerprintMismatch, STRANGER, read_only=True)
    assert before.keys() == (await rows(primary)).keys()


async def test_a_standby_says_how_far_it_is_behind(
    pair: Pair, primary: str, replica: str, sqlite_url: str
) -> None:
    async with opened(primary, OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        assert (await ledger.health()).replica_lag_seconds is None
        async with opened(replica, OLD, read_only=True) as reader:
            assert (await reader.health()).replica_lag_seconds == 0
            pair.hold_replay()
            await ledger.put("a", "2")
            written = ask(pair.primary, "SELECT pg_current_wal_flush_lsn()::text")
            wait_until(pair.standby, f"SELECT pg_last_wal_receive_lsn() >= '{written}'::pg_lsn")
            first = (await reader.health()).replica_lag_seconds
            then = (await reader.health()).replica_lag_seconds
            assert first is not None
            assert then is not None
            assert 0 < first < then
            assert (await reader.get("a")).version == 1
            pair.resume_replay()
            pair.catch_up()
            assert (await reader.health()).replica_lag_seconds == 0
            assert (await reader.get("a")).version == 2
    async with opened(sqlite_url, OLD) as ledger:
        assert (await ledger.health()).replica_lag_seconds is None


async def test_a_standby_that_is_cut_off_does_not_pass_for_up_to_date(
    pair: Pair, primary: str, replica: str
) -> None:
    """It has replayed all that it received, and receives nothing."""
    async with opened(primary, OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        async with opened(replica, OLD, read_only=True) as reader:
            pair.cut()
            wait_until(pair.standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
            health = await reader.health()
            assert health.replica_lag_seconds
            assert health.state == "degraded"
            assert "receives nothing from its primary" in health.reasons[-1]
        async with opened(replica, OLD, read_only=True) as reader:
            assert "receives nothing from its primary" in reader.warnings[-1]


async def test_a_reader_goes_on_through_the_promotion_of_its_standby(
    pair: Pair, primary: str, replica: str
) -> None:
    async with opened(primary, OLD) as ledger:
        await ledger.put("a", "1")
    pair.catch_up()
    async with opened(replica, OLD, read_only=True) as reader:
        pair.fail_over()
        async with opened(replica, OLD) as ledger:
            await ledger.put("a", "2")
        assert (await reader.get("a")).value.reveal() == b"2"
        assert (await reader.health()).replica_lag_seconds is None


# --- what it refuses ----------------------------------------------------------------------------


async def test_a_standby_opened_to_be_written_to_is_refused_with_the_way_out(
    pair: Pair, primary: str, replica: str
) -> None:
    error = await refused(replica, LedgerUnavailable, OLD)  # where there is no ledger yet
    assert "is a standby" in error.message
    assert "is a standby" in (await refused(replica, LedgerUnavailable, OLD, create=True)).message
    await refused(replica, NotALedger, OLD, read_only=True)
    async with opened(primary, OLD) as ledger:
        await ledger.put("a", "1")
    pair.catch_up()
    error = await refused(replica, LedgerUnavailable, OLD)
    assert "is a standby, which takes no writes" in error.message
    assert "read_only=True" in error.hint
    with pytest.raises(LedgerUnavailable, match="is a standby"):
        await SecretLedger.init(replica, Keyring.of(OLD))
    with pytest.raises(LedgerUnavailable, match="read-only") as caught:
        await upgrade_schema(replica, Keyring.of(OLD))
    assert "standby" in caught.value.hint


async def test_a_standby_behind_what_was_read_elsewhere_lags_and_is_not_tampered_with(
    pair: Pair,
) -> None:
    """A reader of several hosts that has to go over to one that shows less."""
    async with opened(pair.url(), OLD) as ledger:
        await ledger.put("a", "1")
        pair.catch_up()
        pair.hold_replay()
        await ledger.put("a", "2")
        async with opened(pair.url(pair.standby, pair.primary), OLD, read_only=True) as reader:
            assert (await reader.get("a")).version == 2  # the primary's, though it is named last
            pair.primary.stop("immediate")
            for call in (reader.get("a"), reader.verify(), anext(aiter(reader.list()))):
                with pytest.raises(LedgerUnavailable, match="this standby is at position 4") as e:
                    await call
                assert is_transient(e.value)
            health = await reader.health()
            assert not health.ready
            assert health.replica_lag_seconds
            pair.resume_replay()
            wait_until(pair.standby, "SELECT max(position) = 5 FROM secret_ledger.secret_event")
            assert (await reader.get("a")).version == 2
            assert (await reader.health()).state == "degraded"


@pytest.mark.parametrize("kind", ["prefer-standby", "standby"])
async def test_a_reader_may_ask_for_a_standby(pair: Pair, kind: str) -> None:
    async with opened(pair.url(), OLD) as ledger:
        await ledger.put("a", "1")
    pair.catch_up()
    url = pair.url(target_session_attrs=kind)
    async with opened(url, OLD, read_only=True) as reader:
        assert (await reader.health()).replica_lag_seconds == 0
    pair.standby.stop()
    if kind == "standby":
        await refused(url, LedgerUnavailable, OLD, read_only=True)
    else:
        async with opened(url, OLD, read_only=True) as reader:
            assert (await reader.health()).replica_lag_seconds is None


@pytest.mark.parametrize("mode", ["statement", "snapshot"])
async def test_a_read_that_replay_cancels_is_tried_again(
    mode: Literal["statement", "snapshot"],
) -> None:
    """40001, canceling statement due to conflict with recovery."""
    with replicated(max_standby_streaming_delay="0") as pair:
        async with opened(pair.primary.url(DATABASE), OLD) as ledger:
            for number in range(3):
                await ledger.put("a", str(number))
            pair.catch_up()
        async with opened(pair.standby.url(DATABASE), OLD, read_only=True) as reader:
            turns: list[asyncio.Future[None]] = []

            def unit(connection: Connection) -> int | None:
                head = head_in_use(connection, reader.database)
                if not turns:
                    turns.append(asyncio.get_running_loop().run_in_executor(None, vacuum, pair))
                    connection.exec_driver_sql(
                        "SELECT count(*) FROM secret_ledger.ledger_head, pg_sleep(60)"
                    )
                return head.position if head else None

            with pytest.raises(LedgerUnavailable) as caught:
                await reader.database.run(unit, mode)
            assert caught.value.details["sqlstate"] == "40001"
            assert "hot_standby_feedback" in caught.value.hint
            await turns.pop()
            assert await patiently(reader.database, unit, mode) == 6
            await turns.pop()


def vacuum(pair: Pair) -> None:
    """Remove row versions on the primary that a statement on the standby may still need."""
    wait_until(
        pair.standby, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    )
    update = "UPDATE secret_ledger.ledger_head SET position = position"
    for statement in (update, "VACUUM secret_ledger.ledger_head", update):
        ask(pair.primary, statement)
    pair.catch_up()


# --- the command line ------------------------------------------------------------------------


def test_the_reading_verbs_work_on_a_standby_and_say_that_it_is_one(
    pair: Pair, primary: str, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(monkeypatch, primary)
    assert cli("put", "a/b", value=b"one").code == 0
    pair.catch_up()
    cli.set("OS_SECRET_LEDGER_URL", replica)
    assert cli("get", "a/b").raw == b"one"
    for words in (
        ("list",),
        ("history", "a/b"),
        ("nodes",),
        ("keys", "status"),
        ("verify", "--level", "full"),
        ("projections", "check"),
        ("health",),
    ):
        done = cli(*words)
        assert done.code == 0, done.err
        (said,) = done.remarks("warning:")
        assert "is a standby: its data may be" in said
    assert float(dict(cli("health").rows)["replica_lag_seconds"]) == 0
    assert cli("health", "--json").json["replica_lag_seconds"] == 0
    assert cli("verify", "--json").json["ok"]

    for words in (("put", "a/b"), ("delete", "a/b"), ("init",), ("schema", "upgrade")):
        done = cli(*words, value=b"two")
        assert done.code == 40, done.err
        assert "standby" in done.err
        assert "read" in done.remarks("hint:")[0]


def test_a_url_of_both_hosts_serves_every_verb(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just written is read again, whichever host is named first."""
    cli = Cli(monkeypatch, pair.url(pair.standby, pair.primary))
    cli.hold(NEW)
    pair.hold_replay()
    assert cli("put", "a", value=b"1").code == 0
    assert cli("get", "a").raw == b"1"
    assert not cli("health").remarks("warning:")
