"""Opening on the strength of an attested verification: what it spares, and what it never lets
pass. `SLOW` holds the scrub at its first page, so that what is seen is the boot's own doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from attacker import Attacker, attacking, events
from inside import CONTROL_STREAM, SAMPLE, Attestation, EventType, Scan, keep_proof
from ledgers import NEW, OLD, THIRD, opened, refused, rows
from log_builder import building
from log_rows import Entry
from secret_ledger import InvalidValue, Keyring, MissingKey, SecretLedger, StaleKey, TamperedEvent
from waiting import until

SLOW = {"verify": "incremental", "scrub_rate": 0.01}
MANY = 6 * SAMPLE
FORGED = "does not authenticate"


async def level_at_boot(ledger: SecretLedger) -> str:
    return (await ledger.health()).verified_level


async def attestations(url: str) -> list[tuple[Any, ...]]:
    return (await rows(url))["ledger_attestation"]


async def attested_position(url: str) -> int:
    ((_, _, position, *_),) = await attestations(url)
    return cast(int, position)


@pytest.fixture
async def attested(database_url: str) -> str:
    """Five secrets, six events, verified up to the last: position 9."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many(dict.fromkeys("abcde", "1"))
        await ledger.put("a", "2")
        assert (await ledger.verify("latest")).ok
    assert await attested_position(database_url) == 9
    return database_url


@pytest.fixture
async def large(database_url: str) -> str:
    """More secrets than a sample takes, attested."""
    async with building(database_url, OLD) as log:
        await log.append(*(Entry(f"n/{n}", EventType.WRITTEN, b"1") for n in range(MANY)))
    async with opened(database_url, OLD):
        pass
    return database_url


# --- what is attested, and used --------------------------------------------------------------


