"""What is being done just now, on a terminal, in one line that the next one takes the place of."""

from __future__ import annotations

import sys

__all__ = ["clear", "say"]


def say(text: str) -> None:
    """Show it until something else is shown."""
    if sys.stderr.isatty():
        print(f"\r\033[K  {text} …", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Before what is there to stay is printed."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
