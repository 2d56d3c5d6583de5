"""The command line, `secret-ledger`: thin over the library, one file for each family of verbs.

The rules of its terminal: data goes to stdout, everything else to stderr. A failure is one
`error:` line, and one `hint:` if the error has a way out. Only --debug shows a traceback. `put`
takes a value from stdin, a file or a prompt, never from an argument. Only `get` shows a value. In
a pipe the output is lines of tab-separated fields without a header, on a terminal a table, and
with --json one JSON document.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (default: this process's arguments) and return its exit code.

    Returns 2 if cyclopts or rich is not installed.
    """
    missing = [name for name in ("cyclopts", "rich") if find_spec(name) is None]
    if missing:
        print(
            f"error: the command line needs {' and '.join(missing)}\n"
            "hint: pip install 'secret-ledger[cli]'",
            file=sys.stderr,
        )
        return 2
    from secret_ledger.cli.run import run

    return run(list(sys.argv[1:] if argv is None else argv))