async def test_the_first_boot_verifies_everything_and_the_next_one_what_is_new(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, verify="control") as ledger:
        await ledger.put_many(dict.fromkeys("abc", "1"))
    async with opened(database_url, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        await ledger.put("d", "1")
    async with opened(database_url, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"
        assert not [w for w in ledger.warnings if "attest" in w]
        assert (await ledger.get("a")).value.reveal() == b"1"


@pytest.mark.parametrize("level", ["latest", "full"])
async def test_what_a_boot_or_a_verify_has_proven_is_attested(
    database_url: str, level: Any
) -> None:
    async with opened(database_url, OLD, verify=level) as ledger:
        assert await attested_position(database_url) == 3
        await ledger.put("a", "1")
        await ledger.verify(level)
    assert await attested_position(database_url) == 4


async def test_what_proves_too_little_or_fails_is_not_attested(database_url: str) -> None:
    async with opened(database_url, OLD, verify="control") as ledger:
        await ledger.put("a", "1")
        await ledger.verify("control")
        async with attacking(database_url) as attacker:
            await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'a'")
        assert not (await ledger.verify("latest")).ok
    assert await attestations(database_url) == []


async def test_an_incremental_boot_looks_at_what_is_new_and_at_a_sample_of_the_old(
    large: str,
) -> None:
    async with opened(large, OLD, verify="control") as ledger:
        await ledger.put_many({f"new/{n}": "1" for n in range(20)})
    async with opened(large, OLD, **SLOW) as ledger:
        report = ledger._prover.verified.report
        assert report.level == "incremental"
        # The control stream's two positions may be among those drawn; it has been verified.
        assert SAMPLE - 2 <= report.heads <= SAMPLE
        assert report.events == report.heads + 20


async def test_where_more_is_new_than_there_are_secrets_these_are_opened_and_attested(
    attested: str,
) -> None:
    async with building(attested, OLD) as log:
        await log.append(*(Entry("a", EventType.WRITTEN, b"1") for _ in range(SAMPLE + 1)))
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
    assert await attested_position(attested) == 9 + SAMPLE + 1
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


async def test_the_sample_is_another_one_each_time(large: str) -> None:
    drawn: list[set[str]] = []
    opening = Scan._open_heads

    async def noted(self: Scan, events: Any, head: Any) -> None:
        drawn[-1].update(event.stream for event in events)
        await opening(self, events, head)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scan, "_open_heads", noted)
        for _ in range(2):
            drawn.append(set())
            async with opened(large, OLD, **SLOW):
                pass
    assert drawn[0] != drawn[1]


async def test_a_reader_builds_on_an_attestation_and_never_writes_one(attested: str) -> None:
    before = await rows(attested)
    async with opened(attested, OLD, read_only=True, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"
        await ledger.verify("full")
    async with opened(attested, OLD, read_only=True, verify="full"):
        pass
    assert await rows(attested) == before


async def test_only_an_authentic_attestation_is_kept_before_an_earlier_one(attested: str) -> None:
    before = await attestations(attested)
    async with opened(attested, OLD, verify="control") as ledger:

        async def keep(position: int) -> None:
            proof = Attestation(0, 1, position, "full", 0, bytes(32), bytes(32), b"", 0)
            await keep_proof(ledger.database, ledger._follower.standing, proof, release="1")

        await keep(5)
        assert await attestations(attested) == before
        await keep(9)
        assert await attestations(attested) != before
        async with attacking(attested) as attacker:
            await attacker.sql("UPDATE ledger_attestation SET mac = $1", bytes(32))
        await keep(5)
        assert await attested_position(attested) == 5


async def test_an_attestation_that_can_t_be_stored_leaves_the_one_before_and_stops_nobody(
    attested: str,
) -> None:
    before = await attestations(attested)
    async with building(attested) as log:
        if log.database.name == "sqlite":
            await log.execute(
                "CREATE TRIGGER full BEFORE INSERT ON ledger_attestation"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        else:
            await log.execute(
                "ALTER TABLE {s}ledger_attestation ADD CHECK (position < 0) NOT VALID"
            )
    async with opened(attested, OLD) as ledger:
        await ledger.put("f", "1")
        assert (await ledger.verify()).ok
    assert await attestations(attested) == before


async def test_incremental_is_a_level_to_open_at_and_not_to_verify(attested: str) -> None:
    async with opened(attested, OLD) as ledger:
        with pytest.raises(InvalidValue, match="incremental is a level of open"):
            await ledger.verify(cast(Any, "incremental"))
    for rate in (0, -1, float("nan")):
        await refused(attested, InvalidValue, OLD, verify="incremental", scrub_rate=rate)


# --- forged, replayed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        "mac = $1",
        "event_hash = $1, position = 3",
        "position = 8",
        "position = 100",
        "position = 9000000000000000000",
        "position = -1",
        "level = 'full'",
        "heads = 1",
        "release = '99'",
        "verified_at = 0",
        "key_id = 'k-new'",
        "key_fingerprint = $1",
        "head_keys = $1",
        "event_hash = $1",
        "control_hash = $1",
    ],
)
async def test_a_forged_attestation_is_passed_over_and_told(attested: str, edit: str) -> None:
    async with attacking(attested) as attacker:
        values = [bytes(32)] if "$1" in edit else []
        await attacker.sql(f"UPDATE ledger_attestation SET {edit}", *values)  # noqa: S608
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        assert [w for w in ledger.warnings if FORGED in w]
    async with opened(attested, OLD, **SLOW) as ledger:  # it was replaced by an authentic one
        assert await level_at_boot(ledger) == "incremental"


async def test_an_attestation_that_names_a_key_that_is_not_held_is_not_believed(
    attested: str,
) -> None:
    async with building(attested, OLD, NEW) as log:
        await log.rotate(NEW)
        for stream in "abcde":
            await log.rekey(stream)
        old, new = log.rows.bound(OLD).fingerprint, log.rows.bound(NEW).fingerprint
    async with opened(attested, NEW):
        pass
    for edit, values in (
        ("key_id = 'k-old', key_fingerprint = $1, head_keys = $2", (old, new)),
        ("format = 2", ()),
    ):
        async with attacking(attested) as attacker:
            await attacker.sql(f"UPDATE ledger_attestation SET {edit}", *values)  # noqa: S608
        async with opened(attested, NEW, **SLOW) as ledger:
            assert await level_at_boot(ledger) == "latest"


async def test_an_attestation_without_a_shape_is_passed_over(attested: str) -> None:
    async with attacking(attested) as attacker:
        await attacker.loosen("ledger_attestation")
        await attacker.sql("UPDATE ledger_attestation SET mac = NULL, position = NULL")
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        assert [w for w in ledger.warnings if FORGED in w]


async def test_a_planted_attestation_hides_no_damage(attested: str) -> None:
    async with attacking(attested) as attacker:
        await attacker.sql("UPDATE secret_event SET metadata = '{ }' WHERE stream = 'c'")
        await attacker.sql("UPDATE ledger_attestation SET position = 9, mac = $1", bytes(32))
    error = await refused(attested, TamperedEvent, OLD, verify="incremental")
    assert error.details["stream"] == "c"


async def test_an_attestation_from_another_ledger_is_passed_over(
    attested: str, more_databases: Callable[[], str]
) -> None:
    other = more_databases()
    async with opened(other, OLD) as ledger:
        await ledger.put_many(dict.fromkeys("abcdef", "1"))
        await ledger.verify()
    (theirs,) = await attestations(other)
    async with attacking(attested) as attacker:
        await attacker.sql("DELETE FROM ledger_attestation")
        await attacker.insert_rows("ledger_attestation", [theirs])
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        assert [w for w in ledger.warnings if FORGED in w]


async def test_an_attestation_from_the_generation_before_is_passed_over(attested: str) -> None:
    async with building(attested, OLD) as log:
        await log.migrate()
    async with attacking(attested) as attacker:
        await attacker.sql("UPDATE ledger_attestation SET generation = 1")
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        assert [w for w in ledger.warnings if FORGED in w]


async def test_an_older_attestation_that_is_put_back_spares_less(attested: str) -> None:
    old = await attestations(attested)
    async with opened(attested, OLD) as ledger:
        await ledger.put_many({"x": "1", "y": "1"})
        await ledger.verify()
    async with attacking(attested) as attacker:
        await attacker.sql("DELETE FROM ledger_attestation")
        await attacker.insert_rows("ledger_attestation", old)
    async with opened(attested, OLD, **SLOW) as ledger:
        report = ledger._prover.verified.report
        assert (report.level, report.events - report.heads) == ("incremental", 2)


# --- what was changed since ------------------------------------------------------------------

WRITE_NEW = {"a": "3", "x": "1", "y": "1"}
"""At positions 10 to 12."""


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE secret_event SET metadata = '{ }' WHERE position = 10",
        "UPDATE secret_event SET metadata = '{ }' WHERE position = 12",
        "UPDATE secret_event SET sealed = $1 WHERE position = 11",
        "UPDATE secret_event SET event_hash = $1 WHERE position = 11",
        "UPDATE secret_event SET stream = 'z' WHERE position = 11",
        "UPDATE secret_event SET position = 13 WHERE position = 12",
        "UPDATE secret_event SET position = 0 WHERE position = 11",
        "DELETE FROM secret_event WHERE position = 10",
        "DELETE FROM secret_event WHERE position = 11",
        "DELETE FROM secret_event WHERE position = 12",
        "UPDATE ledger_head SET position = 11",
        "UPDATE ledger_head SET position = 13",
        "UPDATE ledger_head SET recorded_at = recorded_at + 1",
        "INSERT INTO secret_event SELECT generation, 13, 'z', version, event_type, key_id,"
        " key_fingerprint, recorded_at, metadata, prev_hash, sealed, event_hash"
        " FROM secret_event WHERE position = 12",
        "INSERT INTO secret_event SELECT generation, -5, 'z', version, event_type, key_id,"
        " key_fingerprint, recorded_at, metadata, prev_hash, sealed, event_hash"
        " FROM secret_event WHERE position = 12",
    ],
)
async def test_whatever_was_changed_above_the_attested_position_is_refused(
    attested: str, damage: str
) -> None:
    async with opened(attested, OLD, verify="control") as ledger:
        await ledger.put_many(WRITE_NEW)
        await ledger.put("x", "2")  # so that what was written at position 11 is no head any more
        await ledger.put("y", "2")
    async with attacking(attested) as attacker:
        # The newest two are taken out again, so that the log ends at 12.
        if "position = 12" in damage or "ledger_head" in damage or "INSERT" in damage:
            await cut(attacker, 12)
        await attacker.sql(damage, *([bytes(32)] if "$1" in damage else []))
    await refused(attested, TamperedEvent, OLD, **SLOW)


