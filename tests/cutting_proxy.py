"""A wire between a client and PostgreSQL that can be cut exactly around a COMMIT."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import cycle
from typing import Literal, Self, get_args

from sqlalchemy.engine import make_url

COMMIT = b"COMMIT\x00"
COPY = b"PGCOPY\n\xff\r\n\x00"
"""What rows that are copied in begin with."""

Moment = Literal["before the commit arrives", "before its answer arrives"]


class CuttingProxy:
    """Forwards bytes both ways. `cut` names the moment at which the next commit's connection
    is torn; `cuts` counts them, `connections` all that were made. With `cut_every` n it is every
    n-th commit's, at both moments in turn. While `down`, no new connection is let through."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._server: asyncio.Server | None = None
        self.cut: Moment | None = None
        self.cut_every = 0
        self.cuts = 0
        self.cut_copy = False
        """Whether the next COPY is torn, some of its rows being through."""
        self._commits = 0
        self._moments = cycle(get_args(Moment))
        self.down_after_cut = False
        self.down = False
        self.connections = 0
        self._answers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._answers:
            writer.close()

    @property
    def url(self) -> str:
        """The database's URL, by way of this proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def lead_to(self, url: str, *, end_others: bool = True) -> None:
        """Let new connections go to another server; those that are there end, or stay."""
        self._target = make_url(url)
        if end_others:
            for writer in self._answers:
                writer.close()

    def sever(self) -> None:
        """Tear every connection that there is just now; new ones are let through."""
        for writer in self._answers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answers.add(writer)
        self.connections += 1
        if self.down:
            writer.close()
            return
        try:
            there, back = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:  # the server is down; so is this wire
            writer.close()
            return
        answers = asyncio.create_task(self._forward(there, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if COMMIT in data and self._is_nth():
                    self.cut = next(self._moments)
                if COMMIT in data and self.cut is not None:
                    moment, self.cut = self.cut, None
                    self.cuts += 1
                    self.down = self.down_after_cut
                    answers.cancel()
                    await asyncio.wait([answers])
                    if moment == "before its answer arrives":
                        back.write(data)
                        await back.drain()
                        await there.read(1)  # the server has answered: it has committed
                    break
                if COPY in data and self.cut_copy:
                    self.cut_copy = False
                    self.cuts += 1
                    back.write(data[: len(data) // 2])
                    await back.drain()
                    break
                back.write(data)
                await back.drain()
        answers.cancel()
        back.close()
        writer.close()

    def _is_nth(self) -> bool:
        self._commits += 1
        return bool(self.cut_every) and self._commits % self.cut_every == 0

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
