"""Which PostgreSQL server a new connection goes to, where a URL names several, and how a
server that has silently gone away is noticed.

`postgresql+asyncpg://user@/database?host=one:5432&host=two:5432`: whoever writes wants the
one host that takes writes, whichever that is after a fail-over.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import URL

__all__ = ["HOST_SECONDS", "NoMatchingHost", "connector", "place_of"]

HOST_SECONDS: Final = 5.0
"""Seconds that each of several hosts is given, unless the URL's `timeout` says otherwise."""
SILENCE: Final = 9
"""Seconds after which a server whose machine answers nothing any more is taken for dead."""

_ELSEWHERE: Final = (
    OSError,  # refused, unreachable; and a timeout is one
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # starting up, shutting down
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,
)
_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", SILENCE // 3),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", SILENCE // 3),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 2),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", SILENCE * 1000),
)


class NoMatchingHost(ConnectionError):
    """Of the hosts that answer, none is of the kind that is wanted."""


def connector(*, read_only: bool) -> Callable[..., Awaitable[Any]]:
    """What makes connections in place of `asyncpg.connect`, with its parameters.

    Of several hosts, where the URL has no `target_session_attrs`: the one that takes writes;
    to read only, preferably that one, else any.
    """
    return functools.partial(_connect, ("primary", "any") if read_only else ("read-write",), {})


def place_of(url: URL) -> str:
    """The address as it is shown: without a password, with every host."""
    place = url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
    named = [
        f"{name}={value}"
        for name in ("host", "port")
        for value in url.normalized_query.get(name, ())
    ]
    return place + ("?" + "&".join(named) if named else "")


async def _connect(
    default: Sequence[str], found: dict[str, tuple[str, int]], **parameters: Any
) -> Any:
    hosts = parameters.get("host")
    if isinstance(hosts, list):
        connection = await _first_of(hosts, default, found, parameters)
    else:
        connection = await asyncpg.connect(**parameters)
    _notice_silence(connection)
    return connection


async def _first_of(
    hosts: Sequence[str],
    default: Sequence[str],
    found: dict[str, tuple[str, int]],
    parameters: dict[str, Any],
) -> Any:
    # One at a time: asyncpg's timeout is for all of them, and one host that is off the
    # network would use it up (its issue 1155); libpq's connect_timeout is for each.
    rest = dict(parameters)
    ports = rest.pop("port")
    del rest["host"]
    given = rest.pop("target_session_attrs", None)
    seconds = float(rest.pop("timeout", HOST_SECONDS))
    wanted = {None: default, "prefer-standby": ("standby", "any")}.get(given, (given,))
    failure: Exception | None = None
    for kind in wanted:
        places = list(zip(hosts, ports, strict=True))
        places.sort(key=lambda place: place != found.get(kind))  # where it was last, first
        for host, port in places:
            try:
                connection = await asyncpg.connect(
                    host=host, port=port, target_session_attrs=kind, timeout=seconds, **rest
                )
                found[kind] = (host, port)
                return connection
            except asyncpg.TargetServerAttributeNotMatched:
                failure = NoMatchingHost()
            except _ELSEWHERE as error:
                failure = failure or error
    raise failure or NoMatchingHost()


def _notice_silence(connection: Any) -> None:
    """Let the kernel end a connection whose other side is gone without a goodbye.

    A machine that lost its power, or its network, closes nothing: a statement under way
    would wait for a quarter of an hour. asyncpg has no setting for it (its issue 606).
    """
    transport = getattr(connection, "_transport", None)
    its_socket = transport.get_extra_info("socket") if transport is not None else None
    if its_socket is None or its_socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:  # not on every system
            with contextlib.suppress(OSError, TypeError):
                its_socket.setsockopt(level, option, value)
