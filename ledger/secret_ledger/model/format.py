"""Event format v1: the bytes. Pure, no I/O.

A row's *context* is an injective encoding of every field but `sealed` and `event_hash`. The
value is padded into a *frame*. The frame is *sealed* with AES-256-GCM (NIST SP 800-38D), with
the context as associated data. So if a field is edited, or a row is moved to another place, the
tag fails. The *event hash* is a leaf as in RFC 6962, over the context and the sealed bytes. The
next event of the stream holds the hash as its `prev_hash`. Nobody without the key can make a
seal; everybody can check the hashes.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.derivation import NAMESPACE
from secret_ledger.model.refusals import tampered
from secret_ledger.model.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from secret_ledger.model.events import Event

__all__ = [
    "PURGED",
    "SUITE",
    "TamperedEvent",
    "check_hash",
    "context_of",
    "event_hash",
    "frame",
    "hash_of",
    "is_purged",
    "open_event",
    "open_sealed",
    "purge",
    "seal",
    "seal_event",
    "sealed_size",
    "unframe",
]

SUITE: Final = 1
"""AES-256-GCM, 96-bit random nonce, 128-bit tag, frame padded to 64 bytes."""
PURGED: Final = 0

_NONCE: Final = 12
_TAG: Final = 16
_BLOCK: Final = 64
_ZEROS: Final = tuple(bytes(n) for n in range(_BLOCK))
_PREFIX: Final = NAMESPACE + b"event\x00"
_LEAF: Final = b"\x00" + NAMESPACE + b"leaf\x00"
_BYTE: Final = tuple(bytes((n,)) for n in range(2))
_SUITE: Final = _BYTE[SUITE]
_PLACE: Final = struct.Struct(">IQH")
_LENGTH: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_I64: Final = struct.Struct(">q")


# `_word` and `_digest` are cached: types, key ids and common metadata repeat from row to row.
@lru_cache(maxsize=256)
def _word(value: str) -> bytes:
    raw = value.encode()
    return _LENGTH.pack(len(raw)) + raw


@lru_cache(maxsize=256)
def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def context_of(ledger_id: bytes, event: Event, suite: int = SUITE) -> bytes:
    """The associated data of an event's seal: all of the row but `sealed` and `event_hash`.

    Raises TamperedEvent if a field holds a value that this format can't have written.
    """
    (
        generation, position, stream, version, event_type, key_id, fingerprint,
        recorded_at, metadata, prev_hash, sealed, _,
    ) = event  # fmt: skip
    try:
        name = stream.encode()
        if (
            type(sealed) is not bytes
            or len(fingerprint) != 32
            or len(prev_hash) != 32
            or position < 1
            or version < 1
        ):
            raise ValueError
        return b"".join(
            (
                _PREFIX,
                _BYTE[suite],
                ledger_id,
                _PLACE.pack(generation, position, len(name)),
                name,
                _U64.pack(version),
                _word(event_type),
                _word(key_id),
                fingerprint,
                _I64.pack(recorded_at),
                _digest(metadata),
                prev_hash,
            )
        )
    except (struct.error, ValueError, TypeError, AttributeError):
        raise tampered(event, "a field holds a value that this format never writes") from None


def frame(data: bytes) -> bytes:
    """A frame: the length of `data` (u32), `data`, and zeros up to a multiple of 64 bytes."""
    length = len(data)
    return _U32.pack(length) + data + _ZEROS[(-4 - length) % _BLOCK]


def sealed_size(length: int) -> int:
    """The size in bytes of a sealed value of `length` bytes."""
    return 1 + _NONCE + 4 + length + (-4 - length) % _BLOCK + _TAG


def unframe(framed: bytes) -> bytes:
    """The data of a frame. Raises ValueError if `frame` of that data gives other bytes."""
    size = len(framed)
    if size < _BLOCK or size % _BLOCK:
        raise ValueError("the frame is not a multiple of 64 bytes")
    (length,) = _U32.unpack_from(framed)
    end = 4 + length
    if not 0 <= size - end < _BLOCK:
        raise ValueError("the frame's length does not fit its size")
    if not framed.endswith(_ZEROS[size - end]):
        raise ValueError("the frame's padding is not zero")
    return framed[4:end]


def seal(cipher: AESGCM, context: bytes, data: bytes | Secret, nonce: bytes | None = None) -> bytes:
    """Seal `data` under `context`. Give a `nonce` (12 bytes) only to reproduce known answers.

    Give a value as a Secret: if memory runs out, a traceback with locals shows this frame.
    Raises MemoryError anew, without the frames that hold the value.
    """
    nonce = os.urandom(_NONCE) if nonce is None else nonce
    try:
        return _SUITE + nonce + cipher.encrypt(nonce, frame(_bare(data)), context)
    except MemoryError:
        pass  # this traceback has frames that hold the value
    raise MemoryError


def _bare(data: bytes | Secret) -> bytes:
    return data if isinstance(data, bytes) else data.reveal()


def open_sealed(cipher: AESGCM, context: bytes, sealed: bytes) -> bytes:
    """The data that was sealed under `context`. Raises TamperedEvent if the seal does not open.

    If memory runs out, raises MemoryError anew, without the frames that hold the value.
    """
    if not sealed or sealed[0] != SUITE:
        raise TamperedEvent("the sealed bytes are of no known suite")
    if len(sealed) < 1 + _NONCE + _BLOCK + _TAG:
        raise TamperedEvent("the sealed bytes are cut short")
    try:
        # The data is not kept in a local: this frame is part of the traceback below.
        return unframe(cipher.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], context))
    except MemoryError:
        reason = ""  # this traceback has frames that hold the value
    except InvalidTag:
        reason = "the seal does not authenticate"
    except (ValueError, OverflowError) as error:
        reason = f"the seal opens, but {error}"
    if not reason:
        raise MemoryError
    raise TamperedEvent(reason)


def is_purged(sealed: object) -> bool:
    """Whether `sealed` holds bytes that `purge` has left. Only the first byte is checked."""
    return type(sealed) is bytes and sealed[:1] == b"\x00"


def purge(sealed: bytes) -> bytes:
    """The 34 bytes that replace `sealed` when its data is purged. They keep the event's hash."""
    return bytes((PURGED, sealed[0])) + sha256(sealed).digest()


