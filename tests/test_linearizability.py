"""The checker of histories itself: what it must let pass, and what it must not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from linearizability import Action, Call, State, act, unexplained


def put(invoked: int, answered: int | None, version: int | None, value: str, **more: int) -> Call:
    outcome = None if version is None else ("wrote", version)
    return Call("put", invoked, answered, outcome, value, more.get("expect"))


def conflict(invoked: int, answered: int, expect: int, version: int) -> Call:
    return Call("put", invoked, answered, ("conflict", version), "refused", expect)


def get(invoked: int, answered: int, version: int, value: str) -> Call:
    return Call("get", invoked, answered, ("value", version, value))


def gone(invoked: int, answered: int, version: int) -> Call:
    return Call("get", invoked, answered, ("deleted", version))


def absent(invoked: int, answered: int) -> Call:
    return Call("get", invoked, answered, ("absent",))


def change(
    action: Action,
    invoked: int,
    answered: int | None,
    version: int | None,
    expect: int | None = None,
) -> Call:
    outcome = None if version is None else ("wrote", version)
    return Call(action, invoked, answered, outcome, expect=expect)


GOOD = {
    "nothing": [],
    "one after the other": [absent(0, 1), put(2, 3, 1, "x"), get(4, 5, 1, "x")],
    "a read beside a write sees it": [put(0, 9, 1, "x"), get(1, 2, 1, "x")],
    "a read beside a write does not see it": [put(0, 9, 1, "x"), absent(1, 2)],
    "two writes at once, in the order of their versions": [
        put(0, 9, 2, "x"), put(0, 9, 1, "y"), get(10, 11, 2, "x"),
    ],
    "two expect the same version, one wins": [
        put(0, 1, 1, "x"), put(2, 9, 2, "y", expect=1), conflict(2, 9, 1, 2),
    ],
    "deleted and restored": [
        put(0, 1, 1, "x"), change("delete", 2, 3, 2), gone(4, 5, 2),
        change("restore", 6, 7, 3), get(8, 9, 3, "x"),
    ],
    "a restore brings back what was deleted last": [
        put(0, 1, 1, "x"), put(2, 3, 2, "y"), change("delete", 4, 5, 3),
        change("restore", 6, 7, 4), get(8, 9, 4, "y"),
    ],
    "a restore of a live secret conflicts": [
        put(0, 1, 1, "x"), Call("restore", 2, 3, ("conflict", 1)),
    ],
    "deleted twice": [
        put(0, 1, 1, "x"), change("delete", 2, 3, 2), Call("delete", 4, 5, ("deleted", 2)),
        Call("delete", 6, 7, ("conflict", 2), expect=1),
    ],
    "unknown, and it happened": [put(0, None, None, "x"), get(1, 2, 1, "x")],
    "unknown, and it did not": [put(0, None, None, "x"), absent(1, 2), put(3, 4, 1, "y")],
    "unknown, and it happened much later": [
        put(0, None, None, "late"), put(1, 2, 1, "x"), get(3, 4, 1, "x"), get(5, 6, 2, "late"),
    ],
    "two unknown, of which one makes the gap": [
        put(0, 1, 1, "x"), put(2, None, None, "y"), change("delete", 2, None, None),
        put(3, 4, 3, "z"), get(5, 6, 3, "z"),
    ],
}  # fmt: skip

BAD = {
    "a stale read": [put(0, 1, 1, "x"), put(2, 3, 2, "y"), get(4, 5, 1, "x")],
    "a read of what is not written yet": [get(0, 1, 1, "x"), put(2, 3, 1, "x")],
    "two reads beside a write, that run backwards": [
        put(0, 1, 1, "x"), put(2, 9, 2, "y"), get(3, 4, 2, "y"), get(5, 6, 1, "x"),
    ],
    "a lost write": [put(0, 1, 1, "x"), absent(2, 3)],
    "a lost update: both expected the same and were told that they won": [
        put(0, 1, 1, "x"), put(2, 9, 2, "y", expect=1), put(2, 9, 3, "z", expect=1),
    ],
    "a version given to two": [put(0, 9, 1, "x"), put(0, 9, 1, "y")],
    "a write that overtook one before it": [put(0, 1, 2, "x"), put(2, 3, 1, "y")],
    "a double effect": [put(0, 1, 1, "x"), put(2, 3, 3, "y"), get(4, 5, 3, "y")],
    "a double effect of an unknown one": [
        put(0, None, None, "x"), get(1, 2, 1, "x"), put(3, 4, 2, "y"), get(5, 6, 3, "x"),
    ],
    "an unknown one that took effect before it began": [
        get(0, 1, 1, "x"), put(2, None, None, "x"),
    ],
    "a refused write that took effect": [
        put(0, 1, 1, "x"), conflict(2, 3, 0, 1), get(4, 5, 2, "refused"),
    ],
    "a conflict with a version that was not there yet": [
        put(0, 1, 1, "x"), conflict(2, 3, 1, 2), put(4, 5, 2, "y"),
    ],
    "a conflict where there is none": [put(0, 1, 1, "x"), conflict(2, 3, 1, 1)],
    "a value mixed up": [put(0, 1, 1, "x"), put(2, 3, 2, "y"), get(4, 5, 2, "x")],
    "a deletion that did not last": [
        put(0, 1, 1, "x"), change("delete", 2, 3, 2), get(4, 5, 1, "x"),
    ],
    "a restore of an older value": [
        put(0, 1, 1, "x"), put(2, 3, 2, "y"), change("delete", 4, 5, 3),
        change("restore", 6, 7, 4), get(8, 9, 4, "x"),
    ],
    "a restore of what is live": [put(0, 1, 1, "x"), change("restore", 2, 3, 2)],
    "more unknown effects than there were calls": [
        put(0, 1, 1, "x"), put(2, None, None, "y"), put(3, 4, 4, "z"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_a_history_that_could_have_happened_passes(history: Sequence[Call]) -> None:
    assert not unexplained(history)
    assert not unexplained(history[::-1])  # it goes by the times, not by the order given


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_a_history_that_could_not_have_happened_is_found(history: Sequence[Call]) -> None:
    assert unexplained(history)


def made(chance: random.Random, calls: int, at_once: int) -> list[Call]:
    """A history that happened: some clients at once, whose calls take effect one by one at a
    moment between their beginning and their end; some never get to know their outcome."""
    state = State()
    history: list[Call] = []
    free = [0] * at_once
    now = 0
    for number in range(calls):
        now += 2
        client = min(range(at_once), key=free.__getitem__)
        invoked = chance.randint(free[client], max(free[client], now))
        now = max(now, invoked)
        answered: int | None = now + chance.randint(1, 3 * at_once)
        action: Action = chance.choice(("get", "put", "put", "delete", "restore"))
        expect = chance.choice((None, state.version, state.version - 1))
        if action == "get" or (expect is not None and expect < 0):
            expect = None
        call = Call(action, invoked, answered, None, f"v{number}", expect)
        happens = True
        if chance.random() < 0.05:
            answered, happens = None, chance.random() < 0.5
        outcome, after = act(state, call)
        if happens:
            state = after
        free[client] = now + 3 * at_once + 1
        known = outcome if answered is not None else None
        history.append(Call(action, invoked, answered, known, call.value, expect))
    return history


@pytest.mark.parametrize("seed", range(5))
def test_long_histories_that_happened_pass_and_one_wrong_outcome_in_them_is_found(
    seed: int,
) -> None:
    chance = random.Random(seed)
    history = made(chance, calls=400, at_once=8)
    assert not unexplained(history)
    reads = [n for n, c in enumerate(history) if c.action == "get" and c.outcome is not None]
    number = chance.choice(reads[10:])
    call = history[number]
    history[number] = Call("get", call.invoked, call.answered, ("value", 1, "never written"))
    stuck = unexplained(history)
    assert history[number] in stuck
