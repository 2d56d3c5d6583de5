"""Show the promises of the ledger on a SQLite file of its own, and check each step.

./scripts/demo makes the environment and starts this file. Exits with 0 only if every step
happened. Every value is made up at run time. The keys live as long as this process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from secret_ledger import Key, Keyring, SecretLedger

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
SHOWN = "datasource/warehouse-007/password"


class Failed(Exception):
    """A step did not happen as it should."""


class Demo:
    """The file, the keys in the settings, and the steps taken so far."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "demo.db"
        self.url = f"sqlite+aiosqlite:///{self.file}"
        self.steps = 0
        self.values = _secrets()
        self.old, self.new = Key.generate("k-2026-10"), Key.generate("k-2026-11")

    def settings(
        self, current: Key | None, *previous: Key, file: Path | None = None
    ) -> dict[str, str]:
        """Make the environment of one command, with these keys."""
        environ = {name: value for name, value in os.environ.items() if "OS_SECRET_" not in name}
        environ.pop("CREDENTIALS_DIRECTORY", None)
        environ["OS_SECRET_LEDGER_URL"] = f"sqlite+aiosqlite:///{file or self.file}"
        if current is not None:
            environ["OS_SECRET_KEY"] = current.text().reveal_text()
            if current.key_id:
                environ["OS_SECRET_KEY_ID"] = current.key_id
        if previous:
            texts = (f"{key.key_id}={key.text().reveal_text()}" for key in previous)
            environ["OS_SECRET_PREVIOUS_KEYS"] = ",".join(texts)
        return environ

    def step(self, text: str) -> None:
        self.steps += 1
        print(f"\n{self.steps}. {text}", flush=True)

    def run(
        self,
        environ: Mapping[str, str],
        *words: str,
        value: bytes = b"",
        expect: int = 0,
        show: int = 0,
    ) -> bytes:
        """Run the real command and return its stdout.

        `show`: lines of stdout to print. Raises Failed if the exit code is not `expect`, or if
        stderr holds a traceback.
        """
        done = subprocess.run(
            [sys.executable, "-m", "secret_ledger", *words],
            cwd=ROOT,
            env=dict(environ),
            input=value,
            capture_output=True,
            check=False,
        )
        print(f"   $ secret-ledger {' '.join(words)}")
        remarks = done.stderr.decode().splitlines()
        lines = done.stdout.decode(errors="replace").splitlines()[:show]
        for line in lines:
            _say(line.replace("\t", "  "))
        hint = False  # the hint comes last, and may have several lines
        for line in remarks:
            hint = hint or line.startswith("hint:")
            if hint or line.startswith(("error:", "note:")):
                _say(line, whole=True)
        if "Traceback" in done.stderr.decode():
            raise Failed("there was a traceback")
        if done.returncode != expect:
            _say(done.stderr.decode())
            raise Failed(f"exit code {done.returncode}, not {expect}")
        if expect:
            _say(f"-> refused, exit code {done.returncode}, as it must be")
        return done.stdout

    def check(self, what: str, *, holds: bool) -> None:
        if not holds:
            raise Failed(f"not so: {what}")
        _say(f"-> {what}")


def _say(line: str, *, whole: bool = False) -> None:
    """A line longer than WIDTH is cut, or folded if it must be shown `whole`."""
    cut = line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
    for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ") if whole else [cut]:
        print("     " + part, flush=True)


def _secrets() -> dict[str, str]:
    """300 secrets, named as on a platform. Each value is random and new."""
    found: dict[str, str] = {}
    for number in range(150):
        found[f"datasource/warehouse-{number:03}/password"] = secrets.token_urlsafe(18)
    for number in range(100):
        found[f"api/partner-{number:03}/key"] = secrets.token_hex(32)
    for number in range(50):
        found[f"tenant/{number:03}/smtp/password"] = secrets.token_urlsafe(12)
    return found


async def write_and_read(demo: Demo) -> None:
    """Write and read all secrets as a service does, embedded. Raises Failed if a value differs."""
    began = time.monotonic()
    async with SecretLedger.open(demo.url, Keyring.of(demo.old), create=False) as ledger:
        await ledger.put_many(demo.values, actor="demo")
        wrote = time.monotonic()
        _say(f"await ledger.put_many(...): {len(demo.values)} secrets, one transaction")
        for name, value in demo.values.items():
            if (await ledger.get(name)).value.reveal_text() != value:
                raise Failed(f"{name} came back different")
        read = time.monotonic()
        got = await ledger.get(SHOWN)
        _say(f"print(got.value) shows: {got.value}")
    demo.check(
        f"all {len(demo.values)} came back as written; wrote in {wrote - began:.2f} s,"
        f" read in {read - wrote:.2f} s",
        holds=True,
    )


def sys_secret(file: Path) -> tuple[list[tuple[str, int, str, str, str]], dict[str, int]]:
    """Read the projection by plain SQL, as a BI tool does: some rows, and the number by state."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as plain:
        rows = plain.execute(
            "SELECT name, version, state, key_id, updated_by FROM sys_secret"
            " WHERE name BETWEEN 'datasource/warehouse-006' AND 'datasource/warehouse-009'"
            " ORDER BY name"
        ).fetchall()
        states = plain.execute("SELECT state, count(*) FROM sys_secret GROUP BY state").fetchall()
    return rows, dict(states)


def flip(demo: Demo, name: str, copy: Path) -> int:
    """Copy the file with one bit of the secret's sealed bytes flipped; return the byte's offset."""
    with closing(sqlite3.connect(demo.file)) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (sealed,) = plain.execute(
            "SELECT sealed FROM secret_event WHERE stream = ? ORDER BY version DESC LIMIT 1",
            (name,),
        ).fetchone()
    content = bytearray(demo.file.read_bytes())
    if content.count(sealed) != 1:
        raise Failed("the sealed bytes do not lie in the file exactly once")
    place = content.index(sealed) + len(sealed) // 2
    content[place] ^= 0x01
    copy.write_bytes(content)
    return place


def stored_in_clear(folder: Path, values: Sequence[str]) -> int:
    """Count the values that the database's files hold in clear."""
    content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return sum(value.encode() in content for value in values)


