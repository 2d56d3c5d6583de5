"""A question to the user before a step that nothing undoes."""

from __future__ import annotations

import sys

from secret_ledger.cli.usage import UsageError

__all__ = ["confirm"]


def confirm(verb: str, question: str, word: str) -> None:
    """Ask the user to type `word` on the terminal. Blocks.

    Raises UsageError if the user types anything else, or if stdin is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"{verb} can't be undone, and stdin is no terminal to ask on",
            hint="give --yes, or run it on a terminal",
        )
    print(question, end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().rstrip("\r\n") != word:
        raise UsageError(f"the answer is not {word}; nothing was done")
