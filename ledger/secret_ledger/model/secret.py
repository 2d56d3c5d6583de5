"""A value that nothing shows by accident: `Secret`. Pure, no I/O.

The bytes leave a Secret in two ways only, `reveal` and `reveal_text`. Every other way out that
Python offers (repr, format, JSON, pickle, iteration, attributes) is closed or shows a constant.
So a log line, an exception or a traceback with locals can't hold a value.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, SupportsIndex, final

from secret_ledger.errors import InvalidValue

__all__ = ["MAX_VALUE", "Secret", "Values"]

MAX_VALUE: Final = 1024 * 1024
"""Limit in bytes for one value."""

_SHOWN: Final = "Secret(...)"
"""ASCII, so that it prints anywhere; the same for every value, so that it tells no length."""


@final
class Secret:
    """Bytes that don't show: a secret's value, or a key's text.

    Takes `bytes`, `bytearray`, `memoryview`, another `Secret`, or `str` (encoded as UTF-8).
    Raises InvalidValue for any other type, and for text that UTF-8 can't encode.
    Two Secrets of the same bytes are equal, compared in constant time. A Secret never equals raw
    bytes. It is not hashable and can't change, so a copy is the object itself.
    """

    # The slot holds a function whose closure holds the bytes: tools that walk `dir()` and print
    # each attribute (rich.inspect, debuggers) then show a function, not the value.
    __slots__ = ("_open",)
    _open: Callable[[], bytes]

    def __init__(self, value: str | bytes | bytearray | memoryview | Secret) -> None:
        # `value` is deleted before anything is raised, and nothing is raised inside an `except`.
        # So no traceback holds the value, nor a codec's error, which carries the text.
        raw, problem = (value, "") if type(value) is bytes else _to_bytes(value)
        del value
        if problem:
            raise InvalidValue(problem, hint="give the value as str, bytes or Secret") from None
        object.__setattr__(self, "_open", lambda: raw)

    def reveal(self) -> bytes:
        """The bytes."""
        return self._open()

    def reveal_text(self) -> str:
        """The bytes as text. Raises InvalidValue, without the value, if they are not UTF-8."""
        try:
            return self._open().decode()
        except UnicodeDecodeError:
            pass  # this error carries the bytes, so it must not become the context of InvalidValue
        raise InvalidValue(
            "the value is not UTF-8 text", hint="read it as bytes, with reveal()"
        ) from None

    def __repr__(self) -> str:
        return _SHOWN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._open(), other._open())

    # A hash would be a digest of the value that anybody may print.
    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret can't be pickled")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret can't be pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret can't be pickled")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret can't be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret can't be changed")


@final
class Values:
    """The values of a page's events, in order. They show as little as a `Secret`.

    None stands for an event without a value."""

    __slots__ = ("_all", "add", "at")
    _all: Callable[[], list[bytes | None]]
    add: Callable[[bytes | None], None]
    """Add a value at the end."""
    at: Callable[[SupportsIndex], bytes | None]
    """The value at an index."""

    def __init__(self, values: Iterable[bytes | None] = ()) -> None:
        kept = list(values)
        del values
        self._all, self.add, self.at = lambda: kept, kept.append, kept.__getitem__

    def part(self, of: slice) -> Values:
        """The values of a slice."""
        return Values(self._all()[of])

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"Values({len(self)})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("values can't be pickled")


def _to_bytes(value: object) -> tuple[bytes, str]:
    """Returns the bytes and a problem. Never raises: a traceback would hold the value."""
    if isinstance(value, Secret):
        return value.reveal(), ""
    try:
        if isinstance(value, str):
            return str.encode(value), ""
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), ""
    except UnicodeEncodeError:
        return b"", "the text holds a lone surrogate, which UTF-8 can't encode"
    except Exception:  # noqa: BLE001  # also a subclass's own: frames here hold the value
        return b"", "its bytes can't be read"
    return b"", f"a value is str, bytes or Secret, not {type(value).__name__}"
