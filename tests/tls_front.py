"""TLS in front of a PostgreSQL server, as the protocol has it: the tests' own is built without.

A client asks for TLS with its first packet; the answer is one byte, then the handshake. What
follows is passed on to the real server as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Self

from sqlalchemy.engine import make_url

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class TlsFront:
    """Listens on loopback. `spoken` has the TLS version of each connection, None for plain."""

    def __init__(self, url: str, certificate: Path, key: Path) -> None:
        self._target = make_url(url)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.spoken: list[str | None] = []
        self._server: asyncio.Server | None = None
        self._wires: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for wire in self._wires:
            wire.cancel()
        await asyncio.gather(*self._wires, return_exceptions=True)

    def url(self, query: str, host: str = "127.0.0.1") -> str:
        """The database's URL, by way of this front."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        url = self._target.set(host=host, port=port)
        return f"{url.render_as_string(hide_password=False)}?{query}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._wires.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._pass_on(reader, writer)
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        if first == SSL_REQUEST:
            writer.write(b"S")
            await writer.start_tls(self.context)
            first = await reader.readexactly(8)
        secured = writer.get_extra_info("ssl_object")
        self.spoken.append(None if secured is None else secured.version())
        there, back = await asyncio.open_connection(self._target.host, self._target.port)
        back.write(first)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_forward(reader, back))
                group.create_task(_forward(there, writer))
        finally:
            back.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
