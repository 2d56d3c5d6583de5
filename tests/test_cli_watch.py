"""`nodes --watch`, as a process: a rollout on a terminal and in a pipe, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from cli_process import LEDGER, Terminal, environment, run, terminal
from cli_session import KEY, NEW_KEY, Cli
from ledgers import opened, refused
from log_builder import building
from postgresql_server import PostgresServer
from secret_ledger import Keyring, StaleKey

SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    return environment(database_url)


class Piped:
    """A watch whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.err = ""

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def document(self) -> Any:
        return json.loads(await self.line())

    async def paragraph(self) -> list[list[str]]:
        found = []
        while line := await self.line():
            found.append(line.split("\t"))
        return found

    async def says(self, text: str) -> None:
        """Wait until stderr has it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while text not in self.err:
                got = await self.process.stderr.readline()
                assert got, f"{text!r} was not said: {self.err!r}"
                self.err += got.decode()

    async def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await self.end()

    async def end(self) -> int:
        async with asyncio.timeout(60):
            _, err = await self.process.communicate()
        self.err += err.decode()
        code = self.process.returncode
        assert code is not None
        return code


@asynccontextmanager
async def piped(environ: dict[str, str], *words: str) -> AsyncIterator[Piped]:
    process = await asyncio.create_subprocess_exec(
        *LEDGER,
        "nodes",
        "--watch",
        *words,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield Piped(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def shown(person: Terminal, text: str) -> None:
    await asyncio.to_thread(person.wait_for, text)


async def test_a_rollout_is_followed_on_a_terminal(
    environ: dict[str, str], database_url: str
) -> None:
    async with (
        opened(database_url, KEY, node="web-1") as first,
        opened(database_url, NEW_KEY, KEY, node="web-2") as second,
    ):
        with terminal(environ, "nodes", "--watch", "0.1") as person:
            await shown(person, "2 of 2 live nodes can read k-old")
            await shown(person, "1 of 2 live nodes can read k-new")
            await shown(person, "lacks k-new")
            await first.reload_keys(Keyring.of(NEW_KEY, [KEY]))
            await shown(person, "2 of 2 live nodes can read k-new")
            await shown(person, "; next: secret-ledger keys rotate")
            await second.rotate()
            await shown(person, "active  2 of 2 live nodes can read k-new")
            await shown(person, "about to follow")
            await first._session.announce()
            person.type("\x03")
            assert await asyncio.to_thread(person.end) == 130
        assert "Traceback" not in person.shown
        assert "error" not in person.shown
        assert person.shown.rindex(SHOW_CURSOR) > person.shown.rindex("web-1")


async def test_a_fenced_node_and_a_refused_one_are_remarked_on(
    environ: dict[str, str], database_url: str
) -> None:
    async with (
        opened(database_url, KEY, node="late") as late,
        opened(database_url, NEW_KEY, KEY, node="web-2") as second,
    ):
        await second.rotate(force_reason="test")
        with terminal(environ, "nodes", "--watch", "0.1") as person:
            await shown(person, "unverified: nothing below is authenticated")
            await shown(person, "(unverified)")
            await shown(person, "1 of 2 live nodes can read k-new")
            await shown(person, "fenced: late (pid ")
            await shown(person, "lacks k-new")
            await late._session.announce()
            await shown(person, "unready")
            await shown(person, "stale_key, lacks k-new")
            await refused(database_url, StaleKey, KEY, node="back")
            await shown(person, "1 x stale_key")
            person.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(person.end) == 143
        assert person.shown.rindex(SHOW_CURSOR) > person.shown.rindex("late")


async def test_a_pipe_gets_a_document_whenever_something_has_changed(
    environ: dict[str, str], database_url: str
) -> None:
    async with (
        opened(database_url, KEY, node="web-1") as first,
        piped(environ, "0.05", "--json") as watch,
    ):
        seen = await watch.document()
        assert (seen["ledger_id"], seen["verified"]) == (first.ledger_id, True)
        (key,) = seen["keys"]
        assert (key["state"], key["key_id"], key["readers"], key["live"]) == (
                "active", "k-old", 1, 1,
            )  # fmt: skip
        (node,) = seen["nodes"]
        assert (node["node"], node["state"], node["pending_id"]) == ("web-1", "live", None)
        # Neither a position nor a heartbeat is a change: the next document has the next node.
        await first.put("a", "1")
        await first._session.announce()
        async with opened(database_url, NEW_KEY, KEY, node="web-2"):
            seen = await watch.document()
            assert {n["node"] for n in seen["nodes"]} == {"web-1", "web-2"}
            active, pending = seen["keys"]
            assert (active["readers"], active["live"], active["missing"]) == (2, 2, [])
            assert (pending["state"], pending["key_id"]) == ("pending", "k-new")
            assert (pending["readers"], pending["live"]) == (1, 2)
            assert pending["missing"][0].startswith("web-1 (pid ")
        assert len((await watch.document())["nodes"]) == 1
        assert await watch.interrupt() == 130
        assert "Traceback" not in watch.err


async def test_a_pipe_gets_tab_separated_lines_with_an_empty_one_behind_them(
    environ: dict[str, str], database_url: str
) -> None:
    async with opened(database_url, NEW_KEY, node="web-1") as first:
        await first.rotate(KEY)
        async with piped(environ, "0.05") as watch:
            active, node = await watch.paragraph()
            assert active == ["active", "k-old", first.keyring.current.for_ledger(
                bytes.fromhex(first.ledger_id)).fingerprint.hex(), "1", "1"]  # fmt: skip
            assert node[:2] == ["live", "web-1"]
            plain = run(environ, "nodes").stdout.decode().rstrip("\n").split("\t")
            assert len(node) == len(plain)
            assert node[:9] == plain[:9]
            async with opened(database_url, KEY, NEW_KEY, node="web-2"):
                assert [line[0] for line in await watch.paragraph()] == ["active", "live", "live"]
            assert await watch.interrupt() == 130


async def test_a_database_that_is_away_for_a_while_is_said_and_waited_for(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.create_database("watched")
    async with building(url, KEY):
        pass
    async with piped(environment(url), "0.05", "--json") as watch:
        assert (await watch.document())["nodes"] == []
        await asyncio.to_thread(private_postgres.stop)
        await watch.says('{"warning": ')
        assert "still trying" in watch.err
        await asyncio.to_thread(private_postgres.start)
        await watch.says("the database answers again")
        async with opened(url, KEY, node="web-1"):
            assert [n["node"] for n in (await watch.document())["nodes"]] == ["web-1"]
        assert watch.err.count("still trying") == 1
        assert await watch.interrupt() == 130


async def test_a_database_that_hangs_is_said_on_the_terminal_over_what_was_seen_last(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, KEY, node="web-1"):
        with terminal(environment(postgres_url), "nodes", "--watch", "0.1") as person:
            await shown(person, "1 of 1 live nodes can read k-old")
            connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
            async with connection.transaction():
                await connection.execute("LOCK TABLE secret_ledger.ledger_node")
                await shown(person, "the database has not answered for")
                await shown(person, "web-1")
            await connection.close()
            await shown(person, "ledger ")
            person.type("\x03")
            assert await asyncio.to_thread(person.end) == 130


async def test_it_ends_when_nobody_reads_it_any_more_though_nothing_changes(
    environ: dict[str, str], database_url: str
) -> None:
    async with opened(database_url, KEY):
        watch = f"{sys.executable} -m secret_ledger nodes --watch 0.05"
        shell = f"{watch} | head -1; echo ${{PIPESTATUS[0]}}"
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", shell, env=environ, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    first, code = out.decode().splitlines()
    assert first.startswith("active\t")
    assert code == "141"


async def test_damage_ends_it_with_its_exit_code(
    environ: dict[str, str], database_url: str
) -> None:
    async with building(database_url, KEY) as log, piped(environ, "0.05") as watch:
        await watch.paragraph()
        await log.execute("UPDATE {s}ledger_head SET key_epoch = 9")
        assert await watch.end() == 12
        assert "error: " in watch.err


async def test_a_ledger_that_moves_away_meanwhile_ends_it_with_the_new_place(
    environ: dict[str, str], database_url: str
) -> None:
    async with building(database_url, KEY) as log, piped(environ, "0.05") as watch:
        await watch.paragraph()
        await log.move_away()
        assert await watch.end() == 42
        assert "error: this ledger moved to " in watch.err


def test_a_terminal_that_can_t_move_its_cursor_gets_lines(sqlite_url: str) -> None:
    environ = {**environment(sqlite_url), "TERM": "dumb"}
    run(environ, "init")
    with terminal(environ, "nodes", "--watch") as person:
        person.wait_for("active\tk-")
        person.type("\x03")
        assert person.end() == 130


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1 2", "x"])
def test_an_interval_that_is_none_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, given: str
) -> None:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    done = cli("nodes", "--watch", *given.split())
    assert (done.code, done.raw) == (2, b"")
    assert "--watch" in done.err


def test_a_database_that_was_never_there_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("nodes", "--watch").code == 15
    cli.set("OS_SECRET_LEDGER_URL", f"postgresql+asyncpg://u@127.0.0.1:{os.getpid() % 100 + 1}/d")
    assert cli("nodes", "--watch").code == 40
