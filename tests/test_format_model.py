"""docs/format.md's rules hold against everybody who has every row that ever existed, and no key.

`format_model` says the rules anew. `SECRET_LEDGER_TEST_EXAMPLES=500` searches as many more
histories, at random; do that after a change to what is sealed or to what an answer rests on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from format_attacks import Edit, apply, edits_of, forgeries
from format_checks import verify_full, verify_latest
from format_histories import MORE, OPS, SECRETS, World, histories, play
from format_model import Answer, Refused
from format_verdict import Judge, Verdict
from format_writes import put

NOTHING: frozenset[str] = frozenset()

LONGER = (
    ("put a", "destroy a", "put a", "put b"),
    ("put a", "put a", "delete a", "restore a"),
    ("put a", "put b", "rotate", "put b", "rekey"),
    ("put a", "put b", "heal-version a", "put a"),
    ("put a", "put b", "rotate", "put b", "lost", "put a"),
    ("put a", "put b", "rotate", "put b", "lost", "migrate"),
    ("put a", "put b", "rotate", "migrate", "put a"),
    ("put a", "rotate", "migrate", "purge", "retire", "put b"),
    ("put a", "destroy a", "rotate", "migrate", "put a"),
    ("put a", "rotate", "abandon", "rotate", "migrate"),
    ("put a", "put b", "rotate", "put b", "build"),
    ("put a", "~put b", "put a", "~destroy a", "put b", "rotate", "~lost"),
)
OLDER = (
    ("put a", "destroy a", "put a"),
    ("put a", "destroy a", "put a", "upgrade", "put b"),
    ("put a", "put b", "rotate", "put b", "lost", "upgrade"),
)
"""Of a ledger that an older release made: no fact is sealed before `upgrade`."""


def _wrong(world: World, edits: tuple[Edit, ...], dropped: frozenset[str] = NOTHING) -> list[str]:
    verdicts = Judge(world, apply(world.database, edits), dropped).all()
    return [_told(world, edits, verdict) for verdict in verdicts]


def _told(world: World, edits: tuple[Edit, ...], verdict: Verdict) -> str:
    steps = "; ".join(map(str, edits))
    return f"{', '.join(world.ops)} | {steps} | {verdict.question}: {verdict.answer}"


def _every(number: int, edits: Iterator[Edit]) -> Iterator[tuple[Edit, ...]]:
    for count, edit in enumerate(edits):
        if count % number == 0:
            yield (edit,)


def test_after_every_short_honest_history_each_answer_is_true_and_nothing_is_found() -> None:
    count = 0
    for world in [*histories(4), *histories(2, (*OPS, *MORE)), *map(play, LONGER)]:
        count += 1
        ledger = world.ledger()
        verify_latest(ledger)
        verify_full(ledger)
        for stream in SECRETS:
            true = world.truths(None, ledger.generation, stream)
            assert ledger.get(stream) in true["get"], (world.ops, stream)
            assert ledger.restored(stream) in true["restore"], (world.ops, stream)
            for version in range(1, 7):
                answer = ledger.get_version(stream, version)
                assert answer in true["version", version], (world.ops, stream, version)
            for time in range(0, world.clock + 20, 10):
                assert ledger.get_at(stream, time) in true["at", time], (world.ops, stream, time)
    assert count > 300


def test_no_single_edit_after_any_two_operations_makes_a_wrong_answer() -> None:
    for world in histories(2):
        for edit in edits_of(world):
            assert not _wrong(world, (edit,))


@pytest.mark.parametrize("ops", LONGER, ids=" ".join)
def test_no_single_edit_of_a_longer_history_makes_a_wrong_answer(ops: tuple[str, ...]) -> None:
    world = play(ops)
    for edits in _every(9, edits_of(world)):
        assert not _wrong(world, edits)


@pytest.mark.parametrize("ops", OLDER, ids=" ".join)
def test_no_single_edit_of_an_older_ledger_makes_a_wrong_answer(ops: tuple[str, ...]) -> None:
    world = play(ops, facts=False)
    for edits in _every(5, edits_of(world)):
        assert not _wrong(world, edits)


def test_no_two_or_three_edits_make_a_wrong_answer() -> None:
    chosen = random.Random(12)
    for ops in LONGER:
        world = play(ops)
        edits = list(edits_of(world))
        for number in (2,) * 120 + (3,) * 80:
            assert not _wrong(world, tuple(chosen.choice(edits) for _ in range(number)))


def test_no_edits_of_any_history_make_a_wrong_answer_as_far_as_it_was_searched() -> None:
    more = int(os.environ.get("SECRET_LEDGER_TEST_EXAMPLES", "0"))
    chosen = random.Random() if more else random.Random(13)
    for _ in range(more or 8):
        world = World(facts=chosen.random() < 0.75)
        length = chosen.randint(3, 8)
        for _ in range(10 * length):
            older = () if world.ledger().control.upgraded else ("upgrade",)
            if len(world.ops) < length:
                with suppress(Refused):  # where it can't be done now
                    world.do(chosen.choice((*OPS, *MORE, "put a", "put b", "rotate", *older)))
        edits = list(edits_of(world))
        for number in (1,) * 60 + (2,) * 90 + (3,) * 50:
            assert not _wrong(world, tuple(chosen.choice(edits) for _ in range(number)))


NEEDED: dict[str, tuple[str, ...]] = {
    # of a read
    "newest-opens": ("put a", "put b"),
    "newest-not-purged, purged-authority": ("put a", "put b", "rotate", "put b", "lost", "migrate"),
    "newest-not-lost": ("put a", "put a", "rotate", "put a", "lost"),
    "floor": ("put a", "destroy a", "put a"),
    "walk": ("put a", "put a"),
    "walk-gap": ("put a", "put a"),
    "walk-hash": ("~put a", "put a", "put a"),
    "purged-only-lost": ("put a", "put a"),
    # of the control stream and the generation in use
    "control-chain": ("put a", "rotate", "abandon", "rotate", "put a"),
    "control-opens": ("put a",),
    "not-closed": ("put a", "rotate", "migrate", "put a"),
    "nothing-above": ("put a", "rotate", "migrate", "put a"),
    # of an append
    "last-opens": ("put a", "put b"),
    "last-time": ("put a",),
    "nothing-behind-head": ("put a", "put a"),
    "damage-occupied": ("put a",),
    "damage-bounded": ("put a",),
    "damage-time": ("put a",),
    # of boot and full verification
    "sum-of-versions": ("put a", "put a", "put b"),
    "gapless": ("put a", "put b"),
    "full-chain": ("put a", "destroy a", "put a"),
    "full-purged": ("put a", "put a"),
    "full-opens": ("put a", "rotate", "migrate"),
    "full-authority": ("put a", "rotate", "put a", "put b"),
    "census-of-an-end": ("put a", "put b", "heal-version a"),
    "closed-is-there": ("put a", "rotate", "migrate"),
    "closed-is-whole": ("put a", "rotate", "migrate"),
    "purged-is-empty": ("put a", "rotate", "migrate", "purge"),
    # of what takes something away
    "retire-verifies": ("put a", "rotate", "migrate"),
    "purge-verifies": ("put a", "put a", "rotate", "migrate"),
    "lost-verifies": ("put a", "rotate", "put a"),
    "lost-while-building": ("put a", "rotate", "put a", "build"),
    "already-proven": ("put a", "rotate", "put b"),
}
"""Rules, and a history that can be attacked without them."""


@pytest.mark.parametrize("rules", NEEDED)
def test_each_rule_is_needed(rules: str) -> None:
    _is_found(play(NEEDED[rules]), edits_of, rules)


def test_an_older_ledgers_newest_event_has_to_be_walked_for_its_floor() -> None:
    world = play(("put a", "destroy a", "put a"), facts=False)
    _is_found(world, edits_of, "floor-walked")


@pytest.mark.parametrize(
    ("rule", "ops"),
    [
        ("authority", ("put a", "rotate", "put a")),
        ("control-authority", ("put a", "rotate", "migrate", "put a", "put b")),
    ],
)
def test_a_superseded_key_that_leaked_forges_nothing_outside_of_its_time(
    rule: str, ops: tuple[str, ...]
) -> None:
    world = play(ops)
    _is_found(world, forgeries, rule)
    for edit in forgeries(world):
        assert not _wrong(world, (edit,))


def _is_found(world: World, attack: Callable[[World], Iterator[Edit]], rules: str) -> None:
    """Without the rules, some edit makes a wrong answer; with them, that edit doesn't."""
    dropped = frozenset(rules.split(", "))
    for edit in attack(world):
        if _wrong(world, (edit,), dropped):
            assert not _wrong(world, (edit,))
            return
    pytest.fail(f"nothing goes wrong without {rules}")


