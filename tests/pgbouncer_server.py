"""A real PgBouncer in front of a test's PostgreSQL server.

It runs in the foreground on loopback, as the unprivileged user that also runs the server when
we are root (PgBouncer refuses root too), and under the same kind of watchdog.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from postgresql_server import (
    ENVIRONMENT,
    USER,
    Account,
    Watchdog,
    ended,
    free_port,
    temporary_folder,
    wait_until,
)

MISSING: Final = (
    "PgBouncer is not installed, so nothing was tried through a pooler:"
    " apt-get install pgbouncer (as root, ./scripts/test does it)"
)
_SETTINGS: Final = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "trust",
    "pool_mode": "transaction",
    "default_pool_size": "2",
    "max_client_conn": "200",
    "log_connections": "0",
    "log_disconnections": "0",
    # Else the refusals of a server that is down are repeated for a while after it is up again.
    "server_login_retry": "0",
}
_SECONDS: Final = 20.0


def program() -> str | None:
    """Where PgBouncer is; Debian puts it where only root's PATH leads."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


class PgBouncer:
    """One pooler. start() after stop() finds the same port.

    `files`: settings that name files, by what these hold.
    """

    def __init__(
        self,
        server_url: str,
        settings: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._server = urlsplit(server_url)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._files = {"auth_file": f'"{USER}" ""\n'.encode(), **(files or {})}
        self._root: Path | None = None
        self._port = 0
        self._account: Account | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The pooler's process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, database_url: str) -> str:
        """The URL of a database of the server, by way of this pooler."""
        return urlunsplit(
            urlsplit(database_url)._replace(netloc=f"{USER}:x@127.0.0.1:{self._port}")
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if self._root is None:
            self._make_folder()
        chosen = self._port
        for _ in range(5):
            self._port = chosen or free_port()
            if self._launch():
                return
            if chosen:
                break
        raise RuntimeError(f"PgBouncer did not start: {self._log().read_text('utf-8', 'replace')}")

    def stop(self, how: Literal["terminate", "kill"] = "terminate") -> None:
        """End it at once, with every connection through it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
            if not ended(self._process, _SECONDS):
                self._process.kill()
        self._process.wait()
        self._process = None
        self._watch(None)

    def restart(self, how: Literal["terminate", "kill"] = "terminate") -> None:
        self.stop(how)
        self.start()

    def close(self) -> None:
        """Stop it and remove its folder."""
        atexit.unregister(self.close)
        self.stop()
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _make_folder(self) -> None:
        self._account = Account.unprivileged() if os.geteuid() == 0 else None
        self._root = temporary_folder(self._account)
        atexit.register(self.close)
        self._watchdog = Watchdog(self._root)
        for setting, content in self._files.items():
            file = self._root / setting
            file.write_bytes(content)
            file.chmod(0o600)
            if self._account is not None:
                os.chown(file, self._account.uid, self._account.gid)
            self._settings[setting] = str(file)

    def _launch(self) -> bool:
        command = program()
        assert command is not None
        assert self._root is not None
        settings = {**self._settings, "listen_port": str(self._port)}
        if _version(command) >= (1, 21):  # else it has no such setting, and prepares nothing
            settings.setdefault("max_prepared_statements", "0")
        file = self._root / "pgbouncer.ini"
        lines = ["[databases]", f"* = host={self._server.hostname} port={self._server.port}"]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        file.write_text("\n".join(lines) + "\n", "utf-8")
        account = self._account
        with self._log().open("ab") as log:
            self._process = process = subprocess.Popen(
                [command, str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env=ENVIRONMENT,
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
            )
        self._watch(process.pid)
        wait_until(lambda: process.poll() is not None or self._listens(), _SECONDS)
        if process.poll() is None and self._listens():
            return True
        self.stop()
        return False

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _log(self) -> Path:
        assert self._root is not None
        return self._root / "pgbouncer.log"

    def _watch(self, pid: int | None) -> None:
        if self._watchdog is not None:
            self._watchdog.watch(pid)


def _version(command: str) -> tuple[int, ...]:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))
