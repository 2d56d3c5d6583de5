"""The rows of a log, read and written on one connection with the format's own functions.

What `log_builder` builds with; a test that writes something refused may use it directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import column, table, update

from inside import (
    CONTROL_STREAM,
    FORMAT,
    NO_HASH,
    SCHEMA_VERSION,
    Connection,
    Control,
    Database,
    Event,
    EventType,
    Key,
    LedgerKey,
    LogHead,
    RowDigest,
    apply,
    encode_metadata,
    ended_at,
    events_page,
    floor_facts,
    fold_control,
    hash_of,
    is_purged,
    open_event,
    parse_metadata,
    purge,
    read_meta,
    read_state,
    seal_event,
    state_of,
)

_EVERYTHING = 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An event before it has a place in the log; `key` None stands for the active one."""

    stream: str
    event_type: str
    data: bytes = b""
    metadata: str = "{}"
    key: LedgerKey | None = None


def _with_floor(control: Control, last: Event | None, entry: Entry) -> str:
    """An entry's metadata with the floor that it must state, unless it states one."""
    said = parse_metadata(entry.metadata)
    if entry.stream == CONTROL_STREAM or not control.upgrades or "floor" in said.ledger:
        return entry.metadata
    floor = ended_at(control, last) if last is not None else 0
    assert floor is not None, "the builder walks no chain"
    return encode_metadata(
        actor=said.actor,
        reason=said.reason,
        user=said.user,
        ledger={**said.ledger, **floor_facts(control, floor)},
    )


