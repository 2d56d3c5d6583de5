"""stdout and stderr of one command, whatever the shell has made of them.

What is written to stdout arrives whole, or it is known that it did not: a full disk takes a part
and says nothing, and a closed stdout is no stream at all.
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
    """The bytes on their way to stdout."""

    def __init__(self, raw: Any) -> None:
        self._raw: Final = raw
        self.problem: OSError | None = None
        """Why not all has arrived; None if nothing has failed."""
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
        """Let what was not written yet, and all that follows, go nowhere."""
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
    """Stand in for sys.stdout and sys.stderr meanwhile; text that their encoding lacks is
    written escaped."""
    before = sys.stdout, sys.stderr
    # None, if it is closed. To write to a closed stdout fails, as it does for other programs.
    stdout = before[0] or _nowhere(os.O_RDONLY)
    sys.stderr = before[1] or _nowhere(os.O_WRONLY)
    with suppress(AttributeError, ValueError, OSError):
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with suppress(OSError):
        stdout.flush()
    told = Stdout(_raw(stdout))
    # Buffered also where Python's own is not (PYTHONUNBUFFERED): that one passes over what a
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
    if buffer is None:  # a host's own, which takes text
        return _Text(stream)
    return getattr(buffer, "raw", buffer)


class _Text:
    """A stream of text, which takes bytes."""

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
    """Let what `stream` holds, and all that follows, go nowhere: else the interpreter tries again
    when it ends, and fails."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def _nowhere(mode: int) -> TextIO:
    return os.fdopen(os.open(os.devnull, mode), "w", encoding="utf-8")
