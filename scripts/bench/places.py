"""Where the measured databases lie: a temporary folder, and a PostgreSQL server like the tests'."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from sqlalchemy import make_url

from floors import driver_url
from postgresql_server import DatabaseHost, ExternalServer, PostgresServer, execute

__all__ = ["DATABASES", "DatabaseName", "Place", "places"]

DatabaseName = Literal["sqlite", "postgresql"]
DATABASES: Final[tuple[DatabaseName, ...]] = get_args(DatabaseName)

_SETTINGS: Final = {"shared_buffers": "256MB", "max_wal_size": "2GB", "max_connections": "300"}
"""The tests' settings are too small for a million rows, and for the pools of many processes."""


@dataclass
class Place:
    """A kind of database, and a source of empty databases."""

    database: DatabaseName
    _folder: Path
    _server: DatabaseHost | None = None
    _made: list[str] = field(default_factory=list)
    _count: int = 0

    def empty(self, name: str) -> str:
        """Return the URL of a new, empty database."""
        self._count += 1
        name = f"{name}_{self._count}"
        if self._server is None:
            return f"sqlite+aiosqlite:///{self._folder}/{name}.db"
        return self._server.create_database(self._own(name))

    def copy(self, url: str) -> str:
        """Copy a database that nobody has open, flushed to disk. Returns the URL of the copy."""
        source = make_url(url).database or ""
        self._count += 1
        if self._server is None:
            target = self._folder / f"copy_{self._count}.db"
            for suffix in ("", "-wal"):
                if Path(source + suffix).exists():
                    shutil.copyfile(source + suffix, f"{target}{suffix}")
                    with Path(f"{target}{suffix}").open("rb") as file:
                        os.fsync(file)
            return f"sqlite+aiosqlite:///{target}"
        name = self._own(f"copy_{self._count}")
        execute(
            driver_url(self._server.url()),
            f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY FILE_COPY',
        )
        return self._server.url(name)

    def drop(self, url: str) -> None:
        """Delete a database that nobody needs any more."""
        name = make_url(url).database or ""
        if self._server is None:
            for suffix in ("", "-wal", "-shm"):
                Path(name + suffix).unlink(missing_ok=True)
        else:
            self._server.drop_database(name)
            self._made.remove(name)

    def clear(self) -> None:
        """Drop every database that was made on the server. `places` deletes the folder."""
        if self._server is not None:
            for name in self._made:
                self._server.drop_database(name)

    def _own(self, name: str) -> str:
        name = f"bench_{os.getpid()}_{name}"
        self._made.append(name)
        return name


@contextmanager
def places(names: Sequence[DatabaseName]) -> Iterator[list[Place]]:
    """Yield a place for each kind. The environment may name a server, as for the tests."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledger-bench-")))
        opened: list[Place] = []
        for name in names:
            server: DatabaseHost | None = None
            if name == "postgresql":
                url = os.environ.get("SECRET_LEDGER_TEST_POSTGRESQL_URL")
                server = (
                    ExternalServer(url) if url else stack.enter_context(PostgresServer(_SETTINGS))
                )
            place = Place(name, folder, server)
            stack.callback(place.clear)
            opened.append(place)
        yield opened
