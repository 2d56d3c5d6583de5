"""An attacker with SQL access and without the key: what reads give, and what checks find."""
# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attacker import TABLES, Attacker, attacking, events, put_back, saved
from secret_ledger import (
    Finding,
    InvalidName,
    Key,
    KeyFingerprintMismatch,
    Keyring,
    LedgerError,
    MissingKey,
    SchemaOutdated,
    SchemaTooNew,
    SecretDestroyed,
    SecretLedger,
    SecretNotFound,
    StaleKey,
    TamperedEvent,
    WrongLedger,
)
from secret_ledger.boot.boot import BootOptions, boot
from secret_ledger.boot.creation import genesis
from secret_ledger.model.control import key_metadata
from secret_ledger.model.events import CONTROL_STREAM, NO_HASH, Event, EventType
from secret_ledger.model.format import context_of, event_hash, hash_of, purge, seal
from secret_ledger.model.keys import LedgerKey
from secret_ledger.model.rows import Head
from secret_ledger.nodes.registry import Identity
from secret_ledger.rules.findings import Level
from secret_ledger_projections import SysSecret, rebuild
from victim import BOTH, NEW, OLD, Ending, Truth, build, ending, opened

WRONG_KEY = (KeyFingerprintMismatch, StaleKey, MissingKey)
PLACE = ("generation", "stream", "version")
"""Columns that take a row out of its stream: the version before it is then an authentic head."""

NUMBERS = ("generation", "position", "version", "recorded_at")
TEXTS = ("stream", "event_type", "key_id", "metadata")
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


@pytest.fixture(scope="module")
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


def crafted_edits(event: Event, ledger_id: bytes) -> Iterator[tuple[str, object]]:
    """Values at the edges of what a column can hold."""
    for column in ("position", "version"):
        yield from ((column, value) for value in (0, -1, 2**31, 2**63 - 1, -(2**63)))
    yield from (("recorded_at", value) for value in (0, -1, 2**63 - 1, -(2**63)))
    yield from (("generation", value) for value in (1, -1, 2**31 - 1))
    for text in (
        "",
        "ALPHA",
        "alpha ",
        "\u0430lpha",
        "alpha\u200b",
        "$ledger ",
        "a\x01b",
        "x" * 600,
    ):
        yield "stream", text
    yield from (("event_type", text) for text in ("", "secret.rekeyed", "key.lost", "os.system"))
    yield from (("key_id", text) for text in ("", "K-NEW", "k" * 70_000))
    for text in ("", "{}", "[]", "null", "{", '{"ledger":{"state":"live"}}', "[" * 5000, "é" * 99):
        yield "metadata", text
    for old in (
        b"",
        b"\x00" * 32,
        event.key_fingerprint * 2,
        OLD.for_ledger(ledger_id).fingerprint,
    ):
        yield "key_fingerprint", old
    yield from (("prev_hash", raw) for raw in (b"", NO_HASH, event.event_hash))
    yield from (("event_hash", raw) for raw in (b"", NO_HASH, event.prev_hash, b"\xff" * 4096))
    sealed = event.sealed
    for raw in (
        b"",
        b"\x00",
        b"\x01",
        b"\x02" + sealed[1:],
        sealed[:-1],
        sealed[:-16],
        sealed[:29],
    ):
        yield "sealed", raw
    yield from (("sealed", raw) for raw in (sealed + b"\x00", purge(sealed), b"\x00" * 34))


def allowed(
    victim: Victim, event: Event, column: str, name: str, version: int | None
) -> set[Ending]:
    """What a read may give beside a typed error."""
    truth = victim.truth
    if version is not None:
        right = {truth.versions[name, version]}
        displaced = event.stream == name and event.event_type == EventType.DESTROYED
        if displaced and column in (*PLACE, "event_type") and version < event.version:
            # With its end displaced, an earlier version is an authentic one.
            right |= {f"{name} value {version}".encode()}
        return right
    right = {truth.latest[name]}
    if event.stream == name and column in PLACE:
        right |= {
            v for (n, number), v in truth.versions.items() if n == name and number < event.version
        }
        if event.event_type == EventType.DESTROYED:
            right |= {f"{name} value {n}".encode() for n in range(1, event.version)}
    return right


