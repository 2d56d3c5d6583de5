"""Names that are put into SQL: of a schema or a role, checked and quoted."""

from __future__ import annotations

from typing import Final

from secret_ledger.errors import InvalidName

__all__ = ["DEFAULT_SCHEMA", "quoted", "role_name", "schema_name"]

DEFAULT_SCHEMA: Final = "secret_ledger"
LONGEST: Final = 63
"""Bytes of the longest name; PostgreSQL cuts off the rest."""


def schema_name(given: str | None) -> str:
    """The schema of a ledger, by default `secret_ledger`.

    Raises InvalidName unless it is an identifier (letters, digits, _) of at most 63 bytes.
    """
    name: object = given or DEFAULT_SCHEMA
    if not isinstance(name, str) or not name.isidentifier() or len(name.encode()) > LONGEST:
        raise InvalidName(f"a schema's name is letters, digits and _, at most {LONGEST} bytes")
    return name


def role_name(given: str) -> str:
    """The name of one role.

    Raises InvalidName if it is empty, not printable, longer than 63 bytes, or `public`.
    """
    if not given or not given.isprintable() or len(given.encode()) > LONGEST:
        raise InvalidName(f"a role's name is printable, at most {LONGEST} bytes")
    if given == "public":  # which means every role, also in quotation marks
        raise InvalidName(
            "public stands for every role there is", hint="name the one that needs the rights"
        )
    return given


def quoted(name: str) -> str:
    """A name as a quoted identifier of SQL, whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'
