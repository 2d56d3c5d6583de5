"""Install the system packages that the tests use: as root with apt-get, if no systemd runs.

The packages are PgBouncer, SQLite's shell, which the documentation's examples call, and what
PyInstaller needs: objcopy, and the shared library of Debian's Python. Each step is tried once,
quietly, for a bounded time. If it fails, the suite says which tests it skips.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from ctypes.util import find_library
from pathlib import Path

PROGRAMS = {"pgbouncer": "pgbouncer", "sqlite3": "sqlite3", "binutils": "objcopy"}
"""By package: the program that it brings."""
SECONDS = 60.0
"""Seconds for each step. Only the installation itself changes the system: it needs no network."""
_APT = ["apt-get", "--quiet", "--option=Acquire::Retries=0"]
_INSTALL = [*_APT, "install", "--yes", "--no-install-recommends"]


def ensure() -> None:
    """Install each missing package, if possible. Never raises."""
    missing = _missing()
    if not missing or not _may_install():
        return
    for package in missing:
        print(f"== {package} is not here: trying to install it", file=sys.stderr, flush=True)
        download = [*_INSTALL, "--download-only", package]
        found = _runs(download) or (_runs([*_APT, "update"]) and _runs(download))
        if not (found and _runs([*_INSTALL, "--no-download", package])):
            print(
                "== it could not be installed; its tests are skipped", file=sys.stderr, flush=True
            )


def _missing() -> list[str]:
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    packages = [name for name, program in PROGRAMS.items() if not shutil.which(program, path=path)]
    version = sysconfig.get_python_version()
    # A Python that somebody built in another place brings its library, or was built without it.
    if sys.base_prefix == "/usr" and not find_library(f"python{version}"):
        packages.append(f"libpython{version}")
    return packages


def _may_install() -> bool:
    # If systemd runs, the package would start a daemon that nobody asked for.
    systemd = Path("/run/systemd/system").exists()
    return os.geteuid() == 0 and not systemd and shutil.which("apt-get") is not None


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
