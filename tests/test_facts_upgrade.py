"""An older ledger begins to seal facts, and none goes back: by a release, or by somebody's hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from attacker import Attacker, attacking, events
from conftest import OldLedger
from inside import (
    CONTROL_STREAM,
    FORMAT,
    SCHEMA_VERSION,
    Connection,
    EventType,
    connect,
    fold_control,
    parse_metadata,
)
from ledgers import OLD, opened, refused, rows
from log_builder import building
from secret_ledger import (
    Keyring,
    LedgerMoved,
    MigrationInProgress,
    SchemaOutdated,
    SecretDestroyed,
    SecretLedger,
    TamperedEvent,
    upgrade_schema,
)

OLDER = 5
"""The last schema of a release that sealed no facts."""


_SHIFT = "UPDATE secret_event SET recorded_at = recorded_at"


async def _older(url: str) -> None:
    """A ledger of an older release: two versions, one destroyed secret that was written anew."""
    async with building(url, OLD, upto=OLDER) as log:
        await log.put("a", b"one")
        await log.put("a", b"two")
        await log.put("anew", b"one")
        await log.destroy("anew")
        await log.put("anew", b"three")


async def test_an_upgrade_raises_the_format_and_the_epoch_with_the_event_that_says_so(
    database_url: str,
) -> None:
    await _older(database_url)
    before = await rows(database_url)
    await refused(database_url, SchemaOutdated, OLD)
    await upgrade_schema(database_url, Keyring.of(OLD))
    after = await rows(database_url)
    assert await upgrade_schema(database_url, Keyring.of(OLD)) == []
    assert (await rows(database_url))["secret_event"] == after["secret_event"]
    assert (before["ledger_meta"][0][-2:], after["ledger_meta"][0][-2:]) == (
        (1, OLDER),
        (FORMAT, SCHEMA_VERSION),
    )
    assert set(after["secret_event"]) > set(before["secret_event"])
    async with attacking(database_url) as attacker:
        last = (await events(attacker))[-1]
        ((epoch,),) = await attacker.sql("SELECT key_epoch FROM ledger_head")
    assert (last.stream, last.event_type, epoch) == (CONTROL_STREAM, EventType.LEDGER_UPGRADED, 2)
    assert parse_metadata(last.metadata).ledger == {"facts": 2}


async def test_a_node_of_the_older_release_can_t_append_behind_the_upgrade(
    database_url: str,
) -> None:
    await _older(database_url)
    database = connect(database_url)

    def is_locked(connection: Connection, epoch: int) -> bool:
        return database.lock_head(connection, 0, epoch) is not None

    try:
        await upgrade_schema(database_url, Keyring.of(OLD))
        assert not await database.run(partial(is_locked, epoch=1), "write")
        assert await database.run(partial(is_locked, epoch=2), "write")
    finally:
        await database.close()


async def test_what_an_older_release_wrote_is_walked_and_every_later_event_states_its_floor(
    database_url: str,
) -> None:
    await _older(database_url)
    await upgrade_schema(database_url, Keyring.of(OLD))
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.get("anew", version=3)).value.reveal() == b"three"
        for version in (1, 2):
            with pytest.raises(SecretDestroyed):
                await ledger.get("anew", version=version)
        await ledger.put_many({"a": "three", "anew": "four", "new": "one"})
        await ledger.delete("anew")
        with pytest.raises(SecretDestroyed):
            await ledger.restore("anew", 1)
        await ledger.restore("anew")
        assert (await ledger.get("a", version=1)).value.reveal() == b"one"
        report = await ledger.verify("full")
        assert report.ok, report.findings
    async with attacking(database_url) as attacker:
        stated = {
            (e.stream, e.version): parse_metadata(e.metadata).ledger.get("floor")
            for e in await events(attacker)
            if e.stream != CONTROL_STREAM
        }
    assert {k: v for k, v in stated.items() if v is not None} == {
        ("a", 3): 0, ("anew", 4): 2, ("new", 1): 0, ("anew", 5): 2, ("anew", 6): 2,
    }  # fmt: skip


async def test_a_destruction_that_an_older_release_wrote_can_t_be_hidden_from_a_walk(
    database_url: str,
) -> None:
    await _older(database_url)
    await upgrade_schema(database_url, Keyring.of(OLD))
    async with attacking(database_url) as attacker:
        await attacker.sql(
            "UPDATE secret_event SET event_type = 'secret.deleted'"
            " WHERE stream = 'anew' AND version = 2"
        )
    async with opened(database_url, OLD) as ledger:
        for version in (1, 2):
            with pytest.raises(TamperedEvent):
                await ledger.get("anew", version=version)
        with pytest.raises(TamperedEvent):
            await ledger.put("anew", "four")
        assert (await ledger.get("anew")).value.reveal() == b"three"


async def test_an_upgrade_verifies_what_it_is_about_to_rest_on(database_url: str) -> None:
    await _older(database_url)
    async with attacking(database_url) as attacker:
        await attacker.sql(f"{_SHIFT} + 1 WHERE position = 3")
    with pytest.raises(TamperedEvent):
        await upgrade_schema(database_url, Keyring.of(OLD))
    async with attacking(database_url) as attacker:
        ((format_,),) = await attacker.sql("SELECT format FROM ledger_meta")
        assert format_ == 1
        await attacker.sql(f"{_SHIFT} - 1 WHERE position = 3")
    await upgrade_schema(database_url, Keyring.of(OLD))  # it goes on where it was
    async with opened(database_url, OLD, verify="full"):
        pass


async def test_the_upgrade_ends_what_lies_under_a_lost_key(old_ledger: OldLedger) -> None:
    url, keyring = old_ledger
    await upgrade_schema(url, keyring)
    async with SecretLedger.open(url, keyring, verify="full") as ledger:
        for name, key_id in (("early/head", "one"), ("late/head", "four")):
            with pytest.raises(SecretDestroyed, match=f"its key {key_id} is lost"):
                await ledger.get(name)
            assert (await ledger.put(name, "anew")).version > 1


async def test_a_ledger_is_not_upgraded_while_a_generation_is_built_or_once_it_moved(
    database_url: str,
) -> None:
    await _older(database_url)
    async with building(database_url, OLD) as log:
        await log.execute(
            "INSERT INTO {s}ledger_head (generation, position, recorded_at, key_epoch, state)"
            " VALUES (1, 0, 0, 1, 'building')"
        )
        with pytest.raises(MigrationInProgress):
            await upgrade_schema(database_url, Keyring.of(OLD))
        await log.execute("DELETE FROM {s}ledger_head WHERE generation = 1")
        await log.move_away()
    with pytest.raises(LedgerMoved):
        await upgrade_schema(database_url, Keyring.of(OLD))


# --- a downgrade by hand --------------------------------------------------------------------


async def _facts_taken_away(attacker: Attacker) -> None:
    await attacker.sql("DELETE FROM secret_event WHERE event_type = 'ledger.upgraded'")
    await attacker.sql("UPDATE ledger_head SET key_epoch = 1")


async def _facts_renamed(attacker: Attacker) -> None:
    await attacker.sql(
        "UPDATE secret_event SET stream = 'elsewhere', version = 1"
        " WHERE event_type = 'ledger.upgraded'"
    )
    await attacker.sql("UPDATE ledger_head SET key_epoch = 1")


@pytest.mark.parametrize("hide", [_facts_taken_away, _facts_renamed])
@pytest.mark.parametrize("upgraded", [False, True], ids=["a new ledger", "an upgraded one"])
async def test_facts_that_were_taken_away_are_missed(
    database_url: str, hide: Callable[[Attacker], Awaitable[None]], upgraded: bool
) -> None:
    if upgraded:
        await _older(database_url)
        await upgrade_schema(database_url, Keyring.of(OLD))
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "anew")
    async with attacking(database_url) as attacker:
        await hide(attacker)
    await refused(database_url, TamperedEvent, OLD, verify="control")
    async with attacking(database_url) as attacker:
        await attacker.sql("UPDATE ledger_meta SET format = 1")
    await refused(database_url, SchemaOutdated, OLD, verify="control")
    with pytest.raises(TamperedEvent):
        await upgrade_schema(database_url, Keyring.of(OLD))


async def test_a_format_number_that_was_put_back_is_not_believed(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
    async with attacking(database_url) as attacker:
        await attacker.sql("UPDATE ledger_meta SET format = 1")
    await refused(database_url, SchemaOutdated, OLD)
    with pytest.raises(TamperedEvent, match="one of them was put back"):
        await upgrade_schema(database_url, Keyring.of(OLD))


async def test_a_control_stream_without_facts_is_the_older_release_s(database_url: str) -> None:
    await _older(database_url)
    async with attacking(database_url) as attacker:
        found = await events(attacker)
        ((ledger_id,),) = await attacker.sql("SELECT ledger_id FROM ledger_meta")
    control = fold_control(bytes(ledger_id), 0, [e for e in found if e.stream == CONTROL_STREAM])
    assert (control.upgrades, control.epoch) == ((), 1)
