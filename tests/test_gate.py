"""The boot gate: which key a ledger is opened with, what it says where it is refused, and
that a refusal writes nothing but its line among the nodes."""

from __future__ import annotations

import pytest

from attacker import attacking
from inside import hash_of
from ledgers import NEW, OLD, STRANGER, THIRD, lines, opened, refused, rows
from log_builder import building
from secret_ledger import (
    InvalidKey,
    Key,
    KeyFingerprintMismatch,
    Keyring,
    LedgerMoved,
    MigrationInProgress,
    MissingKey,
    SecretLedger,
    StaleKey,
    TamperedEvent,
    WrongLedger,
)

Levels = pytest.mark.parametrize("level", ["control", "latest", "full"])


def relabelled(key: Key, key_id: str | None) -> Key:
    return Key.parse(key.text(), key_id)


# --- step 4: which key ---------------------------------------------------------------------


@Levels
async def test_the_right_key_opens_and_reads(database_url: str, level: str) -> None:
    async with opened(database_url, OLD) as ledger:
        assert ledger.created
        await ledger.put("a", "1")
    async with opened(database_url, OLD, verify=level) as ledger:
        assert not ledger.created
        assert (await ledger.get("a")).value.reveal() == b"1"


@Levels
async def test_a_start_with_an_unknown_key_is_a_fingerprint_mismatch(
    database_url: str, level: str
) -> None:
    """ObjectStack #1507, metabase#45869: a fresh random key starts up as if it were right."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        expected = log.rows.bound(OLD).fingerprint.hex()
        actual = log.rows.bound(STRANGER).fingerprint.hex()
    error = await refused(database_url, KeyFingerprintMismatch, STRANGER, verify=level)
    assert error.details["expected_key_id"] == "k-old"
    assert error.details["expected_fingerprint"] == expected
    assert error.details["actual_fingerprint"] == actual
    assert "nothing was written" in error.hint


async def test_other_material_under_a_bound_label_is_refused_even_beside_the_active_key(
    database_url: str,
) -> None:
    """minio#14716: a key name reused with new material."""
    async with building(database_url, OLD, NEW) as log:
        await log.rotate(NEW)
        bound = log.rows.bound(NEW).fingerprint.hex()
    impostor = relabelled(STRANGER, "k-new")
    for keys in ([impostor], [impostor, OLD]):
        error = await refused(database_url, KeyFingerprintMismatch, *keys)
        assert error.details["key_id"] == "k-new"
        assert error.details["expected_fingerprint"] == bound
    # The active key is held, a previous one is mislabelled: still refused.
    await refused(database_url, KeyFingerprintMismatch, NEW, relabelled(STRANGER, "k-old"))


