"""The control stream: what it says, every rule that it can break, and who has authority."""

from __future__ import annotations

from typing import Any

import pytest

from control_streams import (
    GENESIS,
    LEDGER,
    MIGRATED,
    ROTATED,
    TWICE,
    WITH_FACTS,
    A,
    B,
    C,
    D,
    Stream,
    about,
    added,
    changed,
    folded,
    rehashed,
    rotated,
)
from inside import (
    EventType,
    SchemaTooNew,
    TamperedEvent,
    check_control_authority,
    check_control_seals,
    check_known,
    fold_control,
    key_metadata,
    purge,
    upgrade_metadata,
)

T = EventType


def test_genesis_makes_one_active_key_at_epoch_one() -> None:
    control = folded(GENESIS)
    assert (control.epoch, control.active.id, control.active.fingerprint) == (
        1,
        A.id,
        A.fingerprint,
    )
    assert (control.active.introduced, control.active.activated) == (1, 2)
    assert control.last == GENESIS[1]
    assert control.opened is None
    assert control.closed is None


def test_an_upgrade_counts_an_epoch_as_an_activation_does() -> None:
    assert folded(WITH_FACTS).epoch == 2
    assert folded(WITH_FACTS).began_with_facts
    later = folded(rotated(WITH_FACTS, A, B, 3))
    assert (later.epoch, [key.epoch for key in later.keys]) == (3, [1, 3])
    older = folded(added(TWICE, T.LEDGER_UPGRADED, upgrade_metadata(), C))
    assert (older.epoch, older.upgrades, older.began_with_facts) == (4, (22,), False)


@pytest.mark.parametrize(
    ("event_type", "facts"), [("key.borrowed", about(B)), (T.LEDGER_UPGRADED, {"facts": 3})]
)
def test_what_a_later_release_wrote_is_too_new_and_never_tampering(
    event_type: str, facts: dict[str, Any]
) -> None:
    newer = added(GENESIS, event_type, facts, A)
    control = folded(added(newer, T.KEY_ACTIVATED, {}, A))  # what follows is not looked at
    check_control_seals(control, {A.fingerprint: A})
    with pytest.raises(SchemaTooNew, match="position 3, which a later release wrote"):
        check_known(control)
    forged = folded(changed(newer, 2, sealed=GENESIS[1].sealed))
    with pytest.raises(TamperedEvent, match="does not authenticate"):
        check_control_seals(forged, {A.fingerprint: A})


def test_each_rotation_counts_an_epoch_and_the_last_key_is_active() -> None:
    control = folded(TWICE)
    assert [key.id for key in control.keys] == [A.id, B.id, C.id]
    assert [key.epoch for key in control.keys] == [1, 2, 3]
    assert control.active.fingerprint == C.fingerprint
    assert control.key(B.fingerprint) == control.key_of_id(B.id) == control.keys[1]
    assert control.key(D.fingerprint) is None


def test_a_stream_can_be_folded_on_from_where_it_was_read_before() -> None:
    kept = folded(GENESIS)
    assert fold_control(LEDGER, 0, TWICE[2:], kept) == folded(TWICE)
    with pytest.raises(TamperedEvent, match="missing before it"):
        fold_control(LEDGER, 0, TWICE[3:], kept)


def test_keys_end_retired_or_lost_and_stay_known() -> None:
    events = added(TWICE, T.KEY_RETIRED, about(A), C)
    control = folded(added(events, T.KEY_LOST, about(B), C))
    first, second, third = control.keys
    assert (first.retired, first.lost) == (22, None)
    assert (second.retired, second.lost) == (None, 23)
    assert (third.retired, third.lost) == (None, None)


# --- every rule, broken -------------------------------------------------------------------

PAIR = key_metadata(B.id, B.fingerprint, 2)
CLOSED = added(ROTATED, T.GENERATION_CLOSED, about(B, generation=1), B)


def introduced(facts: Any, position: int | None = None) -> Stream:
    return added(GENESIS, T.KEY_INTRODUCED, facts, A, position)


def activated(introduction: Any, activation: Any, position: int | None = None) -> Stream:
    return added(introduced(introduction), T.KEY_ACTIVATED, activation, B, position)


def both(facts: str) -> Stream:
    return activated(facts, facts)