async def cut(attacker: Attacker, position: int) -> None:
    """The newest events away, and the head row set back."""
    await attacker.sql("DELETE FROM secret_event WHERE position > $1", position)
    await attacker.sql(
        "UPDATE ledger_head SET position = $1, recorded_at ="
        " (SELECT recorded_at FROM secret_event WHERE position = $1)",
        position,
    )


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE secret_event SET metadata = '{ }' WHERE stream = 'c'",
        "DELETE FROM secret_event WHERE stream = 'a' AND version = 2",
        "DELETE FROM secret_event WHERE stream = 'c'",
        "DELETE FROM secret_event WHERE stream = 'a' AND version = 1",
    ],
)
async def test_in_a_ledger_no_larger_than_the_sample_old_damage_is_refused_too(
    attested: str, damage: str
) -> None:
    async with opened(attested, OLD, verify="control") as ledger:
        await ledger.put("z", "1")
    async with attacking(attested) as attacker:
        await attacker.sql(damage)
    await refused(attested, TamperedEvent, OLD, **SLOW)


async def test_a_log_cut_below_the_attested_position_is_refused_until_it_is_taken_as_it_is(
    attested: str,
) -> None:
    async with attacking(attested) as attacker:
        await cut(attacker, 8)
    error = await refused(attested, TamperedEvent, OLD, **SLOW)
    assert "up to position 9" in error.message
    assert 'verify="latest"' in error.hint
    async with opened(attested, OLD) as ledger:
        assert ledger.position == 8
    async with opened(attested, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


@pytest.mark.parametrize("others", [2, 2 * SAMPLE])
async def test_other_events_in_the_place_of_the_attested_ones_are_refused(
    attested: str, others: int
) -> None:
    async with attacking(attested) as attacker:
        await cut(attacker, 8)
    async with building(attested, OLD, NEW) as log:
        # Sealed with the key: they open.
        await log.append(*(Entry(f"z/{n}", EventType.WRITTEN, b"1") for n in range(others)))
        await log.rotate(NEW)
        await log.put("z", b"1")  # under a key that is not held: no reason not to look
        await log.rotate(THIRD)
    error = await refused(attested, TamperedEvent, THIRD, OLD, **SLOW)
    assert "up to position 9" in error.message


async def test_a_control_event_that_was_taken_out_below_is_refused(database_url: str) -> None:
    async with building(database_url, OLD, NEW) as log:
        await log.rotate(NEW)
        await log.retire(OLD)
        await log.append(*(Entry(f"n/{n}", EventType.WRITTEN, b"1") for n in range(MANY)))
    async with opened(database_url, NEW):
        pass
    async with attacking(database_url) as attacker:
        log_events = await events(attacker)
        last = [e for e in log_events if e.stream == CONTROL_STREAM][-1]
        assert last.event_type == EventType.KEY_RETIRED
        await attacker.sql("DELETE FROM secret_event WHERE position = $1", last.position)
    error = await refused(database_url, TamperedEvent, NEW, **SLOW)
    assert "is not the one that was verified" in error.message


async def test_an_attested_row_that_has_gone_is_found_by_the_sample_or_by_the_scrub(
    large: str,
) -> None:
    async with attacking(large) as attacker:
        await attacker.sql(f"DELETE FROM secret_event WHERE stream = 'n/{MANY // 2}'")  # noqa: S608
    for _ in range(100):  # the sample takes one in six
        try:
            async with opened(large, OLD, verify="incremental", scrub_rate=1e9) as ledger:

                async def scrubbed() -> bool:
                    return ledger._prover.verified.report.level == "latest"

                await until(scrubbed)
                assert not (await ledger.health()).ready
                return
        except TamperedEvent:
            pass
    raise AssertionError("a sample takes no more than it says")


# --- keys ------------------------------------------------------------------------------------


async def test_a_single_old_head_under_a_key_that_is_not_held_is_noticed_at_boot(
    database_url: str,
) -> None:
    async with building(database_url, OLD, NEW) as log:
        await log.put("x", b"1")
        await log.rotate(NEW)
        await log.append(*(Entry(f"n/{n}", EventType.WRITTEN, b"1") for n in range(MANY)))
    async with opened(database_url, NEW, OLD):  # attested: heads under both
        pass
    error = await refused(database_url, MissingKey, NEW, **SLOW)
    assert error.details["secrets"] == ["x"]
    async with opened(database_url, NEW, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


async def test_a_head_written_since_under_a_key_that_is_not_held_is_noticed_at_boot(
    attested: str,
) -> None:
    async with building(attested, OLD, NEW, THIRD) as log:
        await log.rotate(NEW)
        await log.put("x", b"1")
        await log.rotate(THIRD)
    error = await refused(attested, MissingKey, THIRD, OLD, **SLOW)
    assert error.details["secrets"] == ["x"]
    async with building(attested, OLD, NEW, THIRD) as log:
        await log.rekey("x")  # what lies under NEW is no head any more
    async with opened(attested, THIRD, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
    async with opened(attested, THIRD, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


async def test_an_attestation_outlives_a_rotation_for_as_long_as_its_key_is_held(
    attested: str,
) -> None:
    async with building(attested, OLD, NEW) as log:
        await log.rotate(NEW)
        for stream in "abcde":
            await log.rekey(stream)
    await refused(attested, StaleKey, OLD, **SLOW)
    async with opened(attested, NEW, OLD, read_only=True, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"
    async with opened(attested, NEW, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        assert not [w for w in ledger.warnings if FORGED in w]
    async with opened(attested, NEW, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


async def test_heads_under_a_lost_key_are_no_reason_to_verify_anew(attested: str) -> None:
    async with building(attested, OLD, NEW) as log:
        await log.rotate(NEW)
    async with opened(attested, NEW, OLD):
        pass
    async with opened(attested, NEW, verify="control") as ledger:
        await ledger.lost("k-old", reason="gone")
    async with opened(attested, NEW, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"


async def test_a_keyring_that_lacks_a_head_s_key_is_not_taken_by_a_running_process(
    attested: str,
) -> None:
    async with building(attested, OLD, NEW) as log:
        await log.rotate(NEW)
    async with opened(attested, NEW, OLD, **SLOW):
        pass
    async with opened(attested, NEW, OLD, **SLOW) as ledger:
        with pytest.raises(MissingKey):
            await ledger.reload_keys(Keyring.of(NEW))
        assert await ledger.reload_keys(Keyring.of(NEW, [OLD, THIRD]))


# --- generations -----------------------------------------------------------------------------


async def test_after_a_migration_and_a_purge_a_boot_verifies_anew_once(attested: str) -> None:
    async with opened(attested, OLD, verify="control") as ledger:
        await ledger.rotate(NEW)
        await ledger.migrate()
    async with opened(attested, NEW, OLD, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "latest"
        await ledger.purge_generation(0)
    async with opened(attested, NEW, **SLOW) as ledger:
        assert await level_at_boot(ledger) == "incremental"
        assert not [w for w in ledger.warnings if FORGED in w]
