"""Chooses the PostgreSQL server if a URL names several, and notices a server that went silent.

`postgresql+asyncpg://user@/database?host=one:5432&host=two:5432`: a process that writes wants the
host that takes writes, also after a fail-over.
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
"""Seconds to connect to each of several hosts, unless the URL's `timeout` says otherwise."""
SILENCE: Final = 9
"""Seconds after which a server counts as dead if its machine answers nothing."""

_ELSEWHERE: Final = (
    OSError,  # refused, unreachable, or a timeout
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
    """No host that answers is of the wanted kind."""


def connector(*, read_only: bool) -> Callable[..., Awaitable[Any]]:
    """Returns a function that connects in place of `asyncpg.connect`, with its parameters.

    If the URL names several hosts and no `target_session_attrs`, it chooses the host that takes
    writes. If `read_only` and no host takes writes, it chooses any host.
    """
    return functools.partial(_connect, ("primary", "any") if read_only else ("read-write",), {})


def place_of(url: URL) -> str:
    """The address for messages: without the password, with every host."""
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
    # One host at a time: asyncpg's timeout is for all hosts, and a host that is off the network
    # would use it up (asyncpg issue 1155). libpq's connect_timeout is for each host.
    rest = dict(parameters)
    ports = rest.pop("port")
    del rest["host"]
    given = rest.pop("target_session_attrs", None)
    seconds = float(rest.pop("timeout", HOST_SECONDS))
    wanted = {None: default, "prefer-standby": ("standby", "any")}.get(given, (given,))
    failure: Exception | None = None
    for kind in wanted:
        places = list(zip(hosts, ports, strict=True))
        places.sort(key=lambda place: place != found.get(kind))  # the last found place first
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
    """Let the kernel end a connection if the other side has gone without a goodbye.

    A machine that lost its power or its network closes nothing: a running statement would wait for
    a quarter of an hour. asyncpg has no setting for it (asyncpg issue 606).
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
