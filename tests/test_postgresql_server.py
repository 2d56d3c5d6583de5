"""The test server keeps its promises: data outlives a crash, and no server outlives its owner."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

import postgresql_server
from postgresql_server import PostgresServer


async def _fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) == 0


async def test_a_fresh_database_is_empty_and_speaks_utf8(postgres_url: str) -> None:
    assert await _fetch(postgres_url, "SHOW server_encoding") == "UTF8"
    assert await _fetch(postgres_url, "SHOW fsync") == "on"
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert await _fetch(postgres_url, tables) == 0


async def test_committed_rows_and_the_url_outlive_restarts_and_a_crash(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.create_database("kept")
    await _fetch(url, "CREATE TABLE t AS SELECT 1 AS n")

    private_postgres.restart("fast")
    assert await _fetch(url, "INSERT INTO t VALUES (2) RETURNING n") == 2

    private_postgres.restart("immediate")
    assert await _fetch(url, "INSERT INTO t VALUES (3) RETURNING n") == 3

    private_postgres.kill()
    assert not private_postgres.running
    assert not _listens(url)
    private_postgres.start()
    assert await _fetch(url, "SELECT sum(n) FROM t") == 6
    assert private_postgres.url("kept") == url


def test_closing_leaves_no_server_and_no_folder() -> None:
    server = PostgresServer()
    server.start()
    url, folder = server.url(), server.log.parent

    server.close()

    assert not _listens(url)
    assert not folder.exists()


def test_a_server_whose_owner_is_killed_ends_and_takes_its_folder_with_it() -> None:
    program = (
        "import sys, time; from postgresql_server import PostgresServer as S\n"
        "s = S(); s.start(); print(s.url(), s.pid, s.log.parent, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(postgresql_server.__file__).parent)},
    )
    assert owner.stdout is not None
    with owner.stdout:
        found = re.fullmatch(r"(\S+) (\d+) (\S+)\n", owner.stdout.readline())
    assert found is not None
    url, pid, folder = found[1], int(found[2]), Path(found[3])
    assert _listens(url)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    deadline = time.monotonic() + 30
    while (folder.exists() or postgresql_server.process_runs(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    assert not postgresql_server.process_runs(pid)
    assert not _listens(url)
