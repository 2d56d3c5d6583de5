"""Databases for the tests: every test that asks for `database_url` runs on each backend."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy.engine import make_url

import old_ledgers
from hostile import originals, victim
from moves import Route
from postgresql_server import DatabaseHost, ExternalServer, PostgresServer
from secret_ledger import Keyring
from viewed import seldom_asked

__all__ = ["originals", "seldom_asked", "victim"]  # fixtures of their own modules


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[DatabaseHost]:
    """The server of this session (of this worker, under xdist). Tests must not stop it."""
    url = os.environ.get("SECRET_LEDGER_TEST_POSTGRESQL_URL")
    if url:
        yield ExternalServer(url)
        return
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of ours, also where another is named: tests may make roles and poolers for it."""
    server: DatabaseHost = request.getfixturevalue("postgres_server")
    if isinstance(server, PostgresServer):
        yield server
        return
    with PostgresServer() as own:
        yield own


@pytest.fixture
def own_postgres_url(own_postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database on it."""
    name = f"test_{uuid.uuid4().hex}"
    yield own_postgres.create_database(name)
    own_postgres.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: DatabaseHost) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database whose file does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path}/ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each backend in turn."""
    backend = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(backend)
    return url


class OldLedger(NamedTuple):
    """A ledger that an older release wrote, and the keys that open it."""

    url: str
    keyring: Keyring


@pytest.fixture
async def old_ledger(database_url: str) -> OldLedger:
    """A copy of the ledger of schema 5 that `tests/old_ledgers` keeps, on each backend."""
    await old_ledgers.lay(database_url)
    return OldLedger(database_url, Keyring.of(old_ledgers.HELD[0], old_ledgers.HELD[1:]))


def _url(kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        return
    server: DatabaseHost = request.getfixturevalue("postgres_server")
    database = f"test_{uuid.uuid4().hex}"
    yield server.create_database(database)
    server.drop_database(database)


@pytest.fixture(
    params=["sqlite-postgresql", "postgresql-sqlite", "postgresql-postgresql", "sqlite-sqlite"]
)
def route(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Route]:
    """Two empty databases: each pair of kinds in turn."""
    kinds = request.param.split("-")
    sides = [_url(kinds[n], name, request, tmp_path) for n, name in enumerate(("old", "new"))]
    yield Route(*(next(side) for side in sides))
    for side in sides:
        next(side, None)


@pytest.fixture
def more_databases(
    database_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Makes further empty databases of the backend of `database_url`, and gives their URLs."""
    names: list[str] = []

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        if make_url(database_url).get_backend_name() == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path / name}.db"
        names.append(name)
        server: DatabaseHost = request.getfixturevalue("postgres_server")
        return server.create_database(name)

    yield make
    for name in names:
        request.getfixturevalue("postgres_server").drop_database(name)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to stop, restart and kill. Takes a second or two to make."""
    with PostgresServer() as server:
        yield server
