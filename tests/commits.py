"""Acting just before a commit of the ledger: where a process is killed, nothing lies between
one commit and the next but what its next run must do again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine


class Killed(BaseException):
    """Stands for the end of the process."""


def _writes(connection: Connection) -> bool:
    options: Any = connection.get_execution_options()
    if connection.dialect.name == "sqlite":
        return bool(options.get("ledger_mode") == "write")
    return bool(options.get("isolation_level") == "READ COMMITTED")


def before_commit(number: int, act: Callable[[], object]) -> Callable[[Connection], None]:
    """Call `act` before the commit of that number, of the writing transactions of this process
    that are still to come. Returns the listener."""
    left = number

    def listen(connection: Connection) -> None:
        nonlocal left
        if _writes(connection):
            left -= 1
            if left == 0:
                act()

    event.listen(Engine, "commit", listen)
    return listen


@contextmanager
def killed_before_commit(number: int) -> Iterator[None]:
    """Let this process die, as it were, before the commit of that number."""

    def die() -> None:
        raise Killed

    listener = before_commit(number, die)
    try:
        yield
    finally:
        event.remove(Engine, "commit", listener)
