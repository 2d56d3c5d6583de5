"""The names and the values that every contender writes."""

# ruff: noqa: S311 - chance picks them here, it guards nothing

from __future__ import annotations

import random
import string
from typing import Final

__all__ = ["VALUE_BYTES", "name_of", "names", "some_value"]

VALUE_BYTES: Final = 200
_CHARACTERS: Final = string.ascii_letters + string.digits


def name_of(number: int) -> str:
    """Return the name of the secret with this number."""
    return f"tenant-{number % 50:02}/source-{number:07}/key"


def names(count: int) -> list[str]:
    """Return `count` names, each once."""
    return [name_of(number) for number in range(count)]


def some_value() -> str:
    """Make a value of 200 bytes: text, because the peer's JSON can't hold other bytes."""
    return "".join(random.choices(_CHARACTERS, k=VALUE_BYTES))
