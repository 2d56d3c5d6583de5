"""Event format v1: the bytes. Pure, no I/O.

A row's *context* is every field of it but `sealed` and `event_hash`, in an injective
encoding; the value is padded into a *frame* and *sealed* with AES-256-GCM (NIST SP 800-38D)
under the context as associated data, so no field can be edited and no row be moved to
another place without the tag failing. The *event hash* is an RFC 6962-style leaf over
context and sealed bytes; `prev_hash` chains it into the next event of the stream.
Nobody without the key can make a seal; everybody can check the hashes.
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


# Texts that come again and again: types, key ids, metadata of few kinds. Kept for so many.
@lru_cache(maxsize=256)
def _word(value: str) -> bytes:
    raw = value.encode()
    return _LENGTH.pack(len(raw)) + raw


@lru_cache(maxsize=256)
def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def context_of(ledger_id: bytes, event: Event, suite: int = SUITE) -> bytes:
    """The associated data of `event`'s seal: all of its row but `sealed` and `event_hash`.

    Raises TamperedEvent where a field could not have been written by this format.
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
        raise tampered(event, "a field holds what this format can't have written") from None


def frame(data: bytes) -> bytes:
    """`data` behind its length, padded with zeros to a multiple of 64 bytes."""
    length = len(data)
    return _U32.pack(length) + data + _ZEROS[(-4 - length) % _BLOCK]


def sealed_size(length: int) -> int:
    """The bytes that a value of `length` bytes takes once it is sealed."""
    return 1 + _NONCE + 4 + length + (-4 - length) % _BLOCK + _TAG


def unframe(framed: bytes) -> bytes:
    """The data of a frame. Raises ValueError unless `frame` would give these bytes again."""
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
    """Seal `data` under `context`. `nonce` is given only to reproduce known answers.

    A value comes as a Secret: where memory runs out, a traceback with locals shows this frame.
    """
    nonce = os.urandom(_NONCE) if nonce is None else nonce
    try:
        return _SUITE + nonce + cipher.encrypt(nonce, frame(_bare(data)), context)
    except MemoryError:
        pass  # its traceback has frames that hold the value
    raise MemoryError


def _bare(data: bytes | Secret) -> bytes:
    return data if isinstance(data, bytes) else data.reveal()


def open_sealed(cipher: AESGCM, context: bytes, sealed: bytes) -> bytes:
    """The data that was sealed under `context`. Raises TamperedEvent, never returns a doubt."""
    if not sealed or sealed[0] != SUITE:
        raise TamperedEvent("the sealed bytes are of no known suite")
    if len(sealed) < 1 + _NONCE + _BLOCK + _TAG:
        raise TamperedEvent("the sealed bytes are cut short")
    try:
        # Not kept in a local: the frame of this call is part of the traceback below.
        return unframe(cipher.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], context))
    except MemoryError:
        reason = ""  # its traceback has frames that hold the value
    except InvalidTag:
        reason = "the seal does not authenticate"
    except (ValueError, OverflowError) as error:
        reason = f"the seal opens, but {error}"
    if not reason:
        raise MemoryError
    raise TamperedEvent(reason)


def is_purged(sealed: object) -> bool:
    """Whether `sealed` is the tombstone that `purge` leaves, by its first byte."""
    return type(sealed) is bytes and sealed[:1] == b"\x00"


def purge(sealed: bytes) -> bytes:
    """What stands in place of `sealed` once its data is gone, keeping the event's hash."""
    return bytes((PURGED, sealed[0])) + sha256(sealed).digest()


def seal_event(cipher: AESGCM, ledger_id: bytes, event: Event, data: bytes | Secret) -> Event:
    """`event` with `data` sealed into it and its hash; both are empty in the one given."""
    context = context_of(ledger_id, event)
    sealed = seal(cipher, context, data)
    return event.with_seal(sealed, event_hash(context, sealed))


def event_hash(context: bytes, sealed: bytes) -> bytes:
    """The leaf hash over a context and its sealed bytes (purged ones stand for theirs)."""
    inner = sealed[2:] if is_purged(sealed) else sha256(sealed).digest()
    return sha256(_LEAF + sha256(context).digest() + inner).digest()


def hash_of(ledger_id: bytes, event: Event) -> bytes:
    """The event hash that the row's own columns give. Needs no key.

    Raises TamperedEvent where the columns have a shape that was never written.
    """
    return event_hash(_context_of_row(ledger_id, event), event.sealed)


def check_hash(ledger_id: bytes, event: Event) -> bytes:
    """The event's context, whose hash is the one in its row. Needs no key.

    Raises TamperedEvent where it is another one, or where no such row was ever written.
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
    """The data of `event`, whose `context` may be known. Raises TamperedEvent that names
    its place."""
    try:
        return open_sealed(cipher, context or context_of(ledger_id, event), event.sealed)
    except TamperedEvent as error:
        reason = error.message
        if "position" in error.details:
            raise
    raise tampered(event, reason)
