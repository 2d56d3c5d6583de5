"""Root keys: `Key`, and `LedgerKey`, a root key in one ledger. Pure.

A root key never shows, because it lies in a `Secret`. So no repr, pickle or traceback with
locals of anything that holds a key has key bytes. `config.environment` reads keys from settings.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secret_ledger.errors import InvalidKey
from secret_ledger.model.derivation import (
    LEDGER_ID_BYTES,
    ROOT_BYTES,
    default_key_id,
    derive,
    fingerprint,
    key_text,
    parse_key_text,
    root_problem,
)
from secret_ledger.model.secret import Secret

__all__ = [
    "Key",
    "LedgerKey",
    "SubKeyLabel",
    "check_key_id",
]

SubKeyLabel = Literal["boot-attestation", "checkpoint-ed25519", "migration-digest", "node-proof"]
"""The reserved purposes of sub-keys. Each label has one use."""

_KEY_ID: Final = re.compile(r"[a-z0-9._:/-]{1,64}")
_KEY_SHAPED: Final = re.compile(r"[0-9a-f]{64}")
_SUB_KEYS: Final = frozenset[str](
    ("boot-attestation", "checkpoint-ed25519", "migration-digest", "node-proof")
)


def check_key_id(key_id: object) -> str:
    """Return `key_id` if it can be a label: 1 to 64 characters of `a-z 0-9 . _ : / -`.

    64 hex digits are refused although they fit: they are a key in the wrong place, and labels
    are stored in clear. Raises InvalidKey, which shows no part of `key_id` for that reason.
    """
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        problem = "a key id takes 1 to 64 characters of a-z 0-9 . _ : / -"
    elif _KEY_SHAPED.fullmatch(key_id):
        problem = "the key id has the shape of a key: key and id may have been swapped"
    else:
        return key_id
    del key_id
    raise InvalidKey(problem, hint="label it like k-2026-10, or leave the id out")


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A root key: 32 secret bytes, and the operator's label, if any.

    `parse`, `generate` and `from_bytes` make a Key. Two Keys of the same bytes and label are
    equal.
    """

    _root: Secret = field(hash=False)
    key_id: str | None = None
    """The operator's label. None stands for the default label, which depends on the ledger."""

    def __post_init__(self) -> None:
        if problem := root_problem(self._root.reveal()):
            raise InvalidKey(problem)
        if self.key_id is not None:
            check_key_id(self.key_id)

    @classmethod
    def parse(cls, text: str | Secret, key_id: str | None = None) -> Key:
        """The key that `text` spells: hex, base64, base64url or `slk1_…`.

        Raises InvalidKey if `text` or `key_id` breaks a rule. The error names the rule, and shows
        no part of either.
        """
        try:
            root = Secret(parse_key_text(text))
        finally:
            del text  # a traceback with locals shows this frame
        return cls(root, key_id)

    @classmethod
    def generate(cls, key_id: str | None = None) -> Key:
        """A new key from the operating system's random source."""
        return cls(Secret(os.urandom(ROOT_BYTES)), key_id)

    @classmethod
    def from_bytes(cls, root: bytes | bytearray | memoryview, key_id: str | None = None) -> Key:
        """The key of these 32 bytes. Raises InvalidKey for other types, lengths, or equal bytes."""
        # Text of 32 characters is a passphrase, not 32 uniform bytes.
        if not isinstance(root, (bytes, bytearray, memoryview)):
            del root  # type: ignore[unreachable]  # callers without types come here
            raise InvalidKey("a root key is bytes", hint="parse a key's text with Key.parse")
        secret = Secret(root)
        del root
        return cls(secret, key_id)

    def text(self) -> Secret:
        """The key as `keygen` prints it, `slk1_…`."""
        return Secret(key_text(self._root.reveal()))

    def for_ledger(self, ledger_id: bytes) -> LedgerKey:
        """This key in one ledger. Raises ValueError if `ledger_id` has not 16 bytes."""
        if len(ledger_id) != LEDGER_ID_BYTES:
            raise ValueError("a ledger id has 16 bytes")
        mark = fingerprint(self._root.reveal(), ledger_id)
        return LedgerKey(
            id=self.key_id or default_key_id(mark),
            labelled=self.key_id is not None,
            fingerprint=mark,
            event_cipher=AESGCM(derive(self._root.reveal(), "event-encryption", ledger_id)),
            _root=self._root,
            _ledger_id=ledger_id,
        )

    def __repr__(self) -> str:
        return "Key(default id)" if self.key_id is None else f"Key(id={self.key_id!r})"


@dataclass(frozen=True, slots=True, repr=False)
class LedgerKey:
    """A root key in one ledger, with the keys derived for it. `Key.for_ledger` makes it."""

    id: str
    """The operator's label, or the default label."""
    labelled: bool
    """Whether the operator gave the label."""
    fingerprint: bytes
    """32 public bytes that identify this root key in this ledger."""
    event_cipher: AESGCM = field(compare=False)
    """AES-256-GCM under the event key of this root in this ledger."""
    _root: Secret = field(compare=False)
    _ledger_id: bytes = field(compare=False)

    def sub(self, label: SubKeyLabel) -> bytes:
        """The 32-byte sub-key for a reserved purpose. Raises ValueError for any other label."""
        if label not in _SUB_KEYS:
            raise ValueError(f"no sub-key has the label {label!r}")
        return derive(self._root.reveal(), label, self._ledger_id)

    def __repr__(self) -> str:
        return f"LedgerKey(id={self.id!r}, fingerprint={self.fingerprint[:8].hex()}...)"