def test_the_rows_cut_off_at_the_end_of_a_stream_fool_a_read_and_are_found_at_boot() -> None:
    world = play(("put a", "put a", "put b"))
    newest = world.ledger().newest("a")
    assert newest is not None
    edited = apply(world.database, (Edit("cut", ((0, newest.position),)),))
    assert world.ledger(edited).get("a") == Answer("value", "a20")
    with pytest.raises(Refused, match="sum-of-versions"):
        verify_latest(world.ledger(edited))


def test_the_newest_events_cut_off_with_the_head_row_need_an_outside_anchor() -> None:
    world = play(("put a", "put a"))
    head = world.database.heads[0]
    cut = Edit("cut", ((0, head.position),), (), ((0, head._replace(position=4, time=20)),))
    edited = apply(world.database, (cut,))
    verify_full(world.ledger(edited))
    assert world.ledger(edited).get("a") == Answer("value", "a20")


def test_an_event_that_was_rolled_back_stands_in_until_something_above_pins_it() -> None:
    world = play(("put a", "~put a", "put b"))
    (attempt,) = world.attempts
    head = world.database.heads[0]._replace(time=attempt.time)
    edited = apply(world.database, (Edit("replay", (), (attempt,), ((0, head),)),))
    verify_full(world.ledger(edited))
    assert world.ledger(edited).get("a") == Answer("value", "a30")
    assert world.ledger(edited).get("b") == Answer("absent")
    pinned = play(("put a", "~put a", "put a", "put a"))
    (attempt,) = pinned.attempts
    edited = apply(pinned.database, (Edit("replay", (), (attempt,)),))
    with pytest.raises(Refused, match="walk-hash"):
        pinned.ledger(edited).get_version("a", 2)


def test_what_lies_under_a_key_that_nobody_holds_can_be_shifted_before_it_is_given_up() -> None:
    world = play(("put a", "rotate"))
    row = world.database.rows[0, 4]
    edited = apply(world.database, (Edit("alter", ((0, 4),), (row._replace(stream="b"),)),))
    without = world.ledger(edited)
    without.held = frozenset(["k2"])
    with pytest.raises(Refused, match="missing"):
        without.get("b")


def test_an_older_release_that_is_let_write_seals_no_floor_and_full_verification_says_so() -> None:
    world = play(("put a", "destroy a"))
    hide = next(edit for edit in edits_of(world) if edit.what == "hide S")
    fooled = world.ledger(apply(world.database, (hide,)))
    (written,) = put(fooled, "a", "again")
    assert written.facts.floor is None
    world.database.rows[0, written.position] = written
    head = world.database.heads[0]
    world.database.heads[0] = head._replace(position=written.position, time=written.time)
    with pytest.raises(Refused, match="the chain contradicts"):
        verify_full(world.ledger(world.database.copy()))
