"""Run every check of the project, also after a check has failed, and print the result.

With arguments, only pytest runs, with these arguments. In the environment of oldest dependencies
(./scripts/test --minimums) only pytest runs, because the tools have one fixed version. It leaves
out tests on which the versions of libraries have no effect.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import _system_packages

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
IMPORT_LINTER = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"

STATIC: list[tuple[str, list[str]]] = [
    ("ruff check", [*PYTHON, "ruff", "check", "."]),
    ("ruff format", [*PYTHON, "ruff", "format", "--check", "."]),
    ("mypy --strict", [*PYTHON, "mypy"]),
    ("import contracts", [sys.executable, "-c", IMPORT_LINTER, "--no-logo", "--no-cache"]),
]

# On SQLite only Python's own module lies between a unit of work and the database. So these long
# tests, which draw, fork and kill, show nothing new on the oldest dependencies. The documentation
# and the models are the same on all of them.
OLDEST = (
    "not (sqlite and (test_any_sequence or test_histories or test_crash or test_fleet"
    " or test_key_crash or test_key_killed or test_move_killed or test_linearizability))"
    " and not (test_documentation or test_how_to or test_demo or test_reference"
    " or test_contributing or test_campaign or test_format_model)"
)

MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
LOCK = "lock"
ENOUGH = 4 * 1024**3
"""Bytes that must be free in MEMORY: several times what a run was seen to take."""


def main() -> int:
    arguments = sys.argv[1:]
    oldest = os.environ.get("SECRET_LEDGER_ENVIRONMENT") == "minimums"
    whole = not arguments and not oldest
    pytest = [*PYTHON, "pytest", *(arguments or _workers())]
    if oldest and not arguments:
        pytest += ["-k", OLDEST]
    steps = [*(STATIC if whole else []), ("tests", pytest)]
    if not arguments:
        _system_packages.ensure()

    failed = []
    began = time.monotonic()
    with _temporary_folder() as environ:
        for number, (name, command) in enumerate(steps, 1):
            print(f"== {number}/{len(steps)} {name}", flush=True)
            done = subprocess.run(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, check=False
            )
            if done.returncode != 0:
                failed.append(f"{name} (exit {done.returncode})")

    seconds = time.monotonic() - began
    if failed:
        print(f"== not green after {seconds:.0f} s: {', '.join(failed)}", flush=True)
        return 1
    print(f"== all green: {len(steps)} of {len(steps)} steps in {seconds:.0f} s", flush=True)
    return 0


@contextmanager
def _temporary_folder() -> Iterator[dict[str, str]]:
    """Yields the steps' environment. If memory has room, the temporary folder lies in memory.

    No test needs a disk, and the tests make and drop thousands of databases.
    """
    if "TMPDIR" in os.environ or not _may_use_memory():
        yield dict(os.environ)
        return
    prefix = "secret-ledger-tests-"
    for left in MEMORY.glob(f"{prefix}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY))
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until we end, however we end
        folder.chmod(0o755)  # so that the server's user reaches its own folder inside
        try:
            yield {**os.environ, "TMPDIR": str(folder)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a run that was killed: nobody holds its lock."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # a run that goes on, or one that has just begun
        return


def _may_use_memory() -> bool:
    """True if /dev/shm has room, and allows programs to run there."""
    try:
        if shutil.disk_usage(MEMORY).free < ENOUGH:
            return False
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            program = Path(folder, "program")
            program.write_text("#!/bin/sh\n", "utf-8")
            program.chmod(0o700)
            return subprocess.run([program], check=False).returncode == 0
    except OSError:
        return False


def _workers() -> list[str]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [f"--numprocesses={min(count or 1, 4)}", "--dist=worksteal"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