def seal_event(cipher: AESGCM, ledger_id: bytes, event: Event, data: bytes | Secret) -> Event:
    """A copy of `event` with `data` sealed and the hash computed. The given event has neither."""
    context = context_of(ledger_id, event)
    sealed = seal(cipher, context, data)
    return event.with_seal(sealed, event_hash(context, sealed))


def event_hash(context: bytes, sealed: bytes) -> bytes:
    """The leaf hash (RFC 6962) over a context and its sealed bytes.

    Purged bytes give the same hash as the sealed bytes that they replace.
    """
    inner = sealed[2:] if is_purged(sealed) else sha256(sealed).digest()
    return sha256(_LEAF + sha256(context).digest() + inner).digest()


def hash_of(ledger_id: bytes, event: Event) -> bytes:
    """The event hash, computed from the row's other columns. Needs no key.

    Raises TamperedEvent if a column holds a value that this format can't have written.
    """
    return event_hash(_context_of_row(ledger_id, event), event.sealed)


def check_hash(ledger_id: bytes, event: Event) -> bytes:
    """Check the row's `event_hash`, and return the event's context. Needs no key.

    Raises TamperedEvent if the hash is wrong, or if this format can't have written the row.
    """
    context = _context_of_row(ledger_id, event)
    if event_hash(context, event.sealed) != event.event_hash:
        raise tampered(event, "its hash does not match its row")
    return context


def _context_of_row(ledger_id: bytes, event: Event) -> bytes:
    suite = SUITE
    if is_purged(event.sealed):
        if len(event.sealed) != 34 or event.sealed[1] != SUITE:
            raise tampered(event, "its purged remains have the wrong shape")
        suite = event.sealed[1]
    return context_of(ledger_id, event, suite)


def open_event(
    cipher: AESGCM, ledger_id: bytes, event: Event, context: bytes | None = None
) -> bytes:
    """The data of `event`. Raises TamperedEvent, which names the row, if it does not open.

    context: the event's context, if the caller has it already."""
    try:
        return open_sealed(cipher, context or context_of(ledger_id, event), event.sealed)
    except TamperedEvent as error:
        reason = error.message
        if "position" in error.details:
            raise
    raise tampered(event, reason)
