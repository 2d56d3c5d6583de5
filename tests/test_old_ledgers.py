"""Ledgers that an older release wrote are read by this one, or say what has to be done."""

from __future__ import annotations

import pytest

from conftest import OldLedger
from inside import SCHEMA_VERSION
from ledgers import rows
from old_ledgers import SCHEMA
from secret_ledger import (
    SchemaOutdated,
    SecretDeleted,
    SecretDestroyed,
    SecretLedger,
    upgrade_schema,
)

VALUES = {
    "app/anew": "app/anew under key two",
    "app/destroyed": "begun again",
    "app/empty": "under key two",
    "app/größe": "under key two",
    "app/large": "large " * 3_000,
    "app/versions": "under key five",
    "early/older": "early/older under key two",
    "first/kept": "first/kept under key two",
    "late/older": "under key five",
}
DELETED = ("app/deleted", "app/restored")
GONE = ("early/head", "early/deleted", "late/head", "late/deleted")
"""Their newest events lie under a key that is lost."""


async def test_a_ledger_of_an_older_release_is_left_as_it_is_until_it_is_upgraded(
    old_ledger: OldLedger,
) -> None:
    url, keyring = old_ledger
    before = await rows(url)
    assert before["ledger_meta"][0][-1] == SCHEMA
    for read_only in (False, True):
        with pytest.raises(SchemaOutdated):
            async with SecretLedger.open(url, keyring, read_only=read_only):
                pass
    assert await rows(url) == before


async def test_an_upgrade_keeps_every_row_of_the_log_byte_for_byte(old_ledger: OldLedger) -> None:
    url, keyring = old_ledger
    before = await rows(url)
    done = await upgrade_schema(url, keyring)
    assert [int(name[:4]) for name in done] == list(range(SCHEMA + 1, SCHEMA_VERSION + 1))
    after = await rows(url)
    for table in ("secret_event", "ledger_key", "ledger_move"):
        assert set(after[table]) >= set(before[table])
    assert after["ledger_meta"][0][-1] == SCHEMA_VERSION


async def test_a_ledger_of_an_older_release_is_whole_and_every_value_of_it_is_read(
    old_ledger: OldLedger,
) -> None:
    url, keyring = old_ledger
    await upgrade_schema(url, keyring)
    async with SecretLedger.open(url, keyring, verify="full") as ledger:
        assert (await ledger.verify("full")).ok
        listed = [s.name async for s in ledger.list()]
        assert [n for n in listed if n not in GONE] == sorted(VALUES, key=str.encode)
        for name, value in VALUES.items():
            assert (await ledger.get(name)).value.reveal_text() == value
        assert (
            await ledger.get("app/versions", version=4)
        ).value.reveal_text() == "in generation 2"
        for name in DELETED:
            with pytest.raises(SecretDeleted):
                await ledger.get(name)
        for name in GONE:
            with pytest.raises((SecretDestroyed, SecretDeleted)):
                await ledger.get(name)
        for name, version in (("early/older", 1), ("late/older", 1), ("app/destroyed", 2)):
            with pytest.raises(SecretDestroyed):
                await ledger.get(name, version=version)


async def test_a_ledger_of_an_older_release_goes_on_being_written(old_ledger: OldLedger) -> None:
    url, keyring = old_ledger
    await upgrade_schema(url, keyring)
    async with SecretLedger.open(url, keyring, verify="full") as ledger:
        assert (await ledger.health()).projection_lag == 0
        before = await ledger.get("app/versions")
        after = await ledger.put("app/versions", "under this release", expect=before.version)
        assert after.version == before.version + 1
        await ledger.restore("app/restored")
        for name in GONE:
            newest = max([s.version async for s in ledger.history(name)])
            await ledger.put(name, "begun anew", expect=newest)
        assert (await ledger.health()).projection_lag == 0
        assert (await ledger.verify("full")).ok
        await ledger.migrate()
        await ledger.purge_generation(2)
        assert (await ledger.verify("full")).ok
        assert (await ledger.get("late/head")).value.reveal_text() == "begun anew"


async def test_a_ledger_of_an_older_release_keeps_its_generations_and_its_audit(
    old_ledger: OldLedger,
) -> None:
    url, keyring = old_ledger
    await upgrade_schema(url, keyring)
    async with SecretLedger.open(url, keyring, verify="control") as ledger:
        found = [(g.generation, g.state) for g in await ledger.generations()]
        assert found == [(0, "purged"), (1, "purged"), (2, "closed"), (3, "active")]
        states = {key.key_id: key.state for key in await ledger.key_history()}
        assert states == {
            "zero": "retired",
            "one": "lost",
            "two": "superseded",
            "three": "superseded",
            "four": "lost",
            "five": "active",
        }
        nodes = {(n.state, n.host, n.pid) for n in await ledger.nodes() if n.node == "node-a"}
        assert ("refused", "host.example", 4242) in nodes