class LogRows:
    """The rows of one ledger. Every method runs inside its caller's transaction."""

    def __init__(self, database: Database, ledger_id: bytes, keys: Sequence[Key] = ()) -> None:
        self.database = database
        self.ledger_id = ledger_id
        self.keys = {bound.fingerprint: bound for bound in map(self.bound, keys)}

    def bound(self, key: Key) -> LedgerKey:
        """The key with its fingerprint in this ledger."""
        return key.for_ledger(self.ledger_id)

    def append(
        self,
        connection: Connection,
        head: LogHead,
        entries: Sequence[Entry],
        *,
        state: str = "active",
        activations: int = 0,
    ) -> list[Event]:
        self.database.lock_generation(connection, head.generation)
        control = self.control(connection, head.generation)
        active = self.keys[control.active.fingerprint]
        newest = {e.stream: e for e in self.events(connection, head.generation)}
        now = max(head.recorded_at, self.database.clock(connection))
        added: list[Event] = []
        for position, entry in enumerate(entries, head.position + 1):
            last = newest.get(entry.stream)
            key = entry.key or active
            event = Event(
                generation=head.generation,
                position=position,
                stream=entry.stream,
                version=last.version + 1 if last else 1,
                event_type=entry.event_type,
                key_id=key.id,
                key_fingerprint=key.fingerprint,
                recorded_at=now,
                metadata=_with_floor(control, last, entry),
                prev_hash=last.event_hash if last else NO_HASH,
                sealed=b"",
                event_hash=b"",
            )
            newest[entry.stream] = seal_event(key.event_cipher, self.ledger_id, event, entry.data)
            added.append(newest[entry.stream])
        self.database.insert_events(connection, added)
        after = head._replace(
            position=added[-1].position,
            recorded_at=now,
            key_epoch=head.key_epoch + activations,
            state=state,
        )
        self.set_head(connection, head.generation, after._asdict())
        return added

    def ends(self, connection: Connection, head: LogHead, key: LedgerKey) -> list[Entry]:
        """What ends the secrets whose newest event lies under a key that is given up."""
        newest = {e.stream: e for e in self.events(connection, head.generation)}
        about = {"unopened": True, "lost": key.id}
        return [
            Entry(
                event.stream,
                EventType.DESTROYED,
                metadata=encode_metadata(
                    ledger={**about, "floor": event.version, "rows": {"count": event.version}}
                ),
            )
            for event in newest.values()
            if event.key_fingerprint == key.fingerprint and event.stream != CONTROL_STREAM
        ]

    def under(self, connection: Connection, head: LogHead, keys: set[bytes]) -> Mapping[str, Any]:
        """Count and digest of all rows of a generation under these keys."""
        digest = RowDigest()
        for event in self.events(connection, head.generation):
            if event.key_fingerprint in keys:
                digest.add(event)
        return digest.facts()

    def copied(self, connection: Connection, generation: int, to: int) -> list[Event]:
        """Every event as a migration carries it: the same, but under the active key; purged
        where nobody may read it any more."""
        control = self.control(connection, generation)
        active = self.keys[control.active.fingerprint]
        lost = {key.fingerprint for key in control.keys if key.lost is not None}
        events = self.events(connection, generation)
        ends = {e.stream: e.version for e in events if e.event_type == EventType.DESTROYED}
        newest: dict[str, bytes] = {}
        copied: list[Event] = []
        for event in events:
            bare = event._replace(
                generation=to, prev_hash=newest.get(event.stream, NO_HASH), event_hash=b""
            )
            under_lost = event.key_fingerprint in lost
            if ends.get(event.stream, 0) > event.version or (
                under_lost and state_of(event) == "live" and event.stream != CONTROL_STREAM
            ):
                sealed = event.sealed if is_purged(event.sealed) else purge(event.sealed)
                new = bare._replace(sealed=sealed)
                new = new._replace(event_hash=hash_of(self.ledger_id, new))
            else:
                data = b"" if under_lost else self.opened(event)
                new = seal_event(
                    active.event_cipher,
                    self.ledger_id,
                    bare._replace(key_id=active.id, key_fingerprint=active.fingerprint, sealed=b""),
                    data,
                )
            newest[event.stream] = new.event_hash
            copied.append(new)
        return copied

    def opened(self, event: Event) -> bytes:
        key = self.keys[event.key_fingerprint]
        return open_event(key.event_cipher, self.ledger_id, event)

    def about(self, key: LedgerKey) -> Mapping[str, Any]:
        return {"key": {"id": key.id, "fingerprint": key.fingerprint.hex()}}

    def about_generation(self, control: Control, new: int, **more: object) -> str:
        active = self.keys[control.active.fingerprint]
        return encode_metadata(
            ledger={"generation": new, "from": control.generation, **self.about(active), **more}
        )

    def control(self, connection: Connection, generation: int) -> Control:
        events = self.events(connection, generation)
        return fold_control(
            self.ledger_id, generation, [e for e in events if e.stream == CONTROL_STREAM]
        )

    def events(self, connection: Connection, generation: int) -> list[Event]:
        return events_page(connection, self.database, generation, 0, _EVERYTHING, limit=_EVERYTHING)

    def in_use(self, connection: Connection) -> LogHead:
        meta = read_meta(connection, self.database)
        assert meta is not None
        return read_state(connection, self.database, meta).in_use[0]

    def make_schema(self, connection: Connection, upto: int) -> None:
        self.database.begin_creation(connection)
        apply(connection, self.database, after=0, upto=upto)
        format_ = FORMAT if upto == SCHEMA_VERSION else 1
        connection.execute(
            self.database.statements.insert_meta,
            {"ledger_id": self.ledger_id, "format": format_, "schema_version": upto},
        )

    def add_key(self, connection: Connection, key: LedgerKey) -> None:
        connection.execute(
            self.database.statements.insert_key,
            {"key_id": key.id, "key_fingerprint": key.fingerprint},
        )

    def set_head(
        self, connection: Connection, generation: int, columns: Mapping[str, object]
    ) -> None:
        """Change columns of a head row."""
        heads = table(
            "ledger_head",
            *(column(name) for name in LogHead._fields),
            schema=self.database.schema,
        )
        change = update(heads).where(heads.c.generation == generation).values(**columns)
        connection.execute(change)

    def insert_head(self, connection: Connection, head: LogHead) -> None:
        connection.execute(self.database.statements.insert_head, head._asdict())
