"""The names of secrets: one normal form, checked on every way in. Pure, no I/O.

A name is its stream's name, so two spellings of one name would be two secrets: everything
is brought to Unicode NFC first (UAX #15), then checked. What is refused is a fixed set of
characters, not a category of the running Python's Unicode tables: a name that could be
written once can be read for ever.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from secret_ledger.errors import InvalidName
from secret_ledger.model.events import CONTROL_STREAM

__all__ = ["CONTROL_STREAM", "MAX_NAME_BYTES", "normalise_name", "normalise_prefix"]

MAX_NAME_BYTES: Final = 512
"""Of a name's UTF-8, after NFC."""

# Control characters (Cc); line and paragraph separators, which break a listing in lines; the
# Bidi_Control characters, which let a name be displayed as another one; lone surrogates, which
# UTF-8 can't encode. Joiners (U+200C, U+200D) are spelling in several scripts and stay allowed;
# so do private-use and unassigned characters.
_REFUSED: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# No character of an NFC text decomposes into more than four, so a longer text can't fit;
# found out before the work of normalising it.
_MAX_INPUT: Final = 4 * MAX_NAME_BYTES


def normalise_name(name: str) -> str:
    """The one spelling of a secret's name: NFC, at most 512 bytes of UTF-8.

    Segments separated by `/`, none empty; `.` and `..` are segments like any other, since no
    name here is ever a path. No control characters. A leading `$` is reserved for the ledger's
    own streams. Case and inner white space count. Raises InvalidName, which says what and where.
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
    """What names may begin with, for listings: `""` (all), whole segments, or part of one.

    The rules are a name's, but it may be empty or end in `/`. It is compared with names by
    character after NFC: `e` is no prefix of `é`. Raises InvalidName.
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
    """`text` in NFC, within the bound, free of refused characters, not reserved."""
    if not isinstance(text, str):
        raise InvalidName(f"a {kind} is a str, not {type(text).__name__}")
    if len(text) > _MAX_INPUT:
        raise _too_long(text, kind)
    # str.__str__ takes an enumeration's member, or another subclass, down to its plain text.
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
    """A name for a message: quoted, escaped, and cut where it is long."""
    return ascii(text) if len(text) <= 64 else f"{text[:64]!a}..."
