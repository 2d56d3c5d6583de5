"""How refusals name rows and keys: as text that can be shown, whatever a row holds."""

from __future__ import annotations

from secret_ledger.errors import TamperedEvent
from secret_ledger.model.events import Event

__all__ = ["printable", "short", "tampered"]


def tampered(event: Event, reason: str, **details: object) -> TamperedEvent:
    """A TamperedEvent that names the row: generation, position, stream and version."""
    version, position = printable(event.version), printable(event.position)
    return TamperedEvent(
        f"{printable(event.stream)} version {version} at position {position}: {reason}",
        hint="compare with a backup; `secret-ledger verify --level full` lists every damaged row,"
        " and `destroy` ends a secret that can't be saved",
        generation=event.generation,
        position=event.position,
        stream=printable(event.stream),
        version=event.version,
        reason=reason,
        **details,
    )


def printable(text: object) -> str:
    """Any value as text that can be shown: 600 of its characters, control characters escaped."""
    try:
        shown = text if isinstance(text, str) else repr(text)
    except ValueError:  # the number has more digits than Python writes out
        shown = "(a huge number)"
    if shown.isprintable() and len(shown) <= 600:
        return shown
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown[:600])


def short(fingerprint: bytes) -> str:
    """The first eight bytes of a fingerprint in hex: enough to tell keys apart by eye."""
    return fingerprint[:8].hex()
