"""Runs `secret-ledger` within the test's process, as a shell would: words in, bytes out."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from inside import main
from secret_ledger import Key

KEY = Key.from_bytes(bytes(range(1, 33)), "k-old")
NEW_KEY = Key.from_bytes(bytes(range(101, 133)), "k-new")
OTHER_KEY = Key.from_bytes(bytes(range(201, 233)))


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Any:
        """The JSON object of the error, the last line of stderr."""
        return json.loads(self.err.splitlines()[-1])

    def remarks(self, *kinds: str) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith(kinds)]


class Cli:
    """One shell: its environment, and a command at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        self._monkeypatch = monkeypatch
        self.url = url
        for name in [n for n in os.environ if "OS_SECRET_" in n or n == "CREDENTIALS_DIRECTORY"]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("OS_SECRET_LEDGER_URL", url)
        self.hold(KEY)

    def set(self, name: str, value: str | None) -> None:
        if value is None:
            self._monkeypatch.delenv(name, raising=False)
        else:
            self._monkeypatch.setenv(name, value)

    def hold(self, current: Key | None, *previous: Key) -> None:
        """Set the keys of the settings."""
        self.set("OS_SECRET_KEY", current.text().reveal_text() if current else None)
        self.set("OS_SECRET_KEY_ID", current.key_id if current else None)
        texts = [f"{k.key_id}={k.text().reveal_text()}" for k in previous]
        self.set("OS_SECRET_PREVIOUS_KEYS", ",".join(texts) or None)

    def __call__(self, *words: str, value: bytes = b"a value") -> Done:
        stdin, out, err = (io.TextIOWrapper(io.BytesIO(b)) for b in (value, b"", b""))
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main(words)
        done = Done(code, _content(out), _content(err).decode())
        assert "Traceback" not in done.err
        return done


def _content(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()
