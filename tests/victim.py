"""A ledger with every kind of secret in it, and the truth about what its reads must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from ledger import Key, Keyring, LedgerError, SecretLedger
from ledger.append import advance
from ledger.control import key_metadata
from ledger.events import CONTROL_STREAM, Event, EventType
from ledger.format import context_of, event_hash, seal

OLD = Key.from_bytes(bytes(range(1, 33)), "k-old")
NEW = Key.from_bytes(bytes(range(101, 133)), "k-new")
BOTH = Keyring.of(NEW, [OLD])

LARGE = b"large value " * 2000
"""Over the size up to which a page of rows carries its sealed bytes."""

Ending = bytes | type[LedgerError]
"""How a read ends: the value, or the kind of its error."""


@dataclass(frozen=True)
class Truth:
    """What every read of the undamaged ledger gives: by name, and by name and version."""

    latest: Mapping[str, Ending]
    versions: Mapping[tuple[str, int], Ending]


def opened(
    url: str, keyring: Keyring = BOTH, **options: Any
) -> AbstractAsyncContextManager[SecretLedger]:
    return SecretLedger.open(url, keyring, **options)


async def ending(ledger: SecretLedger, name: str, version: int | None = None) -> Ending:
    try:
        return (await ledger.get(name, version=version)).value.reveal()
    except LedgerError as error:
        return type(error)


async def told(ledger: SecretLedger, names: Sequence[tuple[str, int]]) -> Truth:
    latest = {name: await ending(ledger, name) for name, _ in names}
    return Truth(latest, {(n, v): await ending(ledger, n, v) for n, v in names})


async def build(url: str) -> Truth:
    """Fill an empty database: histories, a deletion, ends, a restore, a batch, a rotation."""
    async with opened(url, Keyring.of(OLD)) as ledger:
        for number in (1, 2):
            await ledger.put("alpha", f"alpha value {number}", actor="alice")
        await ledger.put("beta/one", "beta value 1", metadata={"ticket": 7})
        await ledger.put("deleted", "deleted value 1")
        await ledger.put("destroyed", "destroyed value 1")
        await rotate(ledger, OLD, NEW)
    async with opened(url) as ledger:
        await ledger.put("alpha", "alpha value 3", actor="bob")
        await ledger.put("beta/one", "beta value 2")
        await ledger.delete("deleted", actor="carol")
        await ledger.put("destroyed", "destroyed value 2")
        await ledger.destroy("destroyed", reason="leaked")
        await ledger.put("again", "again value 1")
        await ledger.destroy("again", reason="a clean start")
        await ledger.put("again", "again value 3")
        await ledger.put("back", "back value 1")
        await ledger.delete("back")
        await ledger.restore("back")
        await ledger.put("large", LARGE)
        await ledger.put_many({f"batch/{n}": f"batch value {n}" for n in (1, 2, 3)})
        names = [
            (info.name, version)
            async for info in ledger.list(deleted=True)
            for version in range(1, info.version + 1)
        ]
        return await told(ledger, names)


async def rotate(ledger: SecretLedger, old: Key, new: Key) -> None:
    """What `rotate` will write: introduced under the old key, activated under the new one."""
    control, database = ledger._follower.standing.control, ledger.database
    before, after = old.for_ledger(control.ledger_id), new.for_ledger(control.ledger_id)
    metadata = key_metadata(after.id, after.fingerprint, control.epoch + 1)

    def unit(connection: Connection) -> None:
        locked = database.lock_head(connection, control.generation, control.epoch)
        assert locked is not None
        key = {"key_id": after.id, "key_fingerprint": after.fingerprint}
        connection.execute(database.statements.insert_key, key)
        events: list[Event] = []
        for key_, event_type in (
            (before, EventType.KEY_INTRODUCED),
            (after, EventType.KEY_ACTIVATED),
        ):
            last = events[-1] if events else control.last
            bare = Event(
                control.generation,
                locked.head.position + len(events) + 1,
                CONTROL_STREAM,
                last.version + 1,
                event_type,
                key_.id,
                key_.fingerprint,
                locked.now,
                metadata,
                last.event_hash,
                b"",
                b"",
            )
            context = context_of(control.ledger_id, bare)
            sealed = seal(key_.event_cipher, context, b"")
            events.append(bare._replace(sealed=sealed, event_hash=event_hash(context, sealed)))
        database.insert_events(connection, events)
        head = locked.head._replace(
            position=events[-1].position, recorded_at=locked.now, key_epoch=control.epoch + 1
        )
        advance(connection, database, locked.head, head)

    await database.run(unit, "write")