async def problems_of_reads(
    victim: Victim, ledger: SecretLedger, event: Event, column: str, edited: Event
) -> list[str]:
    """Every read of the streams in question, and of one other, that gave something wrong."""
    wrong: list[str] = []
    streams = {event.stream, edited.stream, "batch/2"}
    reads: list[tuple[str, int | None]] = [(n, None) for n in victim.truth.latest if n in streams]
    reads += [(name, version) for name, version in victim.truth.versions if name in streams]
    for name, version in reads:
        got = await ending(ledger, name, version)
        if isinstance(got, bytes):
            if got not in allowed(victim, event, column, name, version):
                wrong.append(f"get({name}, {version}) gave {got[:40]!r}")
        elif got in WRONG_KEY or (
            got is SecretNotFound and not (event.stream == name and column in PLACE)
        ):
            wrong.append(f"get({name}, {version}) said {got.__name__}")
    return wrong


def names_row(found: Sequence[Finding], *places: tuple[str, int, int]) -> bool:
    return any(
        f.position == position or (f.stream, f.version) == (stream, version)
        for f in found
        for stream, version, position in places
    )


async def gate(ledger: SecretLedger, level: Level = "latest") -> None:
    """The boot gate, on connections that are open already."""
    options = BootOptions(create=False, verify=level, read_only=True, pinned=None)
    await boot(ledger.database, BOTH, Identity.of("another"), options)


async def problems_of_checks(
    victim: Victim, ledger: SecretLedger, event: Event, edited: Event
) -> list[str]:
    """What `verify` and a new boot fail to say."""
    control = event.stream == CONTROL_STREAM
    places = [(e.stream, e.version, e.position) for e in (event, edited)]
    wrong: list[str] = []
    try:
        report = await ledger.verify("full")
    except LedgerError as error:
        if not isinstance(error, TamperedEvent):
            wrong.append(f"verify raised {error!r}")
        elif not control and error.details.get("position") != event.position:
            wrong.append(f"verify raised {error!r}, {error.details}")
    else:
        if report.ok:
            wrong.append("verify found nothing")
        elif not names_row(report.findings, *places):
            wrong.append(f"verify does not name the row: {report.findings}")
        if any(f.kind == "missing_key" for f in report.findings):
            wrong.append(f"verify speaks of a missing key: {report.findings}")
    try:
        await gate(ledger)
        if control or victim.head(event.stream) == event:
            wrong.append("a boot passed")
    except LedgerError as error:
        if not isinstance(error, TamperedEvent):
            wrong.append(f"a boot ended in {error!r}")
    return wrong


async def try_edits(
    victim: Victim,
    rows: Sequence[Event],
    edits: Callable[[Event], Iterator[tuple[str, object]]],
) -> None:
    problems: list[str] = []
    async with opened(victim.url, projections=()) as ledger:
        for event in rows:
            for column, value in edits(event):
                if value == getattr(event, column):
                    continue
                edited = event._replace(**{column: value})  # type: ignore[arg-type]
                await change(victim.attacker, event, column, value)
                found = await problems_of_reads(victim, ledger, event, column, edited)
                found += await problems_of_checks(victim, ledger, event, edited)
                await change(victim.attacker, edited, column, getattr(event, column))
                problems += [f"{event!r} {column} = {value!r:.60}: {line}" for line in found]
        assert (await ledger.verify("full")).ok  # what was put back is whole again
    assert not problems, "\n".join(problems)


async def change(attacker: Attacker, event: Event, column: str, value: object) -> None:
    await attacker.sql(
        f"UPDATE secret_event SET {column} = $1 WHERE generation = $2 AND position = $3",
        value,
        event.generation,
        event.position,
    )


async def test_an_edit_of_any_column_of_any_event_gives_no_wrong_value_and_is_found(
    victim: Victim,
) -> None:
    await try_edits(victim, victim.log, edits_of_every_column)


async def test_values_at_the_edges_of_a_column_are_found_too(victim: Victim) -> None:
    async with opened(victim.url) as ledger:
        ledger_id = bytes.fromhex(ledger.ledger_id)
    rows = [victim.event("alpha", 2), victim.head("alpha"), victim.event(CONTROL_STREAM, 2)]
    await try_edits(victim, rows, lambda event: crafted_edits(event, ledger_id))


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


