"""A caller's values and numbers, taken in so that nothing of them can show.

A value becomes a `Secret` before anything can raise: no frame that is part of a traceback
with locals holds it bare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ledger.decide import Put
from ledger.errors import InvalidValue, LedgerError, ValueTooLarge
from ledger.secret import Secret

__all__ = [
    "MAX_CALL",
    "MAX_VALUE",
    "Item",
    "Value",
    "Wrapped",
    "check_sizes",
    "expected",
    "number",
    "unwrap",
    "wrap",
    "wrap_items",
]

MAX_VALUE: Final = 1024 * 1024
"""Bytes of one value."""
MAX_CALL: Final = 16 * 1024 * 1024
"""Bytes of all values of one call."""

Value = str | bytes | Secret
Item = tuple[str, Value] | tuple[str, Value, int | None]
Wrapped = Secret | LedgerError

_NO_ITEM: Final = (
    "",
    InvalidValue("put_many takes a mapping, or tuples (name, value[, expect])"),
    None,
)


def wrap(value: object) -> Wrapped:
    """The value as a Secret, or what is wrong with it: never raises, so that no frame that
    holds the bare value is part of a traceback with locals."""
    try:
        return value if isinstance(value, Secret) else Secret(value)  # type: ignore[arg-type]
    except LedgerError as error:
        return error.with_traceback(None)


def wrap_items(items: object) -> list[tuple[Any, Wrapped, Any]]:
    pairs = items.items() if isinstance(items, Mapping) else items
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        return [_NO_ITEM]
    return [_wrap_item(item) for item in pairs]


def _wrap_item(item: object) -> tuple[Any, Wrapped, Any]:
    if isinstance(item, tuple) and len(item) in (2, 3):
        name, value, *expect = item
        return name, wrap(value), expect[0] if expect else None
    return _NO_ITEM


def unwrap(wrapped: Wrapped) -> Secret:
    if isinstance(wrapped, LedgerError):
        raise wrapped
    return wrapped


def expected(expect: object) -> int | None:
    return number(expect, "expect")


def number(value: object, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InvalidValue(f"{name} must be None, 0 or a version number")


def check_sizes(puts: Sequence[Put]) -> None:
    total = 0
    for put in puts:
        size = len(put.value.reveal())
        total += size
        if size > MAX_VALUE:
            raise ValueTooLarge(
                f"the value of {put.stream} has {size:,} bytes; at most {MAX_VALUE:,} fit",
                hint="a secret is small: keep large data elsewhere, sealed with a key kept here",
                stream=put.stream,
            )
    if total > MAX_CALL:
        raise ValueTooLarge(
            f"the values of this call have {total:,} bytes; at most {MAX_CALL:,} fit",
            hint="split it into several calls",
        )
