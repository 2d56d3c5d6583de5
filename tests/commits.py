"""Acting just before a commit of the ledger: where a process is killed, nothing lies between
one commit and the next but what its next run must do again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from connections import before_commits


class Killed(BaseException):
    """Stands for the end of the process."""


def before_commit(number: int, act: Callable[[], object]) -> AbstractContextManager[None]:
    """Call `act` before the commit of that number, of the writing transactions of this process
    that are still to come."""
    left = number

    def count(_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act()

    return before_commits(count)


@contextmanager
def killed_before_commit(number: int) -> Iterator[None]:
    """Let this process die, as it were, before the commit of that number."""

    def die() -> None:
        raise Killed

    with before_commit(number, die):
        yield
