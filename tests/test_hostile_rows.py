"""An attacker without the key moves, replays, cuts out and plants rows."""
# ruff: noqa: S608  # the attacker puts names of tables and columns into his SQL

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from attacker import attacking, events, put_back, saved
from hostile import (
    Victim,
    gate_of,
    head_row,
    insert,
    ledger_id_of,
    names_row,
    reads_are_right,
    refused_or_found,
    remove,
)
from inside import Event, hash_of
from secret_ledger import LedgerError, SecretNotFound, TamperedEvent
from victim import NEW, build, ending, opened


def rehashed(ledger_id: bytes, event: Event, **changes: object) -> Event:
    """The row with changes, and with the hash that everybody can recompute."""
    changed = event._replace(**changes)  # type: ignore[arg-type]
    return changed._replace(event_hash=hash_of(ledger_id, changed))


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
            try:
                found = {finding.position for finding in (await running.verify(level)).findings}
            except TamperedEvent as error:  # a connection that is new recognises the log first
                found = {error.details["seen"]}
            assert 25 in found
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
