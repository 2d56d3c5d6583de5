"""The proof of a passed verification, sealed so that the next boot can build on it. Pure.

An attestation says that up to its position the newest event of every secret opened, and no row
was missing. It names the keys that the newest events lay under. It is authenticated with
HMAC-SHA256 under the sub-key `boot-attestation` of the root key that was active at the position.
The message is

    NS ‖ "boot-attestation" ‖ 00 ‖ format u8 (=1) ‖ ledger_id 16 ‖ generation u32 ‖ position u64
    ‖ heads u64 ‖ verified_at i64 ‖ event_hash 32 ‖ control_hash 32 ‖ key_fingerprint 32
    ‖ lp(level) ‖ lp(release) ‖ lp(key_id) ‖ lp(head_keys)

So nobody without that key can plant or edit an attestation, or bring one from another ledger or
generation. `event_hash` is that of the event at the position, `control_hash` that of the control
stream's last event up to the position. Both bind the attestation to this very log. It can't say
that no row was changed *since*: for that the boot opens a sample, and the scrub checks the rest.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from secret_ledger.model.control import Control
from secret_ledger.model.derivation import NAMESPACE
from secret_ledger.model.keys import LedgerKey

__all__ = ["FORMAT", "Attestation", "Verdict", "attest", "verdict_on"]

FORMAT: Final = 1
_PREFIX: Final = NAMESPACE + b"boot-attestation\x00"
_NUMBERS: Final = struct.Struct(">B16sIQQq")
_LENGTH: Final = struct.Struct(">H")
_HASH: Final = 32
_TYPES: Final = (int, int, int, str, int, bytes, bytes, bytes, int, str, str, bytes, bytes)

Verdict = Literal["authentic", "forged", "unknown"]
"""`unknown`: the format is another release's, or the key is not in hand, retired or lost."""


class Attestation(NamedTuple):
    """The result of a passed verification; once sealed, a row of `ledger_attestation`.

    It proves nothing unless `verdict_on` says `authentic`.
    """

    generation: int
    format: int
    position: int
    """The log was checked up to this position."""
    level: str
    heads: int
    """Number of secrets that were checked, deleted secrets too."""
    event_hash: bytes
    """Hash of the event at `position`: 32 bytes."""
    control_hash: bytes
    """Hash of the control stream's last event up to `position`: 32 bytes."""
    head_keys: bytes
    """Fingerprints of the keys of the newest events: 32 bytes each, sorted and joined."""
    verified_at: int
    """When the verification began, by its machine's clock: microseconds since 1970."""
    release: str = ""
    key_id: str = ""
    key_fingerprint: bytes = b""
    mac: bytes = b""
    """Empty until `attest` seals the attestation."""

    @property
    def fingerprints(self) -> frozenset[bytes]:
        """The fingerprints in `head_keys`."""
        keys = self.head_keys
        return frozenset(keys[n : n + _HASH] for n in range(0, len(keys), _HASH))


def attest(
    proof: Attestation, ledger_id: bytes, key: LedgerKey, *, key_id: str, release: str
) -> Attestation:
    """Seal `proof` under `key`, the key that was active at the proof's position.

    key_id: the ledger's label of `key`.
    """
    bare = proof._replace(release=release, key_id=key_id, key_fingerprint=key.fingerprint)
    return bare._replace(mac=_mac(ledger_id, bare, key))


def verdict_on(
    control: Control, held: Mapping[bytes, LedgerKey], attestation: Attestation
) -> Verdict:
    """Whether a holder of the key that was active at its position attested this log.

    The rule of authority holds as for events: from the activation of the next key on, a leaked
    old key attests nothing. A retired or lost key attests nothing.
    """
    if tuple(map(type, attestation)) != _TYPES:
        return "forged"
    owner = control.key(attestation.key_fingerprint)
    if attestation.format != FORMAT or (owner is not None and (owner.retired or owner.lost)):
        return "unknown"
    key = held.get(attestation.key_fingerprint)
    if key is None:
        return "forged" if owner is None else "unknown"
    try:
        authentic = hmac.compare_digest(_mac(control.ledger_id, attestation, key), attestation.mac)
    except (struct.error, ValueError):
        authentic = False  # a field holds a value that this format can't have written
    here = attestation.generation == control.generation
    in_time = here and control.authority(attestation.position) == owner
    return "authentic" if authentic and in_time else "forged"


def _mac(ledger_id: bytes, attestation: Attestation, key: LedgerKey) -> bytes:
    a = attestation
    numbers = (a.format, ledger_id, a.generation, a.position, a.heads, a.verified_at)
    hashes = (a.event_hash, a.control_hash, a.key_fingerprint)
    if any(len(each) != _HASH for each in hashes) or len(a.head_keys) % _HASH:
        raise ValueError
    words = (a.level.encode(), a.release.encode(), a.key_id.encode(), a.head_keys)
    told = b"".join(_LENGTH.pack(len(word)) + word for word in words)
    message = b"".join((_PREFIX, _NUMBERS.pack(*numbers), *hashes, told))
    return hmac.digest(key.sub("boot-attestation"), message, "sha256")
