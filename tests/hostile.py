"""An attacker with SQL access and without the key, and a ledger for him: help for tests."""
# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from attacker import TABLES, Attacker, attacking, events, put_back, saved
from inside import Event, EventType
from secret_ledger import (
    Finding,
    KeyFingerprintMismatch,
    Keyring,
    LedgerError,
    MissingKey,
    SecretLedger,
    StaleKey,
)
from victim import OLD, Truth, build, ending, opened

WRONG_KEY = (KeyFingerprintMismatch, StaleKey, MissingKey)

NUMBERS = ("generation", "position", "version", "recorded_at")
BYTES = ("key_fingerprint", "prev_hash", "sealed", "event_hash")


@dataclass(frozen=True)
class Victim:
    url: str
    truth: Truth
    attacker: Attacker
    log: Sequence[Event]

    def event(self, stream: str, version: int) -> Event:
        return next(e for e in self.log if (e.stream, e.version) == (stream, version))

    def head(self, stream: str) -> Event:
        return max((e for e in self.log if e.stream == stream), key=lambda e: e.version)


@dataclass(frozen=True)
class Original:
    truth: Truth
    rows: dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def originals() -> dict[str, Original]:
    """By backend: made once, and copied for each test."""
    return {}


@pytest.fixture
async def victim(database_url: str, originals: dict[str, Original]) -> AsyncIterator[Victim]:
    backend = database_url.partition("+")[0]
    if backend not in originals:
        truth = await build(database_url)
        async with attacking(database_url) as attacker:
            originals[backend] = Original(truth, await saved(attacker, *TABLES))
    else:
        await SecretLedger.init(database_url, Keyring.of(OLD))
    async with attacking(database_url) as attacker:
        await put_back(attacker, originals[backend].rows)
        yield Victim(database_url, originals[backend].truth, attacker, await events(attacker))


def flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def edits_of_every_column(event: Event) -> Iterator[tuple[str, object]]:
    """One other, plausible value for each column."""
    yield "generation", 7
    yield "position", event.position + 1000
    yield "stream", "elsewhere"
    yield "version", event.version + 50
    other_type = {
        EventType.WRITTEN: EventType.RESTORED,
        EventType.DELETED: EventType.WRITTEN,
        EventType.DESTROYED: EventType.WRITTEN,
        EventType.RESTORED: EventType.DELETED,
        EventType.KEY_INTRODUCED: EventType.KEY_ACTIVATED,
        EventType.KEY_ACTIVATED: EventType.KEY_RETIRED,
        EventType.LEDGER_UPGRADED: EventType.KEY_RETIRED,
    }
    yield "event_type", other_type[event.event_type]
    yield "key_id", "k-old" if event.key_id == "k-new" else "k-new"
    yield "key_fingerprint", flipped(event.key_fingerprint)
    yield "recorded_at", event.recorded_at + 1
    yield "metadata", '{"actor":"mallory"}'
    yield "prev_hash", flipped(event.prev_hash)
    yield "sealed", flipped(event.sealed)
    yield "event_hash", flipped(event.event_hash)


def names_row(found: Sequence[Finding], *places: tuple[str, int, int]) -> bool:
    return any(
        f.position == position or (f.stream, f.version) == (stream, version)
        for f in found
        for stream, version, position in places
    )


async def change(attacker: Attacker, event: Event, column: str, value: object) -> None:
    await attacker.sql(
        f"UPDATE secret_event SET {column} = $1 WHERE generation = $2 AND position = $3",
        value,
        event.generation,
        event.position,
    )


# --- the tables beside the log --------------------------------------------------------


async def refused_or_found(victim: Victim) -> LedgerError | Sequence[Finding]:
    """What a fresh start says: the refusal of its gate, or what `verify` finds."""
    try:
        async with opened(victim.url, read_only=True, verify="control") as ledger:
            return (await ledger.verify("full")).findings
    except LedgerError as error:
        return error


async def reads_are_right(victim: Victim, ledger: SecretLedger) -> None:
    for name, right in victim.truth.latest.items():
        got = await ending(ledger, name)
        assert got == right or not isinstance(got, bytes), name
        assert got not in WRONG_KEY, name


# --- rows moved, copied, taken out and made up ------------------------------------------


async def insert(attacker: Attacker, *rows: Event) -> None:
    await attacker.insert_rows("secret_event", [tuple(row) for row in rows])


async def remove(attacker: Attacker, *rows: Event) -> None:
    for row in rows:
        await attacker.sql(
            "DELETE FROM secret_event WHERE generation = $1 AND position = $2",
            row.generation,
            row.position,
        )


async def head_row(attacker: Attacker, position: int, recorded_at: int) -> None:
    await attacker.sql(
        "UPDATE ledger_head SET position = $1, recorded_at = $2", position, recorded_at
    )


async def ledger_id_of(attacker: Attacker) -> bytes:
    return bytes((await attacker.sql("SELECT ledger_id FROM ledger_meta"))[0][0])


async def gate_of(victim: Victim) -> None:
    async with opened(victim.url, read_only=True):
        pass