UNREAD = {"only_row", "sys_secret_position"}
"""The first says nothing, and nothing reads it; the other is the read side's."""
BESIDE_THE_LOG: dict[str, dict[str, list[object]]] = {
    "ledger_meta": {
        "ledger_id": [b"\x07" * 16, b""],
        "format": [0, -1],
        "schema_version": [0, -1],
    },
    "ledger_head": {
        "generation": [1, 7],
        "position": [0, 1, 2, 9, 23, 24, 26, 1000, -1, 2**62],
        "recorded_at": [0, -1, 2**62],
        "key_epoch": [0, 1, 2, 4, -1, 2**62],
        "state": ["building", "closed", "purging", "purged", "moved", "", "x"],
    },
    "ledger_key": {
        "key_id": ["k-third", ""],
        "key_fingerprint": [b"\x07" * 32, b"", b"\x00" * 33],
    },
}


@pytest.mark.parametrize("table", list(BESIDE_THE_LOG))
async def test_an_edit_beside_the_log_is_tampering_and_gives_no_wrong_value(
    victim: Victim, table: str
) -> None:
    assert set(await victim.attacker.columns(table)) - UNREAD == set(BESIDE_THE_LOG[table])
    kept = await saved(victim.attacker, table)
    where = " WHERE key_id = 'k-new'" if table == "ledger_key" else ""
    for column, values in BESIDE_THE_LOG[table].items():
        for value in values:
            # A node of its own for each: an edit of the head row moves what a node has seen.
            async with opened(victim.url, verify="control", projections=()) as running:
                await victim.attacker.sql(f"UPDATE {table} SET {column} = $1{where}", value)
                said = await refused_or_found(victim)
                assert isinstance(said, TamperedEvent | tuple), (column, value, said)
                assert said != (), (column, value)
                await reads_are_right(victim, running)
                await put_back(victim.attacker, kept)
    assert await refused_or_found(victim) == ()


async def test_a_schema_or_format_of_another_release_is_refused_as_such(victim: Victim) -> None:
    for column, value in (("format", 3), ("schema_version", 99), ("schema_version", 1)):
        kept = await saved(victim.attacker, "ledger_meta")
        await victim.attacker.sql(f"UPDATE ledger_meta SET {column} = $1", value)
        assert isinstance(await refused_or_found(victim), SchemaTooNew | SchemaOutdated)
        await put_back(victim.attacker, kept)


async def test_an_edit_of_the_read_side_is_found_and_changes_no_read(victim: Victim) -> None:
    attacker = victim.attacker
    edits: list[tuple[str, str, object]] = [
        ("secret_current", "generation", 3),
        ("secret_current", "name", "alphb"),
        ("secret_current", "version", 2),
        ("secret_current", "position", 4),
        ("secret_current", "state", "deleted"),
        ("secret_current", "key_id", "k-old"),
        ("secret_current", "key_fingerprint", b"\x07" * 32),
        ("secret_current", "created_at", 0),
        ("secret_current", "created_by", "mallory"),
        ("secret_current", "updated_at", 0),
        ("secret_current", "updated_by", "mallory"),
    ]
    tables = ["secret_current"]
    if victim.url.startswith("sqlite"):
        edits += [("ledger_head", "sys_secret_position", value) for value in (7, 7000)]
    else:
        tables.append("projection_checkpoint")
        edits += [
            ("projection_checkpoint", "projection", "other"),
            ("projection_checkpoint", "generation", 3),
            ("projection_checkpoint", "position", 7),
            ("projection_checkpoint", "position", 7000),
        ]
    assert {t: set(await attacker.columns(t)) for t in tables} == {
        t: {column for table, column, _ in edits if table == t} for t in tables
    }
    for table, column, value in edits:
        kept = await saved(attacker, table)
        async with opened(victim.url) as ledger:
            where = " WHERE name = 'alpha'" if table == "secret_current" else ""
            await attacker.sql(f"UPDATE {table} SET {column} = $1{where}", value)
            report = await ledger.verify("full")
            assert report.findings, (table, column, value)
            assert {f.kind for f in report.findings} == {"projection"}
            await reads_are_right(victim, ledger)
            await put_back(attacker, kept)


