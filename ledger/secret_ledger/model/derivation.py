"""Derives sub-keys and fingerprints from a root key, and reads a root from text. Pure, no I/O.

One root gives each ledger its own sub-keys and its own public fingerprint, by HKDF-Expand
(RFC 5869, section 2.3). HKDF-Extract is left out, because a root is uniform. docs/format.md,
"Keys", states every byte. No message of this module holds a key's text, or any part of the text.
"""

from __future__ import annotations

import binascii
import re
from base64 import b32encode, b64decode, b64encode, urlsafe_b64encode
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from secret_ledger.errors import InvalidKey
from secret_ledger.model.secret import Secret

__all__ = [
    "LEDGER_ID_BYTES",
    "NAMESPACE",
    "ROOT_BYTES",
    "default_key_id",
    "derive",
    "fingerprint",
    "key_text",
    "parse_key_text",
    "root_problem",
]

NAMESPACE: Final = b"secret-ledger/v1/"
"""Stands before every label, so that no other program derives the same bytes."""
ROOT_BYTES: Final = 32
LEDGER_ID_BYTES: Final = 16

_PREFIX: Final = "slk1_"
_CHECKSUM_BYTES: Final = 4
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_HEX_PREFIX: Final = re.compile(r"0[xX][0-9a-fA-F]*")
_STANDARD: Final = re.compile(r"[0-9A-Za-z+/]{43}=?")
_URL_SAFE: Final = re.compile(r"[0-9A-Za-z_-]{43}=?")
_BASE64_ANY: Final = re.compile(r"[0-9A-Za-z+/_=-]*")
_KEYGEN: Final = re.compile(r"slk1_[0-9A-Za-z_-]{48}")
_WHITE_SPACE: Final = " \t\r\n\v\f"


def derive(root: bytes, label: str, ledger_id: bytes) -> bytes:
    """The 32-byte sub-key of `root` for one purpose in one ledger. Each label has one use.

    Raises InvalidKey if `root` is no root key, ValueError if the ledger id has not 16 bytes.
    """
    problem = root_problem(root)
    if not problem and len(ledger_id) == LEDGER_ID_BYTES:
        info = NAMESPACE + label.encode("ascii") + b"\x00" + ledger_id
        return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(root)
    del root  # a traceback with locals shows this frame
    if problem:
        raise InvalidKey(problem)
    raise ValueError("a ledger id has 16 bytes")


def fingerprint(root: bytes, ledger_id: bytes) -> bytes:
    """32 public bytes: a commitment to the root in this ledger. Raises as `derive`.

    If two ledgers use the same root, their fingerprints don't show it.
    """
    return derive(root, "key-fingerprint", ledger_id)


def default_key_id(fingerprint: bytes) -> str:
    """The label of a key without an operator's label: `k-` and 16 characters of base32."""
    return "k-" + b32encode(fingerprint[:10]).decode().lower()


def key_text(root: bytes) -> str:
    """The root as `keygen` prints it: `slk1_…`, with a checksum against typing errors."""
    return _PREFIX + urlsafe_b64encode(root + _checksum(root)).decode()


def parse_key_text(text: str | Secret) -> bytes:
    """The 32-byte root that `text` spells.

    `text` is 64 hex digits, or base64 or base64url of 32 bytes, or `slk1_…` with its checksum.
    Base64 may be padded, and must encode back to the same text. Outer ASCII white space is
    trimmed. Raises InvalidKey for anything else, and for 32 equal bytes. The error says which
    rule is broken, never the text.
    """
    root, problem = _decode(text)
    del text  # a traceback with locals shows this frame
    if problem:
        del root
        raise InvalidKey(problem) from None
    return root


def root_problem(root: bytes) -> str:
    """Why these bytes are no root key. Returns the empty string if they are a root key."""
    if len(root) != ROOT_BYTES:
        return "a root key has 32 bytes"
    if root == root[:1] * ROOT_BYTES:
        return "all 32 bytes of the key are equal: a placeholder, not a key"
    return ""


def _checksum(root: bytes) -> bytes:
    return sha256(NAMESPACE + b"key-text\x00" + root).digest()[:_CHECKSUM_BYTES]


def _decode(text: object) -> tuple[bytes, str]:
    """Returns the root and a problem. Never raises: a traceback would hold the text."""
    if isinstance(text, Secret):
        # Bytes that are not UTF-8 become U+FFFD, which no rule below accepts.
        text = text.reveal().decode(errors="replace")
    if not isinstance(text, str):
        return b"", f"a key's text is str or Secret, not {type(text).__name__}"
    text = text.strip(_WHITE_SPACE)
    if text.startswith(_PREFIX):
        root, problem = _decode_keygen(text)
    elif _HEX.fullmatch(text):
        root, problem = bytes.fromhex(text), ""
    elif _STANDARD.fullmatch(text) or _URL_SAFE.fullmatch(text):
        root, problem = _decode_base64(text)
    else:
        return b"", _misspelt(text)
    return root, problem or root_problem(root)


def _decode_keygen(text: str) -> tuple[bytes, str]:
    if not _KEYGEN.fullmatch(text):
        return b"", "a key that begins with slk1_ goes on with 48 characters of base64url"
    raw = b64decode(text[len(_PREFIX) :], altchars=b"-_", validate=True)
    root, checksum = raw[:ROOT_BYTES], raw[ROOT_BYTES:]
    if not compare_digest(checksum, _checksum(root)):
        return b"", "the key's checksum does not match: a character is wrong or missing"
    return root, ""


def _decode_base64(text: str) -> tuple[bytes, str]:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        root = b64decode(bare + "=", validate=True)
    except binascii.Error:  # never raised for 43 characters of the alphabet
        return b"", "the key is not base64"
    if b64encode(root).decode().rstrip("=") != bare:
        return b"", "the key's base64 is not canonical: bits after the 32nd byte are not zero"
    return root, ""


def _misspelt(text: str) -> str:
    if not text:
        return "the key is blank"
    if _HEX_PREFIX.fullmatch(text):
        return "the key begins with 0x: give the 64 hex digits alone"
    if any(character in _WHITE_SPACE for character in text):
        return "the key holds white space inside"
    if not _BASE64_ANY.fullmatch(text):
        return "the key holds a character that is neither hex nor base64"
    if "=" in text.rstrip("="):
        return "the key holds '=' before its end"
    if any(c in text for c in "+/") and any(c in text for c in "-_"):
        return "the key mixes the alphabets of base64 (+ /) and base64url (- _)"
    return (
        "the key has the wrong length: it takes 64 hex digits, or base64 of 32 bytes"
        " (43 characters, or 44 with the padding)"
    )
