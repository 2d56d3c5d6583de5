"""Takes in a caller's values and numbers, so that nothing of them can show.

A value becomes a `Secret` before anything can raise. So no frame that is part of a traceback with
locals holds the bare value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from secret_ledger.errors import InvalidValue, LedgerError, ValueTooLarge
from secret_ledger.model.secret import MAX_VALUE, Secret
from secret_ledger.rules.decide import Put

__all__ = [
    "MAX_CALL",
    "Item",
    "Value",
    "Wrapped",
    "check_sizes",
    "expected",
    "number",
    "seconds",
    "unwrap",
    "wrap",
    "wrap_items",
]

MAX_CALL: Final = 16 * 1024 * 1024
"""Bytes that all values of one call have at most."""

Value = str | bytes | Secret
Item = tuple[str, Value] | tuple[str, Value, int | None]
Wrapped = Secret | LedgerError

LONGEST: Final = 1_000_000.0
"""Seconds of the longest wait that a caller may ask for: eleven days."""


def wrap(value: object) -> Wrapped:
    """Returns the value as a Secret, or the error that says what is wrong with it.

    Never raises, so no frame that holds the bare value is part of a traceback with locals.
    """
    try:
        return value if isinstance(value, Secret) else Secret(value)  # type: ignore[arg-type]
    except LedgerError as error:
        return error.with_traceback(None)


def wrap_items(items: object) -> list[tuple[Any, Wrapped, Any]]:
    pairs = items.items() if isinstance(items, Mapping) else items
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        return [_no_item("put_many takes", type(pairs).__name__)]
    return [_wrap_item(number, item) for number, item in enumerate(pairs, 1)]


def _wrap_item(number: int, item: object) -> tuple[Any, Wrapped, Any]:
    if isinstance(item, tuple) and len(item) in (2, 3):
        name, value, *expect = item
        return name, wrap(value), expect[0] if expect else None
    kind = type(item).__name__
    if isinstance(item, tuple):
        kind = f"a tuple of {len(item)}"
    return _no_item(f"item {number} of put_many has the wrong shape: put_many takes", kind)


def _no_item(what: str, kind: str) -> tuple[Any, Wrapped, Any]:
    return (
        "",
        InvalidValue(
            f"{what} a mapping of names to values, or tuples (name, value[, expect]); not {kind}",
            hint="for lists from JSON: put_many(tuple(item) for item in items)",
        ),
        None,
    )


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


def seconds(value: object, name: str, *, least: float = 0.0) -> float:
    """Check a number of seconds, from `least` to a million. Raises InvalidValue, with `name`."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and least <= value <= LONGEST  # False for a NaN too
    ):
        return value
    shown = f"{value:g}" if isinstance(value, float) else type(value).__name__
    if isinstance(value, int) and not isinstance(value, bool):
        shown = "that number"
    raise InvalidValue(
        f"{name} is a number of seconds from {least:g} to {LONGEST:,.0f}, not {shown}"
    )


def check_sizes(puts: Sequence[Put]) -> None:
    total = 0
    for put in puts:
        size = len(put.value.reveal())
        total += size
        if size > MAX_VALUE:
            raise ValueTooLarge(
                f"the value of {put.stream} has {size:,} bytes; at most {MAX_VALUE:,} fit",
                hint="a secret is small: encrypt large data with a key of its own, store the data"
                " elsewhere, and store that key here",
                stream=put.stream,
            )
    if total > MAX_CALL:
        raise ValueTooLarge(
            f"the values of this call have {total:,} bytes; at most {MAX_CALL:,} fit",
            hint="split it into several calls",
        )
