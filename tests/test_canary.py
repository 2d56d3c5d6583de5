"""A value, a root key and the URL's password are shown nowhere: a walk over every way out."""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from attacker import Attacker, attacking, events
from canary import LogCapture, Watch
from inside import (
    _U32,
    Connection,
    Database,
    Destroy,
    LedgerKey,
    LogHead,
    Put,
    context_of,
    event_hash,
    liveness,
    open_event,
    readiness,
)
from ledgers import file_of
from postgresql_server import PASSWORD, PostgresServer
from secret_ledger import (
    EnvKeyProvider,
    Event,
    InvalidValue,
    Key,
    KeyFingerprintMismatch,
    Keyring,
    LedgerError,
    LedgerUnavailable,
    ProjectionFailed,
    Secret,
    SecretLedger,
    SecretNotFound,
    TamperedEvent,
    VersionConflict,
    open_unverified,
)

CANARY = "c4nary+Wert/äöü:5f8e1d0b7a"
ROOT = bytes.fromhex("a7d3f10b5c2e49868f6a1d3b7c905e24e1f0a9b8c7d6e5f4132435465768798a")
ROW = "row-marker-7d21"
"""An actor: it is stored in clear, so a driver's DETAIL line shows it. No error may."""
KEY = Key.from_bytes(ROOT, "k-canary")
KEYRING = Keyring.of(KEY, [Key.generate()])


class Opaque:
    """An object of a caller's own, with a value in its repr."""

    def __repr__(self) -> str:
        return f"Opaque({CANARY})"

    __str__ = __repr__


@pytest.fixture
def watch() -> Watch:
    return Watch(
        {
            "the value": CANARY.encode(),
            "the root key": ROOT,
            "the key's text": KEY.text().reveal(),
            "the URL's password": PASSWORD.encode(),
            "a row's column": ROW.encode(),
        }
    )


@pytest.fixture
def logs(watch: Watch) -> Iterator[LogCapture]:
    """Every logger at DEBUG, but SQLAlchemy's: it prints rows, and with them the clear columns."""
    handler = LogCapture(watch)
    with handler.listening("", "secret_ledger", "asyncio", "aiosqlite", "concurrent"):
        yield handler


@pytest.fixture
def structured(watch: Watch) -> Iterator[list[str]]:
    """The host's structlog, with everything that comes out of it."""
    events: list[str] = []

    def keep(_: object, __: str, facts: Any) -> Any:
        events.append(facts["event"])
        watch.look("a structlog event", repr(facts))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    yield events
    structlog.reset_defaults()


async def failing(
    watch: Watch, call: Awaitable[object], *kinds: type[BaseException]
) -> BaseException:
    """Take in the error that `call` ends in."""
    with pytest.raises(kinds or LedgerError) as caught:
        await call
    watch.look_at_error(caught.value)
    return caught.value


async def opening(url: str, keyring: Keyring = KEYRING, **options: Any) -> None:
    async with SecretLedger.open(url, keyring, **options):
        pass


@asynccontextmanager
async def echoing(url: str) -> AsyncIterator[SecretLedger]:
    """A ledger; on PostgreSQL over a host's engine that echoes statements, parameters and rows."""
    if url.startswith("sqlite"):
        async with SecretLedger.open(url, KEYRING, max_staleness=0) as ledger:
            yield ledger
        return
    engine = create_async_engine(url, echo="debug")
    try:
        async with SecretLedger.open(engine, KEYRING, max_staleness=0) as ledger:
            yield ledger
    finally:
        await engine.dispose()


async def use(ledger: SecretLedger) -> Sequence[object]:
    """The daily work; returns all the objects that it gave out."""
    shown: list[object] = [ledger, ledger.keyring, KEY]
    shown.append(await ledger.put("name", CANARY, metadata={"ticket": 1}))
    shown.append(await ledger.put_many([("many/1", CANARY), ("many/2", CANARY.encode())]))
    shown.append(await ledger.put("raw", Secret(CANARY.encode() * 1000)))
    for _ in range(2):  # from the database, then from memory where it is kept there
        shown.append(got := await ledger.get("name"))
        assert got.value.reveal_text() == CANARY
    shown.append(ledger.view)
    shown.append(await ledger.delete("name"))
    shown.append(await ledger.restore("name"))
    shown.append(await ledger.destroy("many/1", reason="over"))
    shown.append([info async for info in ledger.list(deleted=True)])
    shown.append([info async for info in ledger.history("name")])
    shown += [await ledger.verify("full"), await ledger.health(), await ledger.nodes()]
    shown.append(await ledger.key_status())
    shown += [await readiness(ledger, max_age=0), await liveness(ledger)]
    return shown


