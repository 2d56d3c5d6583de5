"""Is there an order in which these calls could have happened one by one?

After Wing and Gong (1993), with the memory of Lowe (2017): each step takes one of the calls
that nobody was through with before it began, and lets it act on the state; what was tried
once from one state is not tried again. One secret at a time, because what is linearizable of
each object is so of all (Herlihy and Wing 1990).

A call of unknown outcome may take effect at any time after it began, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Action = Literal["put", "get", "delete", "restore"]

Outcome = tuple[str | int | None, ...]
"""`("wrote", version)`, `("value", version, value)`, `("conflict", version)`,
`("deleted", version)`, `("absent",)`."""


class State(NamedTuple):
    """A secret as its latest version is."""

    version: int = 0
    live: bool = False
    value: str | None = None
    """Of a deleted one: what a restore brings back."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, and when it was made. Times in nanoseconds, of one clock for all."""

    action: Action
    invoked: int
    answered: int | None = None
    """None: it never was, so that its outcome is unknown."""
    outcome: Outcome | None = None
    value: str | None = None
    expect: int | None = None


def act(state: State, call: Call) -> tuple[Outcome, State]:
    """What the contract says of one call alone: its outcome, and the state behind it."""
    version, live, value = state
    if call.action == "get":
        if live:
            return ("value", version, value), state
        return (("deleted", version) if version else ("absent",)), state
    if call.expect is not None and call.expect != version:
        return ("conflict", version), state
    if call.action == "put":
        return ("wrote", version + 1), State(version + 1, True, call.value)
    if version == 0:
        return ("absent",), state
    if call.action == "delete":
        if not live:
            return ("deleted", version), state
        return ("wrote", version + 1), State(version + 1, False, value)
    if live:
        return ("conflict", version), state
    return ("wrote", version + 1), State(version + 1, True, value)


def unexplained(history: Iterable[Call]) -> Sequence[Call]:
    """Nothing where the history of one secret is linearizable; else the calls of which none
    could come next, where the search had got furthest."""
    calls = sorted(history, key=lambda call: call.invoked)
    answered = sum(1 << n for n, call in enumerate(calls) if call.answered is not None)
    furthest = 0
    stuck: Sequence[Call] = ()
    tried: set[tuple[int, State]] = set()
    open_ends = [(0, State())]
    while open_ends:
        done, state = open_ends.pop()
        if done & answered == answered:
            return ()
        if (done, state) in tried:
            continue
        tried.add((done, state))
        following, candidates = _following(calls, done, state)
        if not following and (done & answered).bit_count() >= furthest:
            furthest = (done & answered).bit_count()
            stuck = candidates
        open_ends += following
    return stuck or calls


def _following(
    calls: Sequence[Call], done: int, state: State
) -> tuple[list[tuple[int, State]], list[Call]]:
    """The states that one more call may lead to, the likeliest last; and the calls that were
    asked. Those that have answered come before the unknown ones, which need not happen."""
    first = (~done & (done + 1)).bit_length() - 1
    until: float = float("inf")
    known: list[tuple[int, State]] = []
    unknown: list[tuple[int, State]] = []
    candidates: list[Call] = []
    for number in range(first, len(calls)):
        call = calls[number]
        if call.invoked > until:
            break
        if done >> number & 1:
            continue
        outcome, after = act(state, call)
        candidates.append(call)
        if call.answered is None:
            if after != state:
                unknown.append((done | 1 << number, after))
            continue
        until = min(until, call.answered)
        if outcome == call.outcome:
            known.append((done | 1 << number, after))
    return [*unknown[::-1], *known[::-1]], candidates
