"""An answer rests on what a seal, or a chain from a sealed event, proves; never on a column.

The attacker has every row that ever existed, and no key: he edits, renames, deletes and puts
back; he recomputes hashes and makes purged forms, which needs none.
"""
# ruff: noqa: S608  # the attacker puts names of columns into his SQL

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from attacker import Attacker, attacking, events
from inside import Event, Migrator, hash_of, purge
from ledgers import NEW, OLD, THIRD, opened
from secret_ledger import (
    LedgerError,
    MigrationInProgress,
    MissingKey,
    SecretDeleted,
    SecretDestroyed,
    SecretNotFound,
    TamperedEvent,
)


async def said(call: Awaitable[Any]) -> object:
    """The value that a call gives as text, or the type of its refusal."""
    try:
        done = await call
    except LedgerError as error:
        return type(error)
    return done.value.reveal_text()


async def edit(attacker: Attacker, event: Event, **columns: object) -> None:
    """Change columns of one row."""
    names = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, 4))
    await attacker.sql(
        f"UPDATE secret_event SET {names} WHERE generation = $1 AND stream = $2 AND version = $3",
        event.generation, event.stream, event.version, *columns.values(),
    )  # fmt: skip


async def remove(attacker: Attacker, event: Event) -> None:
    await attacker.sql(
        "DELETE FROM secret_event WHERE generation = $1 AND stream = $2 AND version = $3",
        event.generation, event.stream, event.version,
    )  # fmt: skip


async def row(attacker: Attacker, stream: str, version: int) -> Event:
    """The row of the newest generation."""
    found = [e for e in await events(attacker) if (e.stream, e.version) == (stream, version)]
    return max(found, key=lambda event: event.generation)


Hide = Callable[[Attacker, Event], Awaitable[None]]


async def retyped(attacker: Attacker, event: Event) -> None:
    await edit(attacker, event, event_type="secret.deleted")


async def deleted(attacker: Attacker, event: Event) -> None:
    await remove(attacker, event)


async def renamed(attacker: Attacker, event: Event) -> None:
    await edit(attacker, event, stream="elsewhere")


async def in_another_generation(attacker: Attacker, event: Event) -> None:
    await edit(attacker, event, generation=7)


HIDING = pytest.mark.parametrize("hide", [retyped, deleted, renamed, in_another_generation])
GAP = pytest.mark.parametrize("hide", [deleted, renamed, in_another_generation])


# --- a live secret is not turned into a lost one ------------------------------------------------


