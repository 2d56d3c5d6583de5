"""Runs `secret-ledger` as a process of its own: in a pipe, or with a person at its terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli_session import KEY

ROOT = Path(__file__).resolve().parent.parent
LEDGER = [sys.executable, "-m", "secret_ledger"]


def environment(url: str) -> dict[str, str]:
    """What a shell has set: the database, the key, a terminal of 100 columns."""
    # Buffered as it is for everybody else, whatever this machine has set.
    ours = ("OS_SECRET_", "PYTHONUNBUFFERED")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(ours)}
    return {
        **kept,
        "OS_SECRET_LEDGER_URL": url,
        "OS_SECRET_KEY": KEY.text().reveal_text(),
        "COLUMNS": "100",
        "TERM": "xterm",
    }


def run(
    environ: dict[str, str], *words: str, value: bytes = b"a value"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*LEDGER, *words], env=environ, input=value, capture_output=True, timeout=60, check=False
    )


@dataclass
class Terminal:
    """A person at a terminal: what is shown to it, and what it types."""

    fd: int
    process: subprocess.Popen[bytes]
    shown: str = ""
    _seen: int = field(default=0)

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 30
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.shown[-2000:]!r}"
            self._read(0.1)
        self._seen = len(self.shown)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        while self.process.poll() is None:
            self._read(0.1)
        self._read(0)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                got = os.read(self.fd, 65536)
            except OSError:
                return
            if not got:
                return
            self.shown += got.decode(errors="replace").replace("\r\n", "\n")
            seconds = 0


@contextmanager
def terminal(environ: dict[str, str], *words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*LEDGER, *words],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,  # getpass asks the controlling terminal
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_terminal(environ: dict[str, str], *words: str) -> tuple[int, str]:
    with terminal(environ, *words) as person:
        return person.end(), person.shown