async def daily_work(database_url: str, watch: Watch) -> None:
    async with echoing(database_url) as ledger:
        for shown in await use(ledger):
            watch.look_at_object(shown)
        watch.look_at_object(ledger.database)
        watch.look_at_object(ledger._writer)
        watch.look_at_object(ledger._follower)
        assert (await ledger.get("many/2")).value.reveal_text() == CANARY
        assert ledger._view is not None
        assert ledger._view.status.secrets
        watch.look_at_object(ledger._view)
        for intent in (
            Put("name", Secret(CANARY), None, None, None),
            Destroy("name", "over", None),
            KEY.for_ledger(bytes(16)),
            EnvKeyProvider({"OS_SECRET_KEY": ROOT.hex()}),
        ):
            watch.look_at_object(intent)
        tasks = " ".join(repr(task) for task in asyncio.all_tasks())
        watch.look("the tasks of the loop", tasks, without=["the value"])


async def test_daily_work_shows_nothing(
    database_url: str, watch: Watch, logs: LogCapture, capfd: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # asyncio then logs slow callbacks, with their arguments
    sql = ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool")
    with logs.listening(*sql):
        await daily_work(database_url, watch)
    loop.set_debug(False)
    out, err = capfd.readouterr()
    watch.look("stdout and stderr", out + err)
    assert "secret_ledger" in logs.loggers
    if database_url.startswith("postgresql"):
        assert "sqlalchemy.engine.Engine" in logs.loggers
    assert not watch.found, "\n".join(watch.found)


async def test_structlog_of_the_host_shows_nothing(
    database_url: str, watch: Watch, structured: list[str]
) -> None:
    async with SecretLedger.open(database_url, KEYRING) as ledger:
        await use(ledger)
    await failing(watch, opening(database_url, Keyring.of(Key.generate())), KeyFingerprintMismatch)
    assert {"ledger_created", "ledger_refused"} <= set(structured)
    assert not watch.found, "\n".join(watch.found)


async def test_refused_calls_show_nothing(
    database_url: str, watch: Watch, logs: LogCapture
) -> None:
    async with SecretLedger.open(database_url, KEYRING) as ledger:
        await ledger.put("name", CANARY, actor=ROW)
        await ledger.put("binary", CANARY.encode() + b"\xff", actor=ROW)
        big = CANARY * 60_000
        bad: Any
        for bad in (
            {"value": CANARY}, [CANARY], (CANARY,), Opaque(), object, 5, None, big,
            CANARY + "\ud800",
        ):  # fmt: skip
            await failing(watch, ledger.put("name", bad))
            await failing(watch, ledger.put_many({"fine": CANARY, "name": bad}))
            await failing(watch, ledger.put_many([("fine", CANARY), ("name", bad, None)]))
        for bad in (
            [["name", CANARY]], [("name", CANARY, None, 1)], [CANARY], CANARY, 5, None, [Opaque()],
            [("name", CANARY), ("name", CANARY)], [("a//b", CANARY)], [(5, CANARY)],
            [("name", CANARY, "x")], [("name", CANARY, 99)], {5: CANARY},
            {f"n/{i}": big[: 2**20] for i in range(17)},
        ):  # fmt: skip
            await failing(watch, ledger.put_many(bad))
        for bad in ("", "/x", "$ledger", "a" * 600, 5, None):
            await failing(watch, ledger.put(bad, CANARY))
        for bad in (-1, "1", True, 1.5):
            await failing(watch, ledger.put("name", CANARY, expect=bad))
        await failing(watch, ledger.put("name", CANARY, expect=7), VersionConflict)
        # Metadata is no place for a secret, so frames show it; the message does not.
        with pytest.raises(InvalidValue) as caught:
            await ledger.put("name", CANARY, metadata={"o": Opaque()})
        watch.look("the text about metadata", f"{caught.value!r} {caught.value.details}")
        await failing(watch, ledger.restore("name"), VersionConflict)
        await failing(watch, ledger.get("none"), SecretNotFound)
        binary = await ledger.get("binary")
        try:
            binary.value.reveal_text()
        except InvalidValue as error:
            watch.look_at_error(error)
    await failing(watch, ledger.put("name", CANARY), LedgerUnavailable)
    await failing(watch, ledger.get("name"), LedgerUnavailable)
    assert not watch.found, "\n".join(watch.found)


async def test_a_cancelled_call_shows_nothing(
    database_url: str, watch: Watch, logs: LogCapture
) -> None:
    async with SecretLedger.open(database_url, KEYRING) as ledger:
        await ledger.put("name", CANARY)
        for turns in range(30):
            for call in (ledger.put("name", CANARY), ledger.get("name"), ledger.verify("latest")):
                task = asyncio.ensure_future(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError as error:
                    watch.look_at_error(error)
    for turns in range(0, 200, 5):
        task = asyncio.ensure_future(opening(database_url))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            watch.look_at_error(error)
    assert not watch.found, "\n".join(watch.found)


class Spiteful:
    """A host's own projection that fails in its fold."""

    name = "spiteful"

    def apply(
        self, connection: Connection, database: Database, head: LogHead, events: Sequence[Event]
    ) -> None:
        if any(event.stream.startswith("spite") for event in events):
            connection.execute(text("SELECT 1 FROM no_such_table"))
        if any(event.stream == "bug" for event in events):
            raise RuntimeError("a bug of the host's own")

    async def catch_up(self, database: Database) -> int:
        return 0


async def test_what_the_database_says_in_its_errors_is_not_passed_on(
    database_url: str, watch: Watch, logs: LogCapture
) -> None:
    """Constraints, triggers and lost connections: drivers put whole rows into their messages."""
    sqlite = database_url.startswith("sqlite")
    async with (
        SecretLedger.open(database_url, KEYRING, patience=1, projections=[Spiteful()]) as ledger,
        attacking(database_url) as attacker,
    ):
        await ledger.put("name", CANARY, actor=ROW)
        await failing(watch, ledger.put("bug", CANARY, actor=ROW), ProjectionFailed)
        await failing(watch, ledger.put("spite", CANARY, actor=ROW), LedgerUnavailable)
        assert (await ledger.put("name", CANARY, actor=ROW)).version == 2
        if sqlite:
            await attacker.sql(
                "CREATE TRIGGER spite BEFORE INSERT ON secret_event WHEN NEW.version > 2 BEGIN"
                f" SELECT RAISE(ABORT, '{ROW}'); END"
            )
        else:
            await attacker.sql(
                "ALTER TABLE secret_event ADD CHECK (version < 3 OR stream = '$ledger')"
            )
        error = await failing(watch, ledger.put("name", CANARY, actor=ROW), LedgerUnavailable)
        assert isinstance(error, LedgerError)
        assert error.details.get("sqlstate", error.details.get("sqlite_error")) in (
            "23514",
            "SQLITE_CONSTRAINT_TRIGGER",
        )
        together = [ledger.put(name, CANARY, actor=ROW) for name in ("name", "other", "third")]
        outcomes = await asyncio.gather(*together, return_exceptions=True)
        assert [isinstance(o, LedgerError) for o in outcomes] == [True, False, False]
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                watch.look_at_error(outcome)
        if not sqlite:
            await attacker.sql(
                "CREATE UNIQUE INDEX ON secret_event (metadata) WHERE stream LIKE 'twin/%'"
            )
            await ledger.put("twin/1", CANARY, actor=ROW)
            await failing(watch, ledger.put("twin/2", CANARY, actor=ROW), LedgerUnavailable)
            await attacker.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            assert (await ledger.get("other")).value.reveal_text() == CANARY
        await attacker.sql("ALTER TABLE secret_event RENAME COLUMN sealed TO gone")
        await failing(watch, ledger.get("name"), LedgerUnavailable)
        await failing(watch, ledger.put("other", CANARY, actor=ROW), LedgerUnavailable)
    assert not watch.found, "\n".join(watch.found)


async def test_a_damaged_row_shows_nothing_of_itself(
    database_url: str, watch: Watch, logs: LogCapture
) -> None:
    async with (
        SecretLedger.open(database_url, KEYRING, projections=()) as ledger,
        attacking(database_url) as attacker,
    ):
        written = await ledger.put("name", CANARY, actor=ROW)
        await ledger.put("whole", CANARY)
        await ledger.delete("whole")
        await attacker.sql("UPDATE secret_event SET metadata = $1 WHERE position = 4", ROW)
        await failing(watch, ledger.get("name"), TamperedEvent)
        await failing(watch, ledger.put("name", CANARY), TamperedEvent)
        watch.look_at_object(await ledger.verify("full"))
        await failing(watch, opening(database_url), TamperedEvent)
        async with open_unverified(database_url) as unverified:
            watch.look_at_object(unverified)
        # Sealed under the right key, and a frame that this format never makes.
        key = KEY.for_ledger(bytes.fromhex(ledger.ledger_id))
        await _plant_a_broken_frame(attacker, key, written.position)
        await failing(watch, ledger.get("name"), TamperedEvent)
    assert not watch.found, "\n".join(watch.found)


async def _plant_a_broken_frame(attacker: Attacker, key: LedgerKey, position: int) -> None:
    (event,) = [e for e in await events(attacker) if e.position == position]
    whole = event._replace(metadata="{}")
    ledger_id = key._ledger_id
    frame = (_U32.pack(3) + CANARY.encode() * 3)[:64].ljust(64, b"\x01")
    context = context_of(ledger_id, whole)
    sealed = b"\x01" + bytes(12) + key.event_cipher.encrypt(bytes(12), frame, context)
    broken = whole._replace(sealed=sealed, event_hash=event_hash(context, sealed))
    with pytest.raises(TamperedEvent, match="the seal opens, but"):
        open_event(key.event_cipher, ledger_id, broken)
    await attacker.sql(
        "UPDATE secret_event SET metadata = $1, sealed = $2, event_hash = $3 WHERE position = $4",
        broken.metadata,
        broken.sealed,
        broken.event_hash,
        position,
    )


async def test_a_url_never_shows_its_password(
    postgres_url: str, watch: Watch, logs: LogCapture
) -> None:
    good = make_url(postgres_url)
    shown = good.render_as_string(hide_password=False)
    assert PASSWORD in shown
    with_host = shown.partition("@")[0] + "@"
    for url in (
        shown.replace(f":{good.port}", ":1"),  # nobody listens there
        f"{with_host}127.0.0.1:no-port/x",
        f"{with_host}[::1/x",
        shown.rpartition("/")[0] + "/no_such_database",
        f"{shown}?sslmode=require",
        f"{shown}?sslmode=verify-full&sslrootcert=/nowhere",
        f"{shown}?sslmode=require&sslpassword={PASSWORD}",
        f"{shown}?pooler=unheard-of",
        f"{shown}?password={PASSWORD}&ssl=nonsense",
        f"mysql+aiomysql://u:{PASSWORD}@h/x",
        PASSWORD,
    ):
        for keyring in (KEYRING, Keyring.of(Key.generate())):
            await failing(watch, opening(url, keyring, patience=0.1), LedgerError)
    await opening(shown)
    await failing(watch, opening(shown, Keyring.of(Key.generate())), KeyFingerprintMismatch)
    async with SecretLedger.open(shown, KEYRING) as ledger:
        watch.look_at_object(ledger)
        watch.look_at_object(ledger.database)
        watch.look("its place", ledger.database.place)
    assert not watch.found, "\n".join(watch.found)


async def test_the_files_of_sqlite_hold_nothing(sqlite_url: str, watch: Watch) -> None:
    async with SecretLedger.open(sqlite_url, KEYRING) as ledger:
        await use(ledger)
        files = sorted(Path(file_of(sqlite_url)).parent.glob("ledger.db*"))
        assert [f.suffix for f in files] == [".db", ".db-shm", ".db-wal"]
        for file in files:
            watch.look(file.name, file.read_bytes())
    watch.look("the closed file", Path(file_of(sqlite_url)).read_bytes())
    assert watch.looked_at > 100_000
    assert not watch.found, "\n".join(watch.found)


async def test_the_server_and_its_dump_hold_nothing(watch: Watch) -> None:
    """A server that logs every statement with all of its parameters."""
    settings = {
        "log_statement": "all",
        "log_parameter_max_length": "-1",
        "log_parameter_max_length_on_error": "-1",
        "log_error_verbosity": "verbose",
        "log_min_messages": "debug1",
    }
    with PostgresServer(settings) as server:
        url = server.create_database("watched")
        async with SecretLedger.open(url, KEYRING) as ledger:
            await use(ledger)
            async with attacking(url) as attacker:
                await attacker.sql("ALTER TABLE secret_event ADD CHECK (version < 5)")
            await ledger.put("name", CANARY)
            with pytest.raises(LedgerUnavailable):
                await ledger.put("name", CANARY)
        plain = url.replace("+asyncpg", "")
        dump = subprocess.run(
            [server.binary("pg_dump"), "--inserts", plain], capture_output=True, check=True
        ).stdout
        assert b"INSERT INTO secret_ledger.secret_event" in dump
        watch.look("the dump", dump)
        server.stop("fast")  # with a checkpoint: all of it is in the files
        assert b"secret_event" in server.log.read_bytes()
        watch.look("the server's log", server.log.read_bytes())
        for file in (server.log.parent / "data").rglob("*"):
            if file.is_file():
                watch.look(str(file), file.read_bytes())
    assert watch.looked_at > 10_000_000
    assert not watch.found, "\n".join(watch.found)


async def test_a_command_shows_the_value_neither_to_ps_nor_in_its_debug_output(
    sqlite_url: str, watch: Watch, tmp_path: Path
) -> None:
    await opening(sqlite_url)
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY.text().reveal())
    key_file.chmod(0o600)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OS_SECRET")},
        "OS_SECRET_KEY_FILE": str(key_file),
        "OS_SECRET_KEY_ID": "k-canary",
        "OS_SECRET_LEDGER_URL": sqlite_url,
    }
    lock = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    command = [sys.executable, "-m", "secret_ledger", "put", "name", "--debug"]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(CANARY.encode())
        process.stdin.close()
        process.stdin = None
        proc = Path(f"/proc/{process.pid}")
        deadline = time.monotonic() + 30
        while str(sqlite_url.rpartition("/")[2]) not in _open_files(proc):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        watch.look("argv", (proc / "cmdline").read_bytes())
        watch.look("environ", (proc / "environ").read_bytes())
        lock.execute("ROLLBACK")
        lock.close()
        out, err = process.communicate(timeout=60)
    watch.look("its output", out + err)
    assert process.returncode == 0, err.decode()
    failed = subprocess.run(
        [*command, "--expect", "9"],
        env=environ,
        input=CANARY.encode(),
        capture_output=True,
        check=False,
    )
    assert failed.returncode == 22, failed.stderr.decode()
    watch.look("its debug output", failed.stdout + failed.stderr)
    command = [sys.executable, "-m", "secret_ledger", "nodes", "--watch", "--json", "--debug"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        watch.look("a watch", process.stdout.readline())
        process.terminate()
    assert not watch.found, "\n".join(watch.found)


def _open_files(process: Path) -> str:
    names = []
    for link in (process / "fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except OSError:
            continue
    return " ".join(names)


def test_the_watch_knows_a_canary_in_every_form() -> None:
    """A test that can't fail is worse than none."""
    secret = bytes(range(7, 39))
    samples: list[str | bytes] = [
        secret,
        secret.hex(),
        secret.hex().upper(),
        repr(secret),
        repr({"a": secret}),
        f"{list(secret)}",
    ]
    samples += [base64.b64encode(b"x" * n + secret + b"y" * n) for n in range(4)]
    samples += [base64.urlsafe_b64encode(b"x" * n + secret) for n in range(4)]
    for sample in samples:
        watch = Watch({"it": secret})
        watch.look("a sample", sample)
        assert watch.found, sample
    watch = Watch({"it": secret})
    try:
        _raise_with(secret)
    except ValueError as error:
        watch.look("an error", str(error))
        watch.look_at_error(error)
    assert any("text" in found for found in watch.found)
    watch = Watch({"it": secret})
    watch.look_at_object({"a": [secret]})
    assert watch.found


def _raise_with(secret: bytes) -> None:
    raise ValueError(secret)


def test_no_setting_shows_in_help() -> None:
    shown = (
        "import pydoc, secret_ledger\n"
        "for name in secret_ledger.__all__:\n"
        "    print(pydoc.render_doc(getattr(secret_ledger, name)))\n"
    )
    key = Key.generate().text().reveal_text()
    done = subprocess.run(
        [sys.executable, "-c", shown],
        env={**os.environ, "OS_SECRET_KEY": key},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "from_env" in done.stdout
    assert key not in done.stdout + done.stderr
