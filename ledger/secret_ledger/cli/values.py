"""How `put` takes a value, and how `get` prints it."""

from __future__ import annotations

import getpass
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from secret_ledger.cli.output import Output, visible
from secret_ledger.cli.usage import UsageError
from secret_ledger.errors import ValueTooLarge
from secret_ledger.model.secret import MAX_VALUE, Secret

__all__ = ["read_value", "write_value"]


def read_value(
    name: str, file: Path | None, output: Output, *, allow_empty: bool = False
) -> Secret:
    """Read the bytes of `file` or stdin as they are, a last line break included.

    If stdin is a terminal, the user types the value without an echo. Raises ValueTooLarge for more
    than MAX_VALUE bytes, and UsageError if nothing can be read. Also raises UsageError if the value
    is empty or holds only line breaks, unless `allow_empty`.
    """
    value = _given(name, file, output)
    # `false | put` gives an empty value, and `echo "$UNSET" | put` only a line break.
    if not allow_empty and not value.reveal().strip(b"\r\n"):
        what = "holds only line breaks" if value.reveal() else "is empty"
        raise UsageError(
            f"the value of {visible(name)} {what}; nothing was written",
            hint="check the command or the file that gives the value; if you do want this value,"
            " give --allow-empty",
        )
    return value


def _given(name: str, file: Path | None, output: Output) -> Secret:
    if file is not None:
        return _from_file(name, file, output)
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError(
            "stdin is closed, so there is no value",
            hint=f'printf %s "$VALUE" | secret-ledger put {name}',
        )
    if sys.stdin.isatty():
        return _typed(name)
    problem = ""
    try:
        return _bounded(name, sys.stdin.buffer, output)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise UsageError(
        f"stdin can't be read: {problem}",
        hint=f'printf %s "$VALUE" | secret-ledger put {name}',
    )


def _from_file(name: str, file: Path, output: Output) -> Secret:
    problem = ""
    try:
        with file.open("rb") as source:
            return _bounded(name, source, output)
    except (OSError, ValueError) as error:
        problem = error.strerror or "" if isinstance(error, OSError) else ""
    # No message repeats the path: a user may have given the value in its place.
    raise UsageError(
        f"the file of --file can't be read: {problem or 'no such path'}",
        hint="give the path of a file that holds the value, or leave --file out for stdin",
    )


def _bounded(name: str, source: BinaryIO, output: Output) -> Secret:
    value = Secret(b"".join(_pieces(source)))
    size = len(value.reveal())
    if size > MAX_VALUE:
        raise ValueTooLarge(
            f"the value of {name} has more than {MAX_VALUE:,} bytes",
            hint="encrypt large data with a key of its own, and store that key here",
        )
    if value.reveal().endswith(b"\n") and value.reveal().count(b"\n") == 1 and size > 1:
        output.note("the value ends with a line break, which is part of it (printf %s adds none)")
    return value


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """Reads to the end, or to one byte past the bound.

    A pipe that doesn't block may be empty before its writer has ended: then this waits.
    """
    room = MAX_VALUE + 1
    while room > 0:
        piece: bytes | None = source.read(room)
        if piece is None:
            select.select([source], [], [])
            continue
        if not piece:
            return
        room -= len(piece)
        yield piece


def _typed(name: str) -> Secret:
    try:
        value = Secret(os.fsencode(getpass.getpass(f"Value of {name} (not shown): ")))
    except EOFError:
        raise UsageError("nothing was typed, and nothing was written") from None
    return value


def write_value(value: Secret) -> None:
    """Print the bytes as they are, and on a terminal a line break after them."""
    sys.stdout.flush()
    sys.stdout.buffer.write(value.reveal())
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
