"""What `secret-ledger keys rotate` of a later release writes, written by hand for the demo."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from ledger import Event, EventType, Key, NotALedger, StaleKey
from ledger.control import fold_control, key_metadata
from ledger.events import CONTROL_STREAM
from ledger.following import snapshot
from ledger.format import context_of, event_hash, seal
from ledger.store.database import connect


async def rotate_by_hand(url: str, old: Key, new: Key) -> None:
    """Introduce `new` under `old`, and activate it under itself: one transaction."""
    database = connect(url)
    try:
        state = await snapshot(database)
        if state is None:
            raise NotALedger(f"{database.place} holds no ledger")
        head = state.in_use[0]
        ledger_id = state.meta.ledger_id
        control = fold_control(ledger_id, head.generation, state.control)
        before, after = old.for_ledger(ledger_id), new.for_ledger(ledger_id)
        steps = ((before, EventType.KEY_INTRODUCED), (after, EventType.KEY_ACTIVATED))

        def unit(connection: Connection) -> None:
            locked = database.lock_head(connection, control.generation, control.epoch)
            if locked is None:
                raise StaleKey("the ledger was rotated meanwhile")
            sql = database.statements
            connection.execute(
                sql.insert_key, {"key_id": after.id, "key_fingerprint": after.fingerprint}
            )
            events: list[Event] = []
            for key, event_type in steps:
                last = events[-1] if events else control.last
                bare = Event(
                    generation=control.generation,
                    position=locked.head.position + len(events) + 1,
                    stream=CONTROL_STREAM,
                    version=last.version + 1,
                    event_type=event_type,
                    key_id=key.id,
                    key_fingerprint=key.fingerprint,
                    recorded_at=locked.now,
                    metadata=key_metadata(after.id, after.fingerprint, control.epoch + 1),
                    prev_hash=last.event_hash,
                    sealed=b"",
                    event_hash=b"",
                )
                context = context_of(ledger_id, bare)
                sealed = seal(key.event_cipher, context, b"")
                events.append(bare._replace(sealed=sealed, event_hash=event_hash(context, sealed)))
            database.insert_events(connection, events)
            connection.execute(
                sql.advance_head,
                {
                    "generation": control.generation,
                    "before": locked.head.position,
                    "position": events[-1].position,
                    "recorded_at": locked.now,
                    "key_epoch": control.epoch + 1,
                },
            )

        await database.run(unit, "write")
    finally:
        await database.close()