async def test_mismatch_comes_before_stale(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
    await refused(database_url, StaleKey, OLD)
    await refused(database_url, KeyFingerprintMismatch, OLD, relabelled(STRANGER, "k-new"))


@Levels
async def test_a_node_that_missed_a_rotation_is_stale(database_url: str, level: str) -> None:
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
    error = await refused(database_url, StaleKey, OLD, verify=level)
    assert error.details["expected_key_id"] == "k-new"
    await refused(database_url, StaleKey, STRANGER, OLD, verify=level)


async def test_the_ledger_says_which_key_is_active_not_the_order_of_a_setting(
    database_url: str,
) -> None:
    """cloak_ecto#33, rails#42542."""
    async with building(database_url, OLD) as log:
        await log.rotate(NEW)
    async with opened(database_url, OLD, NEW) as ledger:
        assert [w for w in ledger.warnings if "k-old of the settings was superseded" in w]
        assert (await ledger.put("a", "1")).key_id == "k-new"
        assert (await ledger.health()).active_key_id == "k-new"


async def test_an_unknown_current_key_beside_the_active_one_is_pending_and_announced(
    database_url: str,
) -> None:
    async with building(database_url, OLD) as log:
        pending = log.rows.bound(NEW).fingerprint
    async with opened(database_url, NEW, OLD) as ledger:
        assert (await ledger.put("a", "1")).key_id == "k-old"
        (node,) = await ledger.nodes()
        assert (node.key_id, node.pending_id) == ("k-old", "k-new")
        assert node.pending_fingerprint == pending
        assert pending.hex() in dict(node.readable).values()
        assert (await ledger.health()).pending_fingerprint == pending.hex()
        assert [k.state for k in await ledger.key_status()] == ["active", "pending"]


async def test_a_known_key_under_another_label_keeps_the_ledger_s_label_with_a_warning(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        assert not [w for w in ledger.warnings if "label" in w]
    async with opened(database_url, relabelled(OLD, "k-renamed")) as ledger:
        assert [w for w in ledger.warnings if "k-renamed" in w]
        assert (await ledger.put("a", "1")).key_id == "k-old"
    async with opened(database_url, relabelled(OLD, None)) as ledger:
        assert not [w for w in ledger.warnings if "label" in w]  # no label, no contradiction


# --- step 6: the heads ---------------------------------------------------------------------


async def test_a_head_under_a_missing_key_is_counted_and_named(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        for name in ("a", "b", "c"):
            await log.put(name, b"1")
        await log.rotate(NEW)
        await log.rekey("b")
    error = await refused(database_url, MissingKey, NEW)
    assert error.details["secrets"] == ["a", "c"]
    assert error.details["key_ids"] == ["k-old"]
    assert "2 secrets" in error.message
    assert "OS_SECRET_PREVIOUS_KEYS" in error.hint
    async with opened(database_url, NEW, verify="control") as ledger:
        assert (await ledger.get("b")).value.reveal() == b"1"


async def test_after_a_rekey_a_boot_no_longer_needs_the_old_key(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        await log.rekey("a")
    async with opened(database_url, NEW, verify="latest"):
        pass
    error = await refused(database_url, MissingKey, NEW, verify="full")
    assert error.details["secrets"] == ["a"]


async def test_nothing_waits_for_a_key_that_is_lost(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.rotate(NEW)
        await log.lose(OLD)
    for level in ("latest", "full"):
        async with opened(database_url, NEW, verify=level):
            pass


# --- generations, moves, pins ----------------------------------------------------------------


async def test_an_unfinished_target_of_a_move_is_not_opened(
    database_url: str, sqlite_url: str
) -> None:
    target = sqlite_url.replace("ledger.db", "target.db")
    async with building(database_url, OLD) as log:
        await log.build_at(target)
    for read_only in (False, True):
        await refused(target, MigrationInProgress, OLD, read_only=read_only)
    async with opened(database_url, OLD):
        pass  # the source goes on


async def test_a_move_that_no_key_in_hand_proves_is_said_to_be_unproven(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.move_away()
    # Keys of a later time: the ledger may have rotated where it is now.
    error = await refused(database_url, LedgerMoved, NEW, read_only=True)
    assert "as its rows say; no key in hand proves it" in error.message
    await refused(database_url, KeyFingerprintMismatch, NEW, read_only=True, read_moved=True)


async def test_a_planted_move_is_damage_and_leads_nowhere(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        event = await log.move_away()
    ledger_id, sealed = log.ledger_id, event.sealed[:-16] + bytes(16)
    planted = event._replace(sealed=sealed)
    async with attacking(database_url) as attacker:
        await attacker.sql(
            "UPDATE secret_event SET sealed = $1, event_hash = $2 WHERE position = $3",
            sealed,
            hash_of(ledger_id, planted),
            event.position,
        )
    await refused(database_url, TamperedEvent, OLD)
    await refused(database_url, TamperedEvent, OLD, read_only=True, read_moved=True)


async def test_a_moved_ledger_is_read_where_that_is_asked_for(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        await log.move_away()
    for asked in ({}, {"read_only": True}, {"read_moved": True}):
        error = await refused(database_url, LedgerMoved, OLD, **asked)
        assert "no key in hand proves it" not in error.message
    async with opened(database_url, OLD, read_only=True, read_moved=True, verify="full") as ledger:
        assert any("moved to" in warning for warning in ledger.warnings)
        assert (await ledger.get("a")).value.reveal() == b"1"
        health = await ledger.health()
        assert not health.ready
        assert [r for r in health.reasons if r.startswith("ledger_moved")]


@pytest.mark.parametrize("way", ["parameter", "bytes", "setting"])
async def test_a_pinned_ledger_is_the_only_one_opened(
    database_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def options(ledger_id: str) -> dict[str, object]:
        if way == "setting":
            monkeypatch.setenv("OS_SECRET_LEDGER_ID", ledger_id)
            return {}
        return {"ledger_id": bytes.fromhex(ledger_id) if way == "bytes" else ledger_id}

    async with opened(database_url, OLD) as ledger:
        right = ledger.ledger_id
    async with opened(database_url, OLD, **options(right)) as ledger:
        assert ledger.ledger_id == right
    before = await rows(database_url)
    error = await refused(database_url, WrongLedger, OLD, **options("ab" * 16))
    assert error.details == {"expected": "ab" * 16, "actual": right}
    assert await rows(database_url) == before  # nor a line: it is another's ledger


async def test_a_pin_that_contradicts_the_setting_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_SECRET_LEDGER_ID", "ab" * 16)
    await refused(sqlite_url, WrongLedger, OLD, ledger_id="cd" * 16)


async def test_an_ephemeral_key_opens_an_in_memory_database_only(database_url: str) -> None:
    with pytest.raises(InvalidKey, match="in-memory"):
        async with SecretLedger.open(database_url, Keyring.ephemeral()):
            pass
    async with SecretLedger.open("sqlite+aiosqlite://", Keyring.ephemeral()) as ledger:
        await ledger.put("a", "1")
        assert (await ledger.get("a")).value.reveal() == b"1"
        assert (await ledger.verify("full")).ok


# --- what a refusal leaves -------------------------------------------------------------------


async def test_a_refused_boot_leaves_one_counted_line_and_writes_nothing_else(
    database_url: str,
) -> None:
    """metabase#11048, n8n#17816: which node came with the other key, nobody can tell."""
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
        wrong = log.rows.bound(STRANGER).fingerprint
    before = await rows(database_url, "ledger_node")
    for _ in range(3):
        await refused(database_url, KeyFingerprintMismatch, STRANGER, node="web-2")
    (line,) = await lines(database_url)
    assert (line.node, line.state, line.refusals) == ("web-2", "refused", 3)
    assert (line.key_id, line.key_fingerprint) == ("k-stranger", wrong)
    assert line.reason == "key_fingerprint_mismatch"
    await refused(database_url, KeyFingerprintMismatch, THIRD, node="web-2")
    assert len(await lines(database_url)) == 2
    assert await rows(database_url, "ledger_node") == before


async def test_read_only_announces_and_writes_nothing_refused_or_not(database_url: str) -> None:
    async with building(database_url, OLD) as log:
        await log.put("a", b"1")
    before = await rows(database_url)
    async with opened(database_url, OLD, read_only=True) as ledger:
        assert (await ledger.get("a")).value.reveal() == b"1"
        assert await rows(database_url) == before
    await refused(database_url, KeyFingerprintMismatch, STRANGER, read_only=True)
    assert await rows(database_url) == before
