"""The rule of authority: under which key the event at a position must lie."""

from __future__ import annotations

import pytest

from control_streams import (
    AGAIN,
    GENESIS,
    MIGRATED,
    ROTATED,
    TWICE,
    A,
    B,
    C,
    D,
    about,
    added,
    changed,
    folded,
    rotated,
    row,
)
from inside import EventType, LedgerKey, MissingKey, SecretDestroyed, TamperedEvent, read_event

BEFORE = [(1, A), (2, A), (9, A), (10, A), (11, B), (12, B), (20, B), (21, C), (10**9, C)]
HELD = {key.fingerprint: key for key in (A, B, C, D)}


@pytest.mark.parametrize(("position", "key"), BEFORE)
def test_a_key_has_authority_from_its_activation_on(position: int, key: LedgerKey) -> None:
    control = folded(TWICE)
    assert control.authority(position).fingerprint == key.fingerprint
    for other in (A, B, C, D):
        assert control.may_be_under(row(position, other)) is (other is key)


@pytest.mark.parametrize("position", [1, 2, 10, 11, 21, 30, 31])
def test_a_migrated_generation_is_under_one_key_up_to_its_opening(position: int) -> None:
    assert folded(MIGRATED).authority(position).fingerprint == C.fingerprint


@pytest.mark.parametrize(
    ("position", "key"), [(1, D), (11, D), (31, D), (40, D), (41, D), (51, D), (52, D)]
)
def test_after_two_migrations_the_newest_opening_counts(position: int, key: LedgerKey) -> None:
    assert folded(AGAIN).authority(position).fingerprint == key.fingerprint


def test_a_rotation_after_a_migration_takes_authority_from_its_activation_on() -> None:
    control = folded(rotated(MIGRATED, C, D, 4, position=40))
    assert control.authority(40).fingerprint == C.fingerprint
    assert control.authority(41).fingerprint == D.fingerprint


def test_the_right_fingerprint_under_another_label_has_no_authority() -> None:
    control = folded(GENESIS)
    assert not control.may_be_under(row(3, A)._replace(key_id="k-b"))


def test_a_purged_row_keeps_the_key_that_it_was_under_through_migrations() -> None:
    for control in (folded(MIGRATED), folded(AGAIN)):
        for key in (A, B, C):
            assert control.may_be_under(row(5, key, purged=True))
            assert not control.may_be_under(row(5, key)) or key is C
        assert not control.may_be_under(row(5, A, purged=True)._replace(key_id="k-b"))


def test_a_purged_row_of_an_unknown_key_or_behind_the_opening_has_no_authority() -> None:
    control = folded(MIGRATED)
    assert not control.may_be_under(row(5, D, purged=True))
    assert control.may_be_under(row(31, A, purged=True))
    assert not control.may_be_under(row(32, A, purged=True))
    assert not folded(TWICE).may_be_under(row(15, A, purged=True))


# --- the four ways a read can end ---------------------------------------------------------


def test_a_read_under_the_right_held_key_gives_the_value() -> None:
    assert read_event(folded(TWICE), HELD, row(5, A)) == b"value"
    assert read_event(folded(TWICE), HELD, row(15, B)) == b"value"


def test_a_read_under_a_key_of_another_time_is_tampered_though_it_would_open() -> None:
    with pytest.raises(TamperedEvent, match="was active at its position") as caught:
        read_event(folded(TWICE), HELD, row(15, A))
    assert caught.value.details["expected_fingerprint"] == B.fingerprint.hex()
    assert caught.value.details["actual_fingerprint"] == A.fingerprint.hex()


def test_a_read_without_the_key_says_which_secret_and_which_key() -> None:
    with pytest.raises(MissingKey) as caught:
        read_event(folded(TWICE), {C.fingerprint: C}, row(15, B))
    assert caught.value.details["key_id"] == B.id
    assert caught.value.details["expected_fingerprint"] == B.fingerprint.hex()
    assert (caught.value.details["stream"], caught.value.details["position"]) == ("s", 15)


def test_a_purged_row_is_destroyed_below_its_end_and_tampering_elsewhere() -> None:
    control = folded(ROTATED)
    with pytest.raises(SecretDestroyed):
        read_event(control, HELD, row(5, A, purged=True), ended=True)
    with pytest.raises(TamperedEvent, match="nothing in the log allows that"):
        read_event(control, HELD, row(5, A, purged=True))


def test_what_lies_under_a_lost_key_is_destroyed_whether_held_or_not() -> None:
    control = folded(added(ROTATED, EventType.KEY_LOST, about(A), B))
    for event in (row(5, A),):
        with pytest.raises(SecretDestroyed, match="its key k-a is lost"):
            read_event(control, HELD, event)
    assert read_event(control, HELD, row(15, B)) == b"value"


# --- what a running process compares ------------------------------------------------------


def test_a_stream_extends_what_it_grew_from_and_nothing_else() -> None:
    assert folded(TWICE).extends(folded(ROTATED))
    assert folded(TWICE).extends(folded(TWICE))
    assert not folded(ROTATED).extends(folded(TWICE))
    for field, value in (("metadata", "{}"), ("recorded_at", 2**51), ("position", 13)):
        other = added(ROTATED, EventType.GENERATION_PURGED, {"a": 1}, B)
        assert not folded(changed(other, 4, **{field: value})).extends(folded(other))


def test_a_migration_changes_nothing_that_a_running_process_compares() -> None:
    closed = added(TWICE, EventType.GENERATION_CLOSED, about(C, generation=1), C, position=31)
    assert folded(MIGRATED).extends(folded(TWICE))
    assert folded(MIGRATED).extends(folded(closed))
    assert folded(AGAIN).extends(folded(ROTATED))


def test_events_under_the_active_key_are_counted_from_the_positions_alone() -> None:
    assert folded(GENESIS).events_under_active(7) == 7
    assert folded(ROTATED).events_under_active(11) == 1
    assert folded(ROTATED).events_under_active(20) == 10
    assert folded(MIGRATED).events_under_active(31) == 31
    assert folded(MIGRATED).events_under_active(40) == 40
