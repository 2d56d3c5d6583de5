"""The command line, `secret-ledger`: thin over the library, one small file a family of verbs.

The rules of its terminal: data goes to stdout, everything else to stderr. A failure is one
`error:` line and, where there is a way out, one `hint:`, never a traceback without --debug.
A value is taken from stdin, a file or a prompt, never from an argument, and shown by `get`
alone. In a pipe the output is lines of tab-separated fields without a header, on a terminal a
table, and one JSON document with --json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (default: of this process's arguments) and return its exit code."""
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