async def test_what_anybody_wrote_among_the_nodes_is_shown_and_decides_nothing(
    victim: Victim,
) -> None:
    async with opened(victim.url, node="honest"):
        columns = await victim.attacker.columns("ledger_node")
        for text in ("\x1b[31m", "[" * 5000, "{}"):
            texts = [c for c in columns if c in ("node", "host", "readable", "reason", "key_id")]
            for column in texts:
                await victim.attacker.sql(f"UPDATE ledger_node SET {column} = $1", text)
            async with opened(victim.url) as ledger:
                shown = [repr(node.node) + node.host for node in await ledger.nodes()]
                assert "\x1b" not in "".join(shown)
        await victim.attacker.loosen("ledger_node")
        for value in WRONG_TYPES if victim.url.startswith("sqlite") else [None]:
            kept = await saved(victim.attacker, "ledger_node")
            for column in columns:
                await victim.attacker.sql(f"UPDATE ledger_node SET {column} = $1", value)
            async with opened(victim.url, read_only=True) as ledger:
                assert await ledger.nodes()
            await put_back(victim.attacker, kept)


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


def rehashed(ledger_id: bytes, event: Event, **changes: object) -> Event:
    """The row with changes, and with the hash that everybody can recompute."""
    changed = event._replace(**changes)  # type: ignore[arg-type]
    return changed._replace(event_hash=hash_of(ledger_id, changed))


async def ledger_id_of(attacker: Attacker) -> bytes:
    return bytes((await attacker.sql("SELECT ledger_id FROM ledger_meta"))[0][0])


async def swap(victim: Victim, a: Event, b: Event, columns: Sequence[str]) -> list[Event]:
    """Give two rows each other's columns, with hashes that fit."""
    ledger_id = await ledger_id_of(victim.attacker)
    await remove(victim.attacker, a, b)
    changed = [
        rehashed(ledger_id, one, **{c: getattr(other, c) for c in columns})
        for one, other in ((a, b), (b, a))
    ]
    await insert(victim.attacker, *changed)
    return changed


SWAPS = [
    (("alpha", 3), ("beta/one", 2), ["stream", "version"]),
    (("alpha", 3), ("beta/one", 2), ["sealed"]),
    (("alpha", 3), ("beta/one", 2), ["sealed", "prev_hash", "metadata", "recorded_at"]),
    (("alpha", 1), ("alpha", 2), ["version"]),
    (("alpha", 2), ("alpha", 3), ["version", "prev_hash"]),
    (("alpha", 1), ("alpha", 2), ["position"]),
    (("batch/1", 1), ("batch/2", 1), ["position"]),
    (("batch/1", 1), ("batch/2", 1), ["stream"]),
    (("alpha", 1), ("alpha", 3), ["key_id", "key_fingerprint"]),
]


async def test_rows_that_changed_places_give_no_value_of_each_other(victim: Victim) -> None:
    kept = await saved(victim.attacker, "secret_event")
    async with opened(victim.url) as running:
        for first, second, columns in SWAPS:
            a, b = victim.event(*first), victim.event(*second)
            changed = await swap(victim, a, b, columns)
            for name, version in {(e.stream, e.version) for e in (a, b)}:
                assert await ending(running, name, version) is TamperedEvent
            findings = (await running.verify("full")).findings
            for event in changed:
                assert names_row(findings, (event.stream, event.version, event.position))
            await reads_are_right(victim, running)
            await put_back(victim.attacker, kept)


async def test_an_older_event_replayed_as_the_newest_is_tampering(victim: Victim) -> None:
    old, last = victim.event("alpha", 1), victim.log[-1]
    ledger_id = await ledger_id_of(victim.attacker)
    replayed = rehashed(
        ledger_id,
        old,
        version=4,
        position=last.position + 1,
        recorded_at=last.recorded_at,
        prev_hash=victim.head("alpha").event_hash,
        key_id="k-new",
        key_fingerprint=NEW.for_ledger(ledger_id).fingerprint,
    )
    async with opened(victim.url) as running:
        await insert(victim.attacker, replayed)
        await head_row(victim.attacker, replayed.position, replayed.recorded_at)
        assert await ending(running, "alpha") is TamperedEvent
        with pytest.raises(TamperedEvent):
            await running.put("alpha", "built on a replay")
        findings = (await running.verify("full")).findings
    assert names_row(findings, ("alpha", 4, replayed.position))
    with pytest.raises(TamperedEvent, match="alpha version 4"):
        await gate_of(victim)


