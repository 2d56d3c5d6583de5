"""Where the ledgers that are measured lie: a temporary folder, and a PostgreSQL of the tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from postgresql_server import DatabaseHost, ExternalServer, PostgresServer

__all__ = ["DATABASES", "DatabaseName", "Place", "places"]

DatabaseName = Literal["sqlite", "postgresql"]
DATABASES: Final[tuple[DatabaseName, ...]] = get_args(DatabaseName)


@dataclass
class Place:
    """A kind of database, and a source of empty ones."""

    database: DatabaseName
    _folder: Path
    _server: DatabaseHost | None = None
    _made: list[str] = field(default_factory=list)

    def empty(self, name: str) -> str:
        """The URL of an empty database."""
        if self._server is None:
            return f"sqlite+aiosqlite:///{self._folder}/{name}.db"
        name = f"bench_{os.getpid()}_{name}"
        self._made.append(name)
        return self._server.create_database(name)

    def drop(self) -> None:
        """Drop the databases that were made here; the folder goes with its owner."""
        if self._server is not None:
            for name in self._made:
                self._server.drop_database(name)


@contextmanager
def places(names: Sequence[DatabaseName]) -> Iterator[list[Place]]:
    """A place for each of these kinds. The environment may name a server, as for the tests."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledger-bench-")))
        opened: list[Place] = []
        for name in names:
            server: DatabaseHost | None = None
            if name == "postgresql":
                url = os.environ.get("SECRET_LEDGER_TEST_POSTGRESQL_URL")
                server = ExternalServer(url) if url else stack.enter_context(PostgresServer())
            place = Place(name, folder, server)
            stack.callback(place.drop)
            opened.append(place)
        yield opened
