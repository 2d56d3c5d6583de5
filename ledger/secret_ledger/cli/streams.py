"""stdout and stderr of one command, also if the shell has closed or redirected them.

The output arrives whole on stdout, or the command knows that it did not. A full disk may take a
part of a write without an error, and Python has no stream for a closed stdout.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Stdout", "drop", "streams"]


class Stdout(io.RawIOBase):
    """The raw stream below stdout. It notes why a write failed."""

    def __init__(self, raw: Any) -> None:
        self._raw: Final = raw
        self.problem: OSError | None = None
        """The error of the last write that failed; None if no write has failed."""
        self._dropping = False

    def write(self, data: ReadableBuffer, /) -> int | None:
        if self._dropping:
            return memoryview(data).nbytes
        try:
            written: int | None = self._raw.write(data)
        except OSError as error:
            self.problem = error
            raise
        return written

    def drop(self) -> None:
        """Discard the bytes that are not written yet, and all later bytes."""
        self._dropping = True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self._raw.fileno()
        return number

    def isatty(self) -> bool:
        return bool(self._raw.isatty())


@contextmanager
def streams() -> Iterator[Stdout]:
    """Replace sys.stdout, and a closed sys.stderr, while the block runs.

    Yields the raw stream below stdout. A character that an encoding lacks is written escaped.
    """
    before = sys.stdout, sys.stderr
    # A closed stream is None. A write to a closed stdout fails, as for other programs.
    stdout = before[0] or _nowhere(os.O_RDONLY)
    sys.stderr = before[1] or _nowhere(os.O_WRONLY)
    with suppress(AttributeError, ValueError, OSError):
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with suppress(OSError):
        stdout.flush()
    told = Stdout(_raw(stdout))
    # Buffered even with PYTHONUNBUFFERED: Python's unbuffered stdout ignores the bytes that a
    # full disk has not taken.
    buffer = io.BufferedWriter(told)
    sys.stdout = io.TextIOWrapper(
        buffer,
        encoding=stdout.encoding or "utf-8",
        errors="backslashreplace",
        line_buffering=told.isatty(),
    )
    try:
        yield told
    finally:
        told.drop()
        sys.stdout.close()
        sys.stdout, sys.stderr = before


def _raw(stream: TextIO) -> Any:
    buffer = getattr(stream, "buffer", None)
    if buffer is None:  # a host's own stream, which takes only text
        return _Text(stream)
    return getattr(buffer, "raw", buffer)


class _Text:
    """Takes bytes for a stream that takes only text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: ReadableBuffer) -> int:
        raw = bytes(data)
        self._stream.write(raw.decode(self._stream.encoding or "utf-8", "replace"))
        return len(raw)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


def drop(stream: TextIO) -> None:
    """Discard the text that `stream` holds, and all later text.

    Else the interpreter tries to write it again when it ends, and fails.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def _nowhere(mode: int) -> TextIO:
    return os.fdopen(os.open(os.devnull, mode), "w", encoding="utf-8")
