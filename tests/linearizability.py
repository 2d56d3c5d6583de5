"""Is there an order in which these calls could have happened one by one?

After Wing and Gong (1993), with the memory of Lowe (2017): each step takes one of the calls
that nobody was through with before it began, and lets it act on the state; what was tried
once from one state is not tried again. One secret at a time, because what is linearizable of
each object is so of all (Herlihy and Wing 1990).

A call of unknown outcome may take effect at any time after it began, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    seen = {call.outcome[2] for call in calls if call.outcome and call.outcome[0] == "value"}
    # A value that nobody was ever shown is as good as any other such.
    search = _Search([c if c.value in seen else replace(c, value=None) for c in calls])
    answered = sum(1 << n for n, call in enumerate(calls) if call.answered is not None)
    furthest = -1
    stuck: Sequence[int] = ()
    tried: set[tuple[int, State]] = set()
    open_ends = [(0, State())]
    while open_ends:
        done, state = end = open_ends.pop()
        if done & answered == answered:
            return ()
        if end in tried:
            continue
        tried.add(end)
        following, candidates = search.following(done, state)
        if not following and (done & answered).bit_count() > furthest:
            furthest, stuck = (done & answered).bit_count(), candidates
        open_ends += following
    return [calls[number] for number in stuck]


class _Search:
    """The steps from one state of a search to the next, over calls in order of invocation."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    def following(self, done: int, state: State) -> tuple[list[tuple[int, State]], list[int]]:
        """What one more call may lead to, the likeliest last; and the calls that were asked.

        Those that have answered come before the unknown ones, which need not happen.
        """
        known: list[tuple[int, State]] = []
        unknown: dict[tuple[object, ...], tuple[int, State]] = {}
        candidates: list[int] = []
        over = False
        until: float = float("inf")
        first = (~done & (done + 1)).bit_length() - 1
        for number in range(first, len(self._calls)):
            call = self._calls[number]
            if call.invoked > until:
                break
            if done >> number & 1:
                continue
            candidates.append(number)
            outcome, after = act(state, call)
            if call.answered is None:
                if after != state:
                    # Of calls that would do the same, the one that began first may do it.
                    alike = (call.action, call.value, call.expect)
                    unknown.setdefault(alike, (done | 1 << number, after))
                continue
            until = min(until, call.answered)
            over = over or _before(call) < state.version
            if outcome == call.outcome:
                known.append((done | 1 << number, after))
        if over:
            return [], candidates
        return [*reversed(unknown.values()), *reversed(known)], candidates


def _before(call: Call) -> int:
    """The version that a call met, by its outcome; versions never go back."""
    assert call.outcome is not None
    kind, *version = call.outcome
    if kind == "absent":
        return 0
    assert isinstance(version[0], int)
    return version[0] - 1 if kind == "wrote" else version[0]