async def gate_of(victim: Victim) -> None:
    async with opened(victim.url, read_only=True):
        pass


async def test_a_stream_taken_out_and_the_rest_renumbered_is_found(victim: Victim) -> None:
    ledger_id = await ledger_id_of(victim.attacker)
    rest = [e for e in victim.log if e.stream != "beta/one"]
    renumbered = [rehashed(ledger_id, e, position=n) for n, e in enumerate(rest, 1)]
    async with opened(victim.url) as running:
        await victim.attacker.sql("DELETE FROM secret_event")
        await insert(victim.attacker, *renumbered)
        await head_row(victim.attacker, len(renumbered), renumbered[-1].recorded_at)
        for name in victim.truth.latest:
            assert await ending(running, name) in (TamperedEvent, SecretNotFound)
    with pytest.raises(TamperedEvent):
        await gate_of(victim)


async def test_a_stretch_cut_out_of_the_middle_is_found_renumbered_or_not(victim: Victim) -> None:
    cut = [e for e in victim.log if e.stream == "again"]
    await remove(victim.attacker, *cut)
    with pytest.raises(TamperedEvent, match="22 rows"):
        await gate_of(victim)
    async with opened(victim.url, verify="control") as ledger:
        findings = (await ledger.verify("full")).findings
        assert any(f.position == cut[0].position for f in findings)
    later = [e for e in victim.log if e.position > cut[-1].position]
    ledger_id = await ledger_id_of(victim.attacker)
    await remove(victim.attacker, *later)
    await insert(
        victim.attacker, *(rehashed(ledger_id, e, position=e.position - len(cut)) for e in later)
    )
    await head_row(victim.attacker, victim.log[-1].position - len(cut), later[-1].recorded_at)
    with pytest.raises(TamperedEvent):
        await gate_of(victim)


async def test_a_removed_head_leaves_the_version_before_it_and_is_found_at_boot(
    victim: Victim,
) -> None:
    async with opened(victim.url) as running:
        await remove(victim.attacker, victim.head("alpha"))
        assert await ending(running, "alpha") == b"alpha value 2"
        assert not (await running.verify("latest")).ok
        assert not (await running.verify("full")).ok
    with pytest.raises(TamperedEvent):
        await gate_of(victim)


async def test_rows_behind_the_end_of_the_log_are_found_by_both_levels(victim: Victim) -> None:
    """The head row set back within a batch, whose events all have one time."""
    async with opened(victim.url, projections=()) as running:
        await victim.attacker.sql("UPDATE ledger_head SET position = position - 1")
        with pytest.raises(TamperedEvent):
            await running.put("new", "value")
        for level in ("latest", "full"):
            assert any(f.position == 25 for f in (await running.verify(level)).findings)
    with pytest.raises(TamperedEvent):
        await gate_of(victim)


async def test_nothing_is_built_on_a_head_row_that_is_not_at_the_last_event(
    victim: Victim,
) -> None:
    """Its place and its time would be sealed into the log, for ever: beyond a gap that no boot
    passes, or at the end of time."""
    edits = [("position", n) for n in (99, 1000, 2**40, 2**63 - 2, 2**63 - 1)]
    edits += [("recorded_at", n) for n in (0, 2**62, 2**63 - 1)]
    async with opened(victim.url, projections=()) as running:
        for number, (column, value) in enumerate(edits):
            # Also right behind a write of its own.
            await running.put("written", f"{number}")
            kept = await saved(victim.attacker, "ledger_head")
            for _ in range(2):
                await victim.attacker.sql(f"UPDATE ledger_head SET {column} = $1", value)
                for work in (
                    running.put("new", "value"),
                    running.put_many({"new": "value", "newer": "value"}),
                    running.destroy("alpha", reason="a try"),
                    running.lost("k-old", reason="a try"),
                ):
                    with pytest.raises(TamperedEvent, match="head row"):
                        await work
                await put_back(victim.attacker, kept)
        assert (await running.put("new", "value")).recorded_at.year < 2100
        assert (await running.verify("full")).ok


