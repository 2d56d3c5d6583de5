"""The names of secrets: one normal form, checked on every way in. Pure, no I/O.

The name of a secret is the name of its stream. So two spellings of a name would be two secrets:
each name is brought to Unicode NFC first (UAX #15), then checked. The refused characters are a
fixed set, not a category of the running Python's Unicode tables. So a name that could be written
once can be read for ever.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from secret_ledger.errors import InvalidName
from secret_ledger.model.events import CONTROL_STREAM

__all__ = ["CONTROL_STREAM", "MAX_NAME_BYTES", "normalise_name", "normalise_prefix"]

MAX_NAME_BYTES: Final = 512
"""Limit in bytes for the UTF-8 of a name, after NFC."""

# Refused: control characters (Cc); line and paragraph separators, which break a listing in
# lines; Bidi_Control characters, which can make a name look like another name; lone surrogates,
# which UTF-8 can't encode. Allowed: joiners (U+200C, U+200D), which several scripts need, and
# private-use and unassigned characters.
_REFUSED: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# A character of an NFC text decomposes into four characters at most, so a longer text can't fit.
# This check comes first, to save the work of normalising the text.
_MAX_INPUT: Final = 4 * MAX_NAME_BYTES


def normalise_name(name: str) -> str:
    """The normal form of a secret's name: NFC, at most 512 bytes of UTF-8.

    A name has segments separated by `/`, and no segment is empty. `.` and `..` are ordinary
    segments, because a name is never a path. Control characters are refused. A leading `$` is
    reserved for the ledger's own streams. Case and white space count. Raises InvalidName, which
    names the fault and its place.
    """
    name = _normal(name, "name")
    if not name:
        raise InvalidName("a secret's name can't be empty")
    for number, segment in enumerate(name.split("/"), start=1):
        if not segment:
            raise InvalidName(
                f"segment {number} of the name {_shown(name)} is empty",
                hint="leave out a leading, trailing or doubled '/'",
                name=_shown(name),
            )
    return name


def normalise_prefix(prefix: str) -> str:
    """The normal form of a prefix, by which a listing selects names. `""` selects all names.

    A prefix obeys the rules of a name, but may be empty, or end in `/` or inside a segment.
    Prefix and names are compared by character after NFC: `e` is no prefix of `é`. Raises
    InvalidName.
    """
    prefix = _normal(prefix, "prefix")
    if prefix.startswith("/") or "//" in prefix:
        raise InvalidName(
            f"no name begins with {_shown(prefix)}: it holds an empty segment",
            hint="leave out a leading or doubled '/'",
            name=_shown(prefix),
        )
    return prefix


def _normal(text: str, kind: str) -> str:
    if not isinstance(text, str):
        raise InvalidName(f"a {kind} is a str, not {type(text).__name__}")
    if len(text) > _MAX_INPUT:
        raise _too_long(text, kind)
    # str.__str__ gives the plain text of a subclass, such as an enumeration's member.
    text = unicodedata.normalize("NFC", str.__str__(text))
    if refused := _REFUSED.search(text):
        raise InvalidName(
            f"character {refused.start() + 1} of the {kind} {_shown(text)} is"
            f" U+{ord(refused[0]):04X}, a control character or surrogate",
            hint=f"leave it out of the {kind}",
            name=_shown(text),
        )
    if len(text.encode()) > MAX_NAME_BYTES:
        raise _too_long(text, kind)
    if text.startswith("$"):
        raise InvalidName(
            f"the {kind} {_shown(text)} is reserved: '$' begins the ledger's own streams",
            hint="begin it with another character",
            name=_shown(text),
        )
    return text


def _too_long(text: str, kind: str) -> InvalidName:
    return InvalidName(
        f"the {kind} {_shown(text)} has more than {MAX_NAME_BYTES} bytes of UTF-8",
        hint="shorten it",
        name=_shown(text),
    )


def _shown(text: str) -> str:
    """Quotes, escapes and cuts a refused text, so that a message can show it safely."""
    return ascii(text) if len(text) <= 64 else f"{text[:64]!a}..."
