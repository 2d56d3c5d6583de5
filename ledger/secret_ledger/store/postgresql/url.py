"""Reads a PostgreSQL URL, and gives its parameters to asyncpg in the form that asyncpg takes.

SQLAlchemy hands every parameter of a URL to `asyncpg.connect` as text. asyncpg knows libpq's TLS
parameters only inside a URL of its own. Users paste libpq's URLs. So this module gives libpq's
parameters to asyncpg in such a URL, and turns numbers from text into numbers.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

from sqlalchemy.engine import URL

from secret_ledger.errors import LedgerUnavailable

__all__ = ["FILES", "Dialling", "Pooler", "read_url"]

Pooler = Literal["transaction", "session"]

FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""The parameters that name files."""

_LIBPQ: Final = frozenset(
    {
        *FILES, "sslmode", "sslnegotiation", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "application_name", "options",
    }
)  # fmt: skip
_NUMBERS: Final[Mapping[str, tuple[str, Callable[[str], float]]]] = {
    "connect_timeout": ("timeout", float),  # libpq's name for asyncpg's `timeout`
    "timeout": ("timeout", float),
    "command_timeout": ("command_timeout", float),
    "statement_cache_size": ("statement_cache_size", int),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", int),
    "max_cached_statement_lifetime": ("max_cached_statement_lifetime", int),
    "max_cacheable_statement_size": ("max_cacheable_statement_size", int),
}
_TEXTS: Final = frozenset(
    {
        "database", "dbname", "gsslib", "krbsrvname", "passfile", "service", "servicefile",
        "ssl", "target_session_attrs", "user",
    }
)  # fmt: skip
# libpq may ignore these values too: they only state a wish, so nothing is lost without them.
_WISHES: Final = {"channel_binding": ("prefer", "disable"), "gssencmode": ("prefer", "disable")}
_POOLERS: Final[Mapping[str, Pooler]] = {"transaction": "transaction", "session": "session"}


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to reach a server."""

    url: URL
    """The URL for SQLAlchemy: the address. Its query holds only further hosts and ports."""
    arguments: Mapping[str, Any]
    """Arguments for `asyncpg.connect`, beside the arguments that SQLAlchemy takes from the URL."""
    files: Mapping[str, str]
    """The paths of files, by the parameter that names the file."""
    pooler: Pooler | None
    """The kind of pooler that stands in between; None if the URL does not say."""


def read_url(url: URL, place: str) -> Dialling:
    """Sort a URL's parameters. `place`: its address for messages.

    Raises LedgerUnavailable if a parameter is unknown, blank, or can't be honoured. So no demand
    for TLS is ever ignored.
    """
    hosts: dict[str, str | tuple[str, ...]] = {}
    arguments: dict[str, Any] = {}
    libpq: dict[str, str] = {}
    pooler: Pooler | None = None
    for name, given in url.query.items():
        value = given if isinstance(given, str) else given[-1]
        if not value.strip():
            raise _wrong(place, f"{name} is blank" if _known(name) else "a parameter is blank")
        if name in ("host", "port"):
            hosts[name] = given
        elif name in _LIBPQ:
            libpq[name] = value
        elif name in _NUMBERS:
            argument, kind = _NUMBERS[name]
            arguments[argument] = _number(place, name, kind, value)
        elif name in _TEXTS:
            arguments["database" if name == "dbname" else name] = value
        elif name == "pooler" and value in _POOLERS:
            pooler = _POOLERS[value]
        elif name == "pooler":
            raise _wrong(place, "pooler is transaction or session")
        elif name in _WISHES and value in _WISHES[name]:
            pass
        elif name in _WISHES:
            raise _wrong(place, f"asyncpg can't do what this value of {name} asks for")
        else:
            # Its name is not shown: a part of a password with an @ and a ? may end up here.
            raise _wrong(place, "one name is not known here")
    files: dict[str, str] = {name: libpq[name] for name in FILES if name in libpq}
    if libpq.get("sslrootcert") == "system":
        arguments["ssl"] = _trusting_the_system(place, libpq)
        del files["sslrootcert"]
    if libpq:
        arguments["dsn"] = "postgresql://?" + urlencode(libpq)
    address = url.set(drivername="postgresql+asyncpg", query=hosts)
    return Dialling(address, arguments, files, pooler)


def _trusting_the_system(place: str, libpq: dict[str, str]) -> ssl.SSLContext:
    """As in libpq: with the machine's own list of authorities, the host's name must match."""
    if libpq.pop("sslmode", "verify-full") != "verify-full":
        raise _wrong(place, "sslrootcert=system goes with sslmode=verify-full only")
    del libpq["sslrootcert"]
    context = ssl.create_default_context()
    certificate, key = libpq.pop("sslcert", None), libpq.pop("sslkey", None)
    if certificate is None:
        return context
    try:
        context.load_cert_chain(certificate, key)
    except OSError:
        pass
    else:
        return context
    raise _wrong(place, "sslcert and sslkey name no certificate and its key")


def _number(place: str, name: str, kind: Callable[[str], float], value: str) -> float:
    try:
        return kind(value)
    except ValueError:
        pass
    raise _wrong(place, f"{name} takes a number")


def _known(name: str) -> bool:
    return name in _LIBPQ or name in _NUMBERS or name in _TEXTS or name in _WISHES


def _wrong(place: str, what: str) -> LedgerUnavailable:
    known = sorted({*_LIBPQ, *_NUMBERS, *_TEXTS, "host", "pooler", "port"})
    return LedgerUnavailable(
        f"{place}: the parameters of the URL can't be used: {what}",
        hint=f"the parameters that can be used: {', '.join(known)}; an @ in a password is"
        " written %40",
    )
