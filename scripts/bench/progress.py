"""Progress on a terminal, in one line that the next line replaces."""

from __future__ import annotations

import sys

__all__ = ["clear", "say"]


def say(text: str) -> None:
    """Show `text` until the next line replaces it."""
    if sys.stderr.isatty():
        print(f"\r\033[K  {text} …", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Clear the line before output that stays is printed."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
