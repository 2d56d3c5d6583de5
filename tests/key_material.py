"""Keys of the tests of settings, sources and files, and how a refusal of them must look."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inside import HOME, MODE, Key, Keyring, LedgerError
from leaks import shown_by

ROOTS = [bytes([n]) + bytes(range(0xC0, 0xDF)) for n in range(4)]
HEX = [root.hex() for root in ROOTS]
BASE64 = [base64.b64encode(root).decode() for root in ROOTS]
KEYS = [Key.from_bytes(root) for root in ROOTS]


def write(path: Path, text: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def development(home: Path, **more: str) -> dict[str, str]:
    return {MODE: "development", HOME: str(home), **more}


def refused(
    environ: dict[str, str], kind: type[LedgerError], match: str | None = None
) -> LedgerError:
    """The error that these settings end in; it must show no key of these tests."""
    with pytest.raises(kind, match=match) as caught:
        Keyring.from_env(environ)
    assert_shows_no_key(caught.value)
    return caught.value


def assert_shows_no_key(error: BaseException) -> None:
    assert error.__context__ is None
    shown = shown_by(error)
    for text in (*HEX, *BASE64):
        assert text[2:22] not in shown
    assert "hunter2" not in shown


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read anything, so as root these lines run as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