async def test_rows_of_a_generation_that_is_not_there_are_found(victim: Victim) -> None:
    planted = victim.event("alpha", 1)._replace(generation=5)
    async with opened(victim.url) as ledger:
        await insert(victim.attacker, planted)
        findings = (await ledger.verify("full")).findings
        assert 5 in [finding.generation for finding in findings]
        await reads_are_right(victim, ledger)
    with pytest.raises(TamperedEvent, match="generation 5"):
        await gate_of(victim)


async def test_a_planted_head_row_of_a_generation_without_rows_is_found(victim: Victim) -> None:
    for state in ("active", "moved", "closed"):
        kept = await saved(victim.attacker, "ledger_head")
        if state in ("active", "moved"):
            await victim.attacker.loosen("ledger_head")
        await victim.attacker.insert_rows("ledger_head", [(9, 3, 1, 1, state)])
        said = await refused_or_found(victim)
        assert isinstance(said, TamperedEvent) or (said and not isinstance(said, LedgerError)), (
            state
        )
        await put_back(victim.attacker, kept)


async def test_rows_of_another_ledger_under_the_same_root_key_open_nothing(
    victim: Victim, tmp_path: Path
) -> None:
    other_url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    other = await build(other_url)
    assert other == victim.truth
    async with attacking(other_url) as attacker:
        foreign = await events(attacker)
    wanted = victim.event("alpha", 3)
    theirs = next(e for e in foreign if (e.stream, e.version) == ("alpha", 3))
    ledger_id = await ledger_id_of(victim.attacker)
    async with opened(victim.url) as running:
        for changes in (
            {},
            {"key_fingerprint": wanted.key_fingerprint, "prev_hash": wanted.prev_hash},
        ):
            await remove(victim.attacker, wanted)
            moved = rehashed(ledger_id, theirs, recorded_at=wanted.recorded_at, **changes)
            await insert(victim.attacker, moved)
            assert await ending(running, "alpha") is TamperedEvent
            findings = (await running.verify("full")).findings
            assert names_row(findings, ("alpha", 3, wanted.position))
            await remove(victim.attacker, moved)
            await insert(victim.attacker, wanted)


async def test_a_name_that_only_looks_the_same_is_another_secret_and_a_found_row(
    victim: Victim,
) -> None:
    ledger_id = await ledger_id_of(victim.attacker)
    last = victim.log[-1]
    lookalike = rehashed(
        ledger_id,
        victim.event("alpha", 1),
        stream="\u0430lpha",
        position=last.position + 1,
        recorded_at=last.recorded_at,
    )
    await insert(victim.attacker, lookalike)
    await head_row(victim.attacker, lookalike.position, last.recorded_at)
    with pytest.raises(TamperedEvent, match="\u0430lpha version 1"):
        await gate_of(victim)
    async with opened(victim.url, verify="control") as ledger:
        assert await ending(ledger, "alpha") == b"alpha value 3"
        assert await ending(ledger, "\u0430lpha") is TamperedEvent


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


# --- tables taken apart -----------------------------------------------------------------


async def test_rows_that_share_a_place_are_found_and_give_no_wrong_value(victim: Victim) -> None:
    attacker = victim.attacker
    ledger_id = await ledger_id_of(attacker)
    await attacker.loosen("secret_event")
    alpha, beta, large = victim.head("alpha"), victim.head("beta/one"), victim.head("large")
    doubles = [
        rehashed(ledger_id, beta, stream="alpha", version=3),  # one more newest version
        rehashed(ledger_id, alpha, version=1),  # behind the head, where no read of it comes
        rehashed(ledger_id, large, sealed=large.sealed[::-1].replace(large.sealed[:1], b"\x01")),
        alpha,  # an exact copy
    ]
    for double in doubles:
        await insert(attacker, double)
        async with opened(victim.url, verify="control", projections=()) as ledger:
            for name, version in victim.truth.versions:
                got = await ending(ledger, name, version)
                assert got in (victim.truth.versions[name, version], TamperedEvent)
            # Of two rows in one place the database gives either: `latest` may get the true one.
            assert not (await ledger.verify("full")).ok, double
        await attacker.sql("DELETE FROM secret_event")
        await insert(attacker, *victim.log)
    await gate_of(victim)


