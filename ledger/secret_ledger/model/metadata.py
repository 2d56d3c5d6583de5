"""The readable part of an event: who wrote it, why, and the caller's notes.

Metadata is stored as canonical JSON: UTF-8, keys sorted, no white space, `{}` if empty. The
caller's part lies under `user`, the library's part under `ledger`, so that neither can pose as
the other. The seal binds the text, which is stored in clear: never put a secret into metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from secret_ledger.errors import InvalidValue, ValueTooLarge

__all__ = ["MAX_METADATA", "Metadata", "encode_metadata", "is_metadata", "parse_metadata"]

MAX_METADATA: Final = 4096
"""Limit in bytes for the JSON of a caller's actor, reason and metadata together."""


class Metadata(NamedTuple):
    """An event's metadata, parsed. Empty parts are None or empty mappings.

    A tuple, not a dataclass, because a boot may make millions, as of `Event`.
    """

    actor: str | None
    reason: str | None
    ledger: Mapping[str, Any]
    user: Mapping[str, Any]
    malformed: bool = False
    """Whether the stored text is no metadata. Then all parts are empty."""


def encode_metadata(
    *,
    actor: str | None = None,
    reason: str | None = None,
    user: Mapping[str, Any] | None = None,
    ledger: Mapping[str, Any] | None = None,
) -> str:
    """The metadata as it is stored.

    Raises InvalidValue if a part is no text or no plain JSON, or is nested more than 32 deep.
    Raises ValueTooLarge if the caller's parts take more than 4,096 bytes of JSON.
    """
    for name, value in (("actor", actor), ("reason", reason)):
        if value is not None and not isinstance(value, str):
            raise InvalidValue(f"{name} must be text, not {type(value).__name__}")
    if user is not None and not isinstance(user, Mapping):
        raise InvalidValue(f"metadata must be a mapping, not {type(user).__name__}")
    given: dict[str, Any] = {}
    if actor:
        given["actor"] = actor
    if reason:
        given["reason"] = reason
    if user:
        _check_keys(user)
        given["user"] = dict(user)
    text = _canonical(given) if given else "{}"
    if len(text.encode()) > MAX_METADATA:
        raise ValueTooLarge(
            f"actor, reason and metadata take more than {MAX_METADATA:,} bytes of JSON together",
            hint="keep large notes elsewhere and store a reference to them",
        )
    if ledger:
        text = _canonical({**given, "ledger": dict(ledger)})
    return text


_TEXT: Final = (str, type(None))


def parse_metadata(text: str) -> Metadata:
    """Parse a stored text. If the text is no metadata, the result is empty and `malformed`."""
    parts = _parts(text)
    if parts is None:
        return Metadata(None, None, {}, {}, malformed=True)
    return Metadata(
        parts.get("actor"), parts.get("reason"), parts.get("ledger", {}), parts.get("user", {})
    )


@lru_cache(maxsize=256)  # texts repeat: many events have the same actor, say
def is_metadata(text: str) -> bool:
    """Whether a stored text can be read as metadata."""
    return _parts(text) is not None


def _parts(text: str) -> dict[str, Any] | None:
    if text == "{}":
        return {}
    try:
        parts = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if (
        isinstance(parts, dict)
        and isinstance(parts.get("actor"), _TEXT)
        and isinstance(parts.get("reason"), _TEXT)
        and isinstance(parts.get("ledger", {}), dict)
        and isinstance(parts.get("user", {}), dict)
    ):
        return parts
    return None


def _check_keys(value: object, depth: int = 0) -> None:
    # json.dumps would quietly turn 1, True and None into text keys.
    if depth > 32:
        raise InvalidValue("metadata is nested more than 32 deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidValue(f"metadata keys must be text, not {type(key).__name__}")
            _check_keys(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner, depth + 1)


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)


def _canonical(parts: dict[str, Any]) -> str:
    try:
        text = _ENCODER.encode(parts)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        # `from None`: json's own messages quote the object.
        raise InvalidValue("metadata is not plain JSON (text, numbers, lists, mappings)") from None
    return text