async def _with_a_lost_key(url: str) -> str:
    """A ledger with a lost key, whose id this returns; `live` is under the key after it."""
    async with opened(url, OLD) as ledger:
        await ledger.put("gone", "1")
        await ledger.put("live", "1")
    async with opened(url, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("live", "2")
    async with opened(url, NEW, verify="control") as ledger:
        await ledger.lost("k-old", reason="the safe burnt")
    return "k-old"


async def _is_seen(url: str, *keys: Any) -> None:
    """What was done to `live` is no end of it: reads, both verifications and boots say so."""
    async with opened(url, *keys, verify="control") as ledger:
        assert await said(ledger.get("live")) is TamperedEvent
        assert not (await ledger.verify("latest")).ok
        assert not (await ledger.verify("full")).ok
        assert (await ledger.rekey()).skipped or not (await ledger.rekey()).rekeyed
    for level in ("latest", "full"):
        with pytest.raises(TamperedEvent):
            async with opened(url, *keys, verify=level):
                pass


async def test_a_newest_event_that_says_it_was_lost_and_purged_is_tampering(
    database_url: str,
) -> None:
    await _with_a_lost_key(database_url)
    async with opened(database_url, THIRD, NEW) as ledger:
        await ledger.rotate()
        await ledger.migrate()
        ledger_id = bytes.fromhex(ledger.ledger_id)
        gone = OLD.for_ledger(ledger_id)
    async with attacking(database_url) as attacker:
        live = await row(attacker, "live", 2)
        posing = live._replace(
            key_id=gone.id, key_fingerprint=gone.fingerprint, sealed=purge(live.sealed)
        )
        posing = posing._replace(event_hash=hash_of(ledger_id, posing))
        await edit(
            attacker, live, key_id=posing.key_id, key_fingerprint=posing.key_fingerprint,
            sealed=posing.sealed, event_hash=posing.event_hash,
        )  # fmt: skip
        await attacker.sql(
            "UPDATE secret_current SET key_id = $1, key_fingerprint = $2 WHERE name = 'live'",
            gone.id, gone.fingerprint,
        )  # fmt: skip
    await _is_seen(database_url, THIRD, NEW)


async def test_a_row_of_a_lost_key_on_top_of_a_live_secret_is_tampering(database_url: str) -> None:
    await _with_a_lost_key(database_url)
    async with opened(database_url, NEW, verify="control") as ledger:
        ledger_id = bytes.fromhex(ledger.ledger_id)
    async with attacking(database_url) as attacker:
        gone = await row(attacker, "gone", 1)
        posing = gone._replace(stream="live", version=3)
        posing = posing._replace(event_hash=hash_of(ledger_id, posing))
        await edit(attacker, gone, stream="live", version=3, event_hash=posing.event_hash)
    await _is_seen(database_url, NEW)


async def test_before_a_key_is_lost_each_secret_that_goes_with_it_is_ended_under_a_seal(
    database_url: str,
) -> None:
    await _with_a_lost_key(database_url)
    async with opened(database_url, NEW, verify="full") as ledger:
        with pytest.raises(SecretDestroyed, match="its key k-old is lost") as caught:
            await ledger.get("gone")
        assert caught.value.details["key_id"] == "k-old"
        history = [(i.version, i.event_type) async for i in ledger.history("gone")]
        assert history == [(1, "secret.written"), (2, "secret.destroyed")]
        assert await said(ledger.get("live")) == "2"
        assert await said(ledger.get("live", version=1)) is SecretDestroyed
        assert (await ledger.put("gone", "anew", expect=2)).version == 3
        assert (await ledger.verify("full")).ok


async def test_a_key_is_not_given_up_while_a_generation_is_being_built(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, NEW, OLD) as ledger:
        await ledger.rotate()

        async def interrupted(*_: object) -> None:
            raise RuntimeError("stop before the flip")

        with monkeypatch.context() as patch:
            patch.setattr(Migrator, "_flip", interrupted)
            with pytest.raises(RuntimeError, match="before the flip"):
                await ledger.migrate()
    async with opened(database_url, NEW, verify="control") as ledger:
        before = ledger.position
        with pytest.raises(MigrationInProgress):
            await ledger.lost("k-old", reason="gone")
        assert ledger.position == before


async def test_damage_is_not_taken_for_what_goes_with_a_lost_key(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.put("b", "1")
    async with opened(database_url, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("b", "2")
    async with attacking(database_url) as attacker:
        old, new = await row(attacker, "a", 1), await row(attacker, "b", 2)
        await edit(attacker, new, key_id=old.key_id, key_fingerprint=old.key_fingerprint)
        async with opened(database_url, NEW, verify="control") as ledger:
            with pytest.raises(TamperedEvent):
                await ledger.lost("k-old", reason="gone")
        await edit(attacker, new, key_id=new.key_id, key_fingerprint=new.key_fingerprint)
    async with opened(database_url, NEW, verify="control") as ledger:
        assert (await ledger.lost("k-old", reason="gone")).changed
        assert await said(ledger.get("b")) == "2"
        assert (await ledger.verify("full")).ok


async def test_rows_under_a_lost_key_can_neither_go_nor_come(database_url: str) -> None:
    await _with_a_lost_key(database_url)
    async with attacking(database_url) as attacker:
        first = await row(attacker, "live", 1)
        await edit(attacker, first, metadata='{"actor":"mallory"}')
        forged = first._replace(metadata='{"actor":"mallory"}')
        async with opened(database_url, NEW, verify="control") as ledger:
            forged = forged._replace(event_hash=hash_of(bytes.fromhex(ledger.ledger_id), forged))
        await edit(attacker, first, event_hash=forged.event_hash)
        second = await row(attacker, "live", 2)
        assert second.prev_hash != forged.event_hash
    async with opened(database_url, NEW, verify="control") as ledger:
        report = await ledger.verify("full")
        assert any("lie under lost keys" in finding.reason for finding in report.findings)


# --- what is restored is what was there last ----------------------------------------------------


@HIDING
async def test_a_restore_gives_the_last_value_or_says_why_not_and_never_an_older_one(
    database_url: str, hide: Hide
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.put("a", "two")
        await ledger.delete("a")
        async with attacking(database_url) as attacker:
            await hide(attacker, await row(attacker, "a", 2))
            for call in (ledger.restore("a"), ledger.restore("a", 2), ledger.restore("a", 1)):
                assert await said(call) is TamperedEvent
            with pytest.raises(SecretDeleted):
                await ledger.get("a")


async def test_a_restore_passes_over_what_holds_no_value(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        for _ in range(3):
            await ledger.delete("a")
            await ledger.restore("a")
        await ledger.delete("a")
        await ledger.rotate(NEW)
        await ledger.rekey()
        assert (await ledger.restore("a")).version == 10
        assert await said(ledger.get("a")) == "one"


# --- what was destroyed stays so ----------------------------------------------------------------


@HIDING
async def test_a_destroyed_value_never_comes_back(database_url: str, hide: Hide) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.destroy("a", reason="leaked")
        await ledger.put("a", "three")
        await ledger.put("a", "four")
        async with attacking(database_url) as attacker:
            await hide(attacker, await row(attacker, "a", 2))
            for version in (1, 2):
                assert await said(ledger.get("a", version=version)) is SecretDestroyed
            assert await said(ledger.get("a")) == "four"
            assert await said(ledger.get("a", version=3)) == "three"
            await ledger.delete("a")
            for version in (1, 2):
                assert await said(ledger.restore("a", version)) is SecretDestroyed
            await ledger.restore("a")
            assert await said(ledger.get("a")) == "four"
            assert not (await ledger.verify("full")).ok


@pytest.mark.parametrize("stated", [None, 1])
async def test_full_verification_holds_what_an_event_says_of_its_past_against_the_chain(
    database_url: str, stated: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a node with a fault would write it: under a key, and wrong."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.put("a", "two")
        await ledger.destroy("a", reason="over")
        facts = {} if stated is None else {"floor": stated}
        with monkeypatch.context() as patch:
            patch.setattr("secret_ledger.rules.decide.floor_facts", lambda *_: facts)
            await ledger.put("a", "four")
        report = await ledger.verify("full")
        (finding,) = report.findings
        assert finding.reason.startswith("it says that the secret ended at version")


# --- no gap below the newest version ------------------------------------------------------------


@GAP
async def test_a_gap_below_the_newest_version_is_tampering_whatever_is_asked_for_below_it(
    database_url: str, hide: Hide
) -> None:
    async with opened(database_url, OLD) as ledger:
        times = [(await ledger.put("a", value)).recorded_at for value in ("one", "two", "three")]
        await ledger.put("a", "four")
        async with attacking(database_url) as attacker:
            await hide(attacker, await row(attacker, "a", 2))
            assert await said(ledger.get("a", version=2)) is TamperedEvent
            assert await said(ledger.get("a", version=1)) is TamperedEvent
            assert await said(ledger.get("a", version=3)) == "three"
            assert await said(ledger.get("a")) == "four"
            if len(set(times)) == 3:
                assert await said(ledger.get("a", at=times[1])) is TamperedEvent
                assert await said(ledger.get("a", at=times[0])) is TamperedEvent


async def test_a_version_that_never_was_is_not_found_and_none_is_read_as_of_before_the_first(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        first = await ledger.put("a", "one")
        for version in (2, 3, 99):
            assert await said(ledger.get("a", version=version)) is SecretNotFound
        before = first.recorded_at - timedelta(microseconds=1)
        assert await said(ledger.get("a", at=before)) is SecretNotFound
        assert await said(ledger.get("a", at=first.recorded_at)) == "one"


async def test_every_version_and_time_of_a_long_history_is_read_page_by_page(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        written: list[tuple[int, datetime]] = []
        for n in range(1, 1101):
            done = await ledger.put("a", f"value {n}")
            written.append((n, done.recorded_at))
        for n in (1, 2, 499, 500, 501, 1067, 1068, 1069, 1099, 1100):
            assert await said(ledger.get("a", version=n)) == f"value {n}"
        for n, at in (written[0], written[500], written[1090]):
            last = max(version for version, time in written if time <= at)
            assert await said(ledger.get("a", at=at)) == f"value {last}", n


async def test_a_row_that_was_reached_needs_no_key_to_be_walked_over(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.rotate(NEW)
        await ledger.put("a", "two")
        await ledger.rotate(THIRD)
        await ledger.put("a", "three")
    async with opened(database_url, THIRD, OLD) as ledger:
        assert await said(ledger.get("a", version=1)) == "one"
        assert await said(ledger.get("a", version=2)) is MissingKey


# --- without the newest event -------------------------------------------------------------------


async def test_an_older_value_below_an_event_that_can_t_be_opened_is_given_on_demand_and_marked(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.rotate(NEW)
        await ledger.put("a", "two")
        await ledger.rotate(THIRD)
    async with opened(database_url, THIRD, OLD, verify="control") as ledger:
        assert await said(ledger.get("a")) is MissingKey
        assert await said(ledger.get("a", version=1)) is MissingKey
        found = await ledger.get("a", version=1, unproven=True)
        assert (found.value.reveal_text(), found.proven) == ("one", False)
        assert await said(ledger.get("a", version=2, unproven=True)) is MissingKey
        await ledger.lost("k-new", reason="gone")
        assert await said(ledger.get("a", version=1)) is SecretDestroyed
        found = await ledger.get("a", version=1, unproven=True)
        assert (found.value.reveal_text(), found.proven) == ("one", False)
        await ledger.put("a", "four")
        assert await said(ledger.get("a", version=1, unproven=True)) is SecretDestroyed
        assert (await ledger.get("a")).proven


async def test_what_was_destroyed_is_given_by_no_read(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.destroy("a", reason="leaked")
        assert await said(ledger.get("a", version=1, unproven=True)) is SecretDestroyed


# --- what is sealed next ------------------------------------------------------------------------


async def _others_seal_nothing(url: str) -> None:
    """A process that comes now is refused, or each write of it is."""
    try:
        async with opened(url, OLD, verify="control", node="other", projections=()) as other:
            for call in (other.put("c", "x"), other.put("a", "x"), other.delete("a")):
                assert await said(call) is TamperedEvent
    except TamperedEvent:
        pass


@pytest.mark.parametrize(
    ("head", "last"),
    [
        ({"recorded_at": 3_786_912_000_000_000}, {"event_hash": bytes(32)}),
        ({"recorded_at": 3_786_912_000_000_000}, {"recorded_at": 3_786_912_000_000_000}),
        ({"position": 77_777}, {"position": 77_777}),
        ({"recorded_at": 3_786_912_000_000_000}, {}),
    ],
    ids=["its hash, and the time", "the time of both", "the position of both", "the time alone"],
)
async def test_no_time_and_no_position_of_an_attacker_s_choice_is_ever_sealed(
    database_url: str, head: dict[str, object], last: dict[str, object]
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.put("b", "one")
        async with attacking(database_url) as attacker:
            event = await row(attacker, "b", 1)
            (before,) = await attacker.sql("SELECT position, recorded_at FROM ledger_head")
            if last:
                await edit(attacker, event, **last)
            names = ", ".join(f"{name} = ${n}" for n, name in enumerate(head, 1))
            await attacker.sql(f"UPDATE ledger_head SET {names}", *head.values())
            await _others_seal_nothing(database_url)
            if last:
                await edit(attacker, event, **{name: getattr(event, name) for name in last})
            await attacker.sql(
                "UPDATE ledger_head SET position = $1, recorded_at = $2", before[0], before[1]
            )
        await ledger.put("c", "x")
        assert (await ledger.verify("full")).ok
        assert (await ledger.get("c")).recorded_at.year < 2090


async def test_a_row_above_the_head_row_s_end_is_seen_before_anything_is_sealed(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.put("b", "one")
        async with attacking(database_url) as attacker:
            (before,) = await attacker.sql("SELECT position, recorded_at FROM ledger_head")
            a = await row(attacker, "a", 1)
            await attacker.sql(
                "UPDATE ledger_head SET position = $1, recorded_at = $2", a.position, a.recorded_at
            )
            async with opened(
                database_url, OLD, verify="control", node="other", projections=()
            ) as other:
                assert await said(other.put("c", "x")) is TamperedEvent
            await attacker.sql(
                "UPDATE ledger_head SET position = $1, recorded_at = $2", before[0], before[1]
            )
        assert (await ledger.verify("full")).ok


async def test_a_damaged_last_event_does_not_keep_its_secret_from_being_destroyed(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "one")
        await ledger.put("b", "one")
        await ledger.put("b", "two")
        async with attacking(database_url) as attacker:
            for version in (1, 2):
                await edit(attacker, await row(attacker, "b", version), metadata='{"actor":"m"}')
            await attacker.sql("UPDATE ledger_head SET recorded_at = 3786912000000000")
        async with opened(
            database_url, OLD, verify="control", node="other", projections=()
        ) as other:
            for call in (other.put("c", "x"), other.put("b", "x"), other.delete("a")):
                assert await said(call) is TamperedEvent
            assert await said(other.destroy("a", reason="not damaged")) is TamperedEvent
            assert (await other.destroy("b", reason="damaged")).version == 3
            assert (await other.put("b", "four")).recorded_at.year < 2090
            assert await said(other.get("b", version=1)) is SecretDestroyed
    async with opened(database_url, OLD) as ledger:
        assert await said(ledger.get("b")) == "four"
        assert await said(ledger.get("a")) == "one"