WRONG_TYPES: list[object] = [None, 55, -(2**63), 2.5, "text", b"bytes", b"\xff\xfe", "", b""]


@pytest.mark.parametrize("stream", ["alpha", CONTROL_STREAM, "large"])
async def test_values_of_no_type_that_was_ever_written_are_named_like_other_damage(
    victim: Victim, stream: str
) -> None:
    """SQLite without STRICT takes any value anywhere; PostgreSQL without NOT NULL, nothing."""
    attacker, event = victim.attacker, victim.head(stream)
    await attacker.loosen("secret_event")
    sqlite = victim.url.startswith("sqlite")
    async with opened(victim.url, projections=()) as ledger:
        for column in Event._fields:
            for value in WRONG_TYPES if sqlite else [None]:
                await change(attacker, event, column, value)
                if value in ("text", "") and column in TEXTS:
                    await attacker.sql(
                        f"UPDATE secret_event SET {column} = CAST($1 AS TEXT)"
                        f" WHERE {column} IS NOT NULL AND {column} = $2",
                        b"\xff\x00\xfe",
                        value,
                    )
                await holds_out(victim, ledger, event, column, value)
                await attacker.sql("DELETE FROM secret_event")
                await insert(attacker, *victim.log)
        assert (await ledger.verify("full")).ok


async def holds_out(
    victim: Victim, ledger: SecretLedger, event: Event, column: str, value: object
) -> None:
    """Reads are right or typed, listings end, and the damage is found."""
    what = f"{column} = {value!r}"
    for name in {event.stream, "beta/one"} - {CONTROL_STREAM}:
        for version in (None, *range(1, event.version + 1)):
            if version is None or (name, version) in victim.truth.versions:
                got = await ending(ledger, name, version)
                right = allowed(victim, event, column, name, version)
                assert got in right or not isinstance(got, bytes), what
                assert got not in WRONG_KEY, what
    listed = [info.name async for info in ledger.list(deleted=True)]
    assert {"beta/one", "batch/3"} <= set(listed), what
    with contextlib.suppress(SecretNotFound, InvalidName):
        assert [info async for info in ledger.history(event.stream)], what
    try:
        assert not (await ledger.verify("full")).ok, what
    except TamperedEvent:
        assert event.stream == CONTROL_STREAM, what
    with contextlib.suppress(TamperedEvent):
        await gate(ledger)
        assert column != "sealed", what


@pytest.mark.parametrize("table", ["ledger_meta", "ledger_head", "ledger_key"])
async def test_wrong_types_beside_the_log_are_tampering(victim: Victim, table: str) -> None:
    attacker = victim.attacker
    await attacker.loosen(table)
    kept = await saved(attacker, table)
    sqlite = victim.url.startswith("sqlite")
    async with opened(victim.url) as running:
        for column in await attacker.columns(table):
            for value in WRONG_TYPES if sqlite else [None]:
                if (column, value) == ("generation", 55) or column in UNREAD:
                    continue
                await attacker.sql(f"UPDATE {table} SET {column} = $1", value)
                said = await refused_or_found(victim)
                assert isinstance(said, TamperedEvent | SchemaTooNew | SchemaOutdated), (
                    column,
                    value,
                )
                await reads_are_right(victim, running)
                await put_back(attacker, kept)
        await attacker.insert_rows(table, kept[table])  # every row twice
        assert isinstance(await refused_or_found(victim), TamperedEvent)


# --- what a running node notices --------------------------------------------------------


async def test_a_running_node_notices_an_older_copy_put_in_place(victim: Victim) -> None:
    """The newest events and the head row cut off together: only an outside anchor tells a
    fresh start; a node that has seen them knows."""
    attacker = victim.attacker
    old = await saved(
        attacker, "secret_event", "ledger_head", "secret_current", "projection_checkpoint"
    )
    async with opened(victim.url) as running, opened(victim.url) as other:
        await running.put("alpha", "alpha value 4")
        assert (await other.get("alpha")).value.reveal() == b"alpha value 4"
        await put_back(attacker, old)
        for node in (running, other):
            with pytest.raises(TamperedEvent, match="behind position 26"):
                await node.get("alpha")
            with pytest.raises(TamperedEvent, match="behind position 26"):
                await node.put("alpha", "on an older copy")
    await gate_of(victim)  # the limit that the README states