def show(demo: Demo) -> None:
    right = demo.settings(demo.old)
    name = SHOWN

    demo.step("A new ledger, in a file that did not exist. `init` prints the line that pins it.")
    demo.run(right, "init", "--shell", show=1)

    demo.step("A service writes its secrets and reads them back.")
    asyncio.run(write_and_read(demo))

    demo.step("The same secret through the command line: the value comes from a pipe.")
    demo.values[name] = secrets.token_urlsafe(18)
    demo.run(
        right, "put", name, "--expect", "1", "--actor", "alice", value=demo.values[name].encode()
    )
    got = demo.run(right, "get", name)
    demo.check(
        f"{len(got)} bytes came back, the ones that were written",
        holds=got.decode() == demo.values[name],
    )
    demo.run(right, "put", name, "--expect", "1", value=b"too late", expect=22)

    demo.step("Delete, and restore. A deleted secret is never a default value.")
    demo.run(right, "delete", "api/partner-042/key", "--actor", "bob")
    demo.run(right, "get", "api/partner-042/key", expect=21)
    demo.run(right, "delete", name, "--actor", "bob")
    demo.run(right, "restore", name, "--actor", "alice")

    demo.step("The current view, `sys_secret`: SELECT name, version, state, key_id, updated_by …")
    rows, states = sys_secret(demo.file)
    for row in rows:
        _say("  ".join(str(cell) for cell in row))
    demo.check(f"by state: {states}", holds=states == {"live": 299, "deleted": 1})
    demo.run(right, "projections", "check")

    demo.step("The history of one secret: who, when, under which key. Values are not part of it.")
    demo.run(right, "history", name, show=9)

    demo.step("What lies in the file.")
    demo.check(
        f"of {len(demo.values)} values, 0 can be found in the database's files",
        holds=stored_in_clear(demo.file.parent, list(demo.values.values())) == 0,
    )

    demo.step("Reopened with the right key: every event and every chain is proven.")
    demo.run(right, "verify", "--level", "full", show=2)

    demo.step(
        "Reopened with a wrong key (a fresh random one, as in the failure that started this)."
    )
    wrong = demo.settings(Key.generate())
    demo.run(wrong, "get", name, expect=11)
    demo.run(wrong, "put", name, value=b"never written", expect=11)
    events = len(demo.run(right, "history", name).splitlines())
    demo.check(f"{name} still has {events} versions", holds=events == 4)
    demo.run(right, "nodes", show=1)

    demo.step("Reopened without any key: none is made up.")
    demo.run(demo.settings(None), "verify", expect=10)

    demo.step(f"The key is rotated from {demo.old.key_id} to {demo.new.key_id}; a write follows.")
    both = demo.settings(demo.new, demo.old)
    demo.run(both, "keys", "rotate", show=2)
    demo.run(both, "put", "datasource/new/password", value=secrets.token_hex(8).encode())
    demo.run(both, "keys", "status", show=2)
    demo.run(both, "verify", show=3)

    demo.step("A node that missed the rotation (only the old key) is refused as stale.")
    demo.run(right, "put", name, value=b"never written", expect=14)

    demo.step("A node without the previous key: the old secrets are missing a key, by name.")
    demo.run(demo.settings(demo.new), "get", name, expect=13)
    demo.run(demo.settings(demo.new), "verify", expect=13)

    demo.step(
        "The latest versions are sealed again under the new key; older ones stay as they are."
    )
    demo.run(both, "keys", "rekey", show=1)
    got = demo.run(demo.settings(demo.new), "get", name)
    demo.check("without the old key it opens", holds=got.decode() == demo.values[name])
    demo.run(demo.settings(demo.new), "verify", show=2)
    demo.run(demo.settings(demo.new), "get", name, "--version", "2", expect=13)

    demo.step("One bit of one sealed value flipped in a copy of the file.")
    copy = demo.file.with_name("damaged.db")
    place = flip(demo, name, copy)
    _say(f"flipped a bit of byte {place:,} of {copy.stat().st_size:,}")
    damaged = demo.settings(demo.new, demo.old, file=copy)
    demo.run(damaged, "get", name, expect=12)
    demo.run(damaged, "verify", expect=12)
    other = "datasource/warehouse-008/password"
    got = demo.run(damaged, "get", other)
    demo.check("its neighbours still open", holds=got.decode() == demo.values[other])

    demo.step("The undamaged file, once more, with both keys.")
    demo.run(both, "verify", "--level", "full", show=3)


def main() -> int:
    for setting in [name for name in os.environ if "OS_SECRET_" in name]:
        del os.environ[setting]  # keeps off the caller's own ledger
    print("Secret Ledger: what it does, on a SQLite file that is removed at the end.")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="secret-ledger-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            show(demo)
        except Failed as failure:
            print(f"\nerror: step {demo.steps}: {failure}", file=sys.stderr)
            return 1
    print(f"\nAll {demo.steps} steps happened as they should, in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