BROKEN: dict[str, tuple[Stream, str]] = {
    "no event at all": ((), "empty"),
    "only retired events": (added((), T.GENERATION_PURGED, {}, A), "empty"),
    "an event of a secret's stream": (changed(GENESIS, 1, stream="s"), "not an event of this"),
    "an event of another generation": (changed(GENESIS, 1, generation=1), "not an event of this"),
    "a version left out": (rehashed([*ROTATED[:2], ROTATED[3]]), "version 3 is missing"),
    "a version twice": (changed(GENESIS, 1, version=1), "version 2 is missing"),
    "a broken link": ((GENESIS[0], GENESIS[1]._replace(prev_hash=bytes(32))), "does not follow"),
    "a first event with a link": (
        (GENESIS[0]._replace(prev_hash=bytes(31) + b"1"), GENESIS[1]),
        "does not follow",
    ),
    "a hash that does not fit": (
        (GENESIS[0], GENESIS[1]._replace(recorded_at=GENESIS[1].recorded_at + 1)),
        "hash does not match",
    ),
    "a position that goes back": (changed(ROTATED, 2, position=1), "before its predecessor"),
    "a time that goes back": (changed(ROTATED, 2, recorded_at=0), "before its predecessor"),
    "a purged event": (changed(GENESIS, 1, sealed=purge(GENESIS[1].sealed)), "never purged"),
    "a key that was never introduced": (
        changed(ROTATED, 3, key_fingerprint=bytes(32)),
        "was active at",
    ),
    "an event behind the close": (
        added(CLOSED, T.GENERATION_PURGED, {}, B),
        "after the generation was closed",
    ),
    "metadata that can't be read": (introduced("[1]"), "not readable"),
    "an upgrade to what was before": (
        added(GENESIS, T.LEDGER_UPGRADED, {"facts": 1}, A),
        "can't have had such an upgrade",
    ),
    "an upgrade to no number": (
        added(GENESIS, T.LEDGER_UPGRADED, {"facts": True}, A),
        "can't have had such an upgrade",
    ),
    "an upgrade twice": (
        added(WITH_FACTS, T.LEDGER_UPGRADED, upgrade_metadata(), A),
        "can't have had such an upgrade",
    ),
    "a rotation that forgets the upgrade": (
        rotated(WITH_FACTS, A, B, 2),
        "begin epoch 3",
    ),
    "a secret's type": (added(GENESIS, T.WRITTEN, {}, A), "no event of the control"),
    "an introduction at the end": (introduced(PAIR), "not activated at once"),
    "an introduction, then another thing": (
        added(introduced(PAIR), T.GENERATION_PURGED, {}, A),
        "not activated at once",
    ),
    "an activation alone": (added(GENESIS, T.KEY_ACTIVATED, PAIR, B), "without its introduction"),
    "an activation of another key": (
        activated(PAIR, key_metadata(C.id, C.fingerprint, 2)),
        "without its introduction",
    ),
    "an activation of another epoch": (
        activated(PAIR, key_metadata(B.id, B.fingerprint, 3)),
        "without its introduction",
    ),
    "an activation not right behind": (activated(PAIR, PAIR, 5), "without its introduction"),
    "a label used twice": (
        both(key_metadata(A.id, B.fingerprint, 2)),
        "introduced before",
    ),
    "a key used twice": (both(key_metadata("k-x", A.fingerprint, 2)), "before"),
    "a rotation back": (rotated(TWICE, C, A, 4), "introduced before"),
    "an epoch left out": (introduced(key_metadata(B.id, B.fingerprint, 3)), "begin epoch 2"),
    "an epoch that is no number": (introduced(about(B, epoch="2")), "begin epoch 2"),
    "a first key that is not introduced first": (
        rotated(added((), T.GENERATION_PURGED, {}, A), A, A, 1),
        "does not begin with its own first key",
    ),
    "a first key introduced by another": (
        rotated((), B, A, 1),
        "does not begin with its own first key",
    ),
    "the end of an unknown key": (added(GENESIS, T.KEY_LOST, about(D), A), "never introduced"),
    "the end of a key under another label": (
        added(ROTATED, T.KEY_RETIRED, {"key": {"id": B.id, "fingerprint": about(A)["key"]}}, B),
        "names no key",
    ),
    "the end of a mixed key": (
        added(
            ROTATED,
            T.KEY_RETIRED,
            {"key": {"id": B.id, "fingerprint": A.fingerprint.hex()}},
            B,
        ),
        "never introduced",
    ),
    "the loss of the active key": (added(ROTATED, T.KEY_LOST, about(B), B), "is the active one"),
    "a retired active key": (added(GENESIS, T.KEY_RETIRED, about(A), A), "is the active one"),
    "an opening by an unknown key": (
        added(MIGRATED[:-1], T.GENERATION_OPENED, about(D, generation=1), C),
        "never introduced",
    ),
    "an opening of the first generation": (
        added(GENESIS, T.GENERATION_OPENED, about(A, generation=0), A),
        "opens no generation",
    ),
    "an opening of a later generation": (
        added(MIGRATED, T.GENERATION_OPENED, about(C, generation=2), C),
        "opens no generation",
    ),
    "an opening without a number": (
        added(MIGRATED, T.GENERATION_OPENED, about(C), C),
        "opens no generation",
    ),
    "a generation opened twice": (
        added(MIGRATED, T.GENERATION_OPENED, about(C, generation=1), C),
        "opened twice",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_control_stream_that_breaks_a_rule_is_tampered(rule: str) -> None:
    events, reason = BROKEN[rule]
    with pytest.raises(TamperedEvent, match=reason):
        check_control_authority(folded(events))


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"key": None},
        {"key": "k-b"},
        {"key": {"id": "k-b"}},
        {"key": {"id": "K B", "fingerprint": "00" * 32}},
        {"key": {"id": "k-b", "fingerprint": "00" * 31}},
        {"key": {"id": "k-b", "fingerprint": "AB" * 32}},
        {"key": {"id": "", "fingerprint": "00" * 32}},
        {"key": {"id": 1, "fingerprint": "00" * 32}},
    ],
    ids=str,
)
def test_a_key_event_whose_metadata_names_no_key_is_tampered(facts: dict[str, Any]) -> None:
    for event_type in (T.KEY_INTRODUCED, T.KEY_LOST, T.KEY_RETIRED):
        with pytest.raises(TamperedEvent, match="names no key"):
            folded(added(GENESIS, event_type, facts, A))


def test_a_key_that_rotates_itself_in_lacks_the_authority() -> None:
    with pytest.raises(TamperedEvent, match=r"k-a .* was active at its position"):
        check_control_authority(folded(rotated(GENESIS, B, B, 2)))


def test_a_seal_that_a_held_key_does_not_open_is_tampered_and_others_are_not_judged() -> None:
    sealed = ROTATED[3].sealed
    forged = changed(ROTATED, 3, sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))
    check_control_seals(folded(forged), {A.fingerprint: A})
    with pytest.raises(TamperedEvent, match="does not authenticate"):
        check_control_seals(folded(forged), {B.fingerprint: B})
