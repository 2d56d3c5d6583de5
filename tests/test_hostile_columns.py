"""An attacker without the key edits columns: reads give no wrong value, and checks find it."""
# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from attacker import put_back, saved
from hostile import (
    WRONG_KEY,
    Victim,
    change,
    edits_of_every_column,
    insert,
    names_row,
    reads_are_right,
    refused_or_found,
)
from inside import (
    CONTROL_STREAM,
    NO_HASH,
    BootOptions,
    Event,
    EventType,
    Identity,
    Level,
    boot,
    purge,
)
from secret_ledger import (
    InvalidName,
    LedgerError,
    SchemaOutdated,
    SchemaTooNew,
    SecretLedger,
    SecretNotFound,
    TamperedEvent,
)
from victim import BOTH, OLD, Ending, ending, opened

PLACE = ("generation", "stream", "version")
"""Columns that take a row out of its stream: the version before it is then an authentic head."""
TEXTS = ("stream", "event_type", "key_id", "metadata")


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


async def test_an_edit_of_any_column_of_any_event_gives_no_wrong_value_and_is_found(
    victim: Victim,
) -> None:
    await try_edits(victim, victim.log, edits_of_every_column)


async def test_values_at_the_edges_of_a_column_are_found_too(victim: Victim) -> None:
    async with opened(victim.url) as ledger:
        ledger_id = bytes.fromhex(ledger.ledger_id)
    rows = [victim.event("alpha", 2), victim.head("alpha"), victim.event(CONTROL_STREAM, 2)]
    await try_edits(victim, rows, lambda event: crafted_edits(event, ledger_id))


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