async def test_a_running_node_notices_a_control_stream_that_got_shorter(victim: Victim) -> None:
    attacker = victim.attacker
    old = await saved(attacker, "secret_event", "ledger_head", "ledger_key")
    third = Key.from_bytes(bytes(range(51, 83)), "k-third")
    keyring = Keyring.of(third, [OLD, NEW])
    async with opened(victim.url, keyring, projections=()) as running:
        await running.rotate(third)
        assert (await running.put("alpha", "under the third")).key_id == "k-third"
        await put_back(attacker, old)
        for work in (running.get("alpha"), running.put("alpha", "x"), running.verify("latest")):
            with pytest.raises(TamperedEvent):
                await work


async def test_another_ledger_put_in_place_is_noticed_while_running(
    victim: Victim, tmp_path: Path
) -> None:
    other_url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    await build(other_url)
    async with attacking(other_url) as theirs:
        copies = await saved(theirs, "ledger_meta", "ledger_head", "ledger_key", "secret_event")
    copies["ledger_head"] = [row[: len(Head._fields)] for row in copies["ledger_head"]]
    async with opened(victim.url) as running:
        await put_back(victim.attacker, copies)
        for name in victim.truth.latest:
            assert not isinstance(await ending(running, name), bytes)
        with pytest.raises(WrongLedger):
            await running.verify("latest")


# --- quarantine -------------------------------------------------------------------------

CONTENT = (
    "event_type",
    "key_id",
    "key_fingerprint",
    "recorded_at",
    "metadata",
    "prev_hash",
    "sealed",
)


@pytest.mark.parametrize("name", ["alpha", "batch/3"])
async def test_a_damaged_secret_hides_no_other_and_is_ended_by_destroy(
    victim: Victim, name: str
) -> None:
    kept = await saved(victim.attacker, *TABLES)
    for column in (*CONTENT, "event_hash"):
        await quarantine(victim, name, column)
        await put_back(victim.attacker, kept)


async def quarantine(victim: Victim, name: str, column: str) -> None:
    head = victim.head(name)
    edits = dict(edits_of_every_column(head))
    await change(victim.attacker, head, column, edits[column])
    with pytest.raises(TamperedEvent, match=f"{name} version {head.version}"):
        await gate_of(victim)
    async with opened(victim.url, verify="control") as ledger:
        assert {info.name async for info in ledger.list(deleted=True)} == set(victim.truth.latest)
        assert len([info async for info in ledger.history(name)]) == head.version
        for other, right in victim.truth.latest.items():
            if other != name:
                assert await ending(ledger, other) == right
        if column != "event_hash":
            assert await ending(ledger, name) is TamperedEvent
        with pytest.raises(TamperedEvent, match=f"{name} version {head.version}"):
            await ledger.put(name, "never built on what does not open")
        with pytest.raises(TamperedEvent):
            await ledger.put_many({"fine": "x", name: "y"})
        assert await ending(ledger, "fine") is SecretNotFound
        with pytest.raises(TamperedEvent):
            await ledger.delete(name)
        await ledger.destroy(name, reason="damaged")
        assert await ending(ledger, name) is SecretDestroyed
        # sys_secret is a fold of the log as it stands, damaged metadata included.
        await rebuild(ledger.database, SysSecret())
    async with opened(victim.url) as ledger:
        report = await ledger.verify("full")
        assert report.ok, report.findings
        await ledger.put(name, "a clean start")
        assert (await ledger.verify("full")).ok
    async with opened(victim.url, verify="full") as ledger:
        assert await ending(ledger, name) == b"a clean start"


async def test_what_was_destroyed_damaged_may_not_change_again(victim: Victim) -> None:
    """The end is sealed over the row as it was found."""
    head = victim.head("alpha")
    await change(victim.attacker, head, "sealed", flipped(head.sealed))
    async with opened(victim.url, verify="control") as ledger:
        await ledger.destroy("alpha", reason="damaged")
        assert (await ledger.verify("full")).ok
        await change(victim.attacker, head, "sealed", head.sealed[::-1])
        findings = (await ledger.verify("full")).findings
        assert names_row(findings, ("alpha", 3, head.position))
