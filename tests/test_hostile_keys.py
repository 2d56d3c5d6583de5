"""An attacker without the key plants or cuts out events of the control stream."""
# the attacker puts names of tables and columns into his SQL

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attacker import put_back, saved
from hostile import (
    Victim,
    head_row,
    insert,
    ledger_id_of,
    reads_are_right,
    refused_or_found,
    remove,
)
from inside import (
    CONTROL_STREAM,
    Event,
    EventType,
    LedgerKey,
    context_of,
    event_hash,
    genesis,
    hash_of,
    key_metadata,
    seal,
)
from secret_ledger import Key, KeyFingerprintMismatch, Keyring, TamperedEvent
from victim import BOTH, NEW, OLD, opened


def planted_rotation(
    log: Sequence[Event], ledger_id: bytes, mine: Key, garbage: bytes
) -> list[Event]:
    """A rotation to the attacker's own key, as well as it can be made without the real one."""
    control = [e for e in log if e.stream == CONTROL_STREAM]
    key, last = mine.for_ledger(ledger_id), control[-1]
    bare = last._replace(
        position=log[-1].position + 1,
        version=last.version + 1,
        event_type=EventType.KEY_INTRODUCED,
        recorded_at=log[-1].recorded_at,
        metadata=key_metadata(key.id, key.fingerprint, len(control) // 2 + 2),
        prev_hash=last.event_hash,
        sealed=garbage,
    )
    introduced = bare._replace(event_hash=hash_of(ledger_id, bare))
    return [introduced, activated_under(key, ledger_id, introduced)]


def activated_under(key: LedgerKey, ledger_id: bytes, introduced: Event) -> Event:
    bare = introduced._replace(
        position=introduced.position + 1,
        version=introduced.version + 1,
        event_type=EventType.KEY_ACTIVATED,
        key_id=key.id,
        key_fingerprint=key.fingerprint,
        prev_hash=introduced.event_hash,
    )
    context = context_of(ledger_id, bare)
    sealed = seal(key.event_cipher, context, b"")
    return bare._replace(sealed=sealed, event_hash=event_hash(context, sealed))


async def test_a_planted_rotation_is_tampering_for_a_running_node_and_a_starting_one(
    victim: Victim,
) -> None:
    attacker, mine = victim.attacker, Key.from_bytes(bytes(range(201, 233)), "k-mallory")
    ledger_id = await ledger_id_of(attacker)
    rows = planted_rotation(victim.log, ledger_id, mine, victim.log[-1].sealed)
    async with opened(victim.url) as running:
        await attacker.insert_rows(
            "ledger_key", [("k-mallory", mine.for_ledger(ledger_id).fingerprint)]
        )
        await insert(attacker, *rows)
        await attacker.sql("UPDATE ledger_head SET key_epoch = 4")
        await head_row(attacker, rows[-1].position, rows[-1].recorded_at)
        with pytest.raises(TamperedEvent):
            await running.put("alpha", "never under the attacker's key")
        await reads_are_right(victim, running)
        for level in ("control", "full"):
            with pytest.raises(TamperedEvent, match=r"\$ledger version 6"):
                await running.verify(level)
    for keyring in (BOTH, Keyring.of(NEW), Keyring.of(OLD, [NEW])):
        with pytest.raises(TamperedEvent, match=r"\$ledger version 6"):
            async with opened(victim.url, keyring, verify="control"):
                pass
    assert (
        mine.text().reveal() not in repr(await attacker.sql("SELECT * FROM secret_event")).encode()
    )


async def test_a_control_stream_put_in_place_of_ours_is_damage_and_no_wrong_key(
    victim: Victim,
) -> None:
    attacker = victim.attacker
    ledger_id = await ledger_id_of(attacker)
    for label in ("k-mallory", "k-new"):
        kept = await saved(attacker, "secret_event", "ledger_key", "ledger_head")
        key = Key.from_bytes(bytes(range(201, 233)), label).for_ledger(ledger_id)
        theirs = genesis(key, ledger_id, victim.log[0].recorded_at)
        await attacker.sql("DELETE FROM secret_event WHERE stream = $1", CONTROL_STREAM)
        await attacker.sql("DELETE FROM ledger_key")
        await attacker.insert_rows("ledger_key", [(key.id, key.fingerprint)])
        await insert(attacker, *theirs)
        await attacker.sql("UPDATE ledger_head SET key_epoch = 1")
        for level in ("control", "latest", "full"):
            with pytest.raises(TamperedEvent, match="not a wrong key"):
                async with opened(victim.url, verify=level):
                    pass
        await put_back(attacker, kept)
    with pytest.raises(KeyFingerprintMismatch):  # and a wrong key is still one
        async with opened(victim.url, Keyring.of(Key.generate())):
            pass


async def test_planted_keys_and_lost_copies_of_them_are_tampering(victim: Victim) -> None:
    attacker = victim.attacker
    kept = await saved(attacker, "ledger_key")
    await attacker.insert_rows("ledger_key", [("k-mallory", b"\x07" * 32)])
    assert isinstance(await refused_or_found(victim), TamperedEvent)
    await attacker.sql("DELETE FROM ledger_key WHERE key_id <> 'k-new'")
    assert isinstance(await refused_or_found(victim), TamperedEvent)
    await attacker.sql("DELETE FROM ledger_key")
    assert isinstance(await refused_or_found(victim), TamperedEvent)
    await put_back(attacker, kept)
    await attacker.loosen("ledger_key")
    await attacker.insert_rows("ledger_key", [kept["ledger_key"][0]])
    assert isinstance(await refused_or_found(victim), TamperedEvent)


async def test_a_newest_rotation_cut_out_is_no_wrong_key_for_a_node_with_the_newest(
    victim: Victim,
) -> None:
    attacker = victim.attacker
    await remove(attacker, *(e for e in victim.log if e.stream == CONTROL_STREAM and e.version > 2))
    await attacker.sql("DELETE FROM ledger_key WHERE key_id = 'k-new'")
    await attacker.sql("UPDATE ledger_head SET key_epoch = 1")
    for keyring in (BOTH, Keyring.of(NEW)):
        with pytest.raises(TamperedEvent):
            async with opened(victim.url, keyring):
                pass
