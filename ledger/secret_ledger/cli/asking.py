"""Asking the user again, before what nothing undoes."""

from __future__ import annotations

import sys

from secret_ledger.cli.usage import UsageError

__all__ = ["confirm"]


def confirm(verb: str, question: str, word: str) -> None:
    """Have `word` typed again on a terminal. Blocks; raises UsageError where it is not, or
    nobody is there to ask."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"{verb} can't be undone, and nobody is there to ask",
            hint="give --yes, or run it on a terminal",
        )
    print(question, end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().rstrip("\r\n") != word:
        raise UsageError(f"that is not {word}; nothing was done")
