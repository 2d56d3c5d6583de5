"""Get what the tests use of the system where that is nobody's loss: as root in a container with
apt-get.

PgBouncer, and the shared library of Debian's Python, without which PyInstaller freezes nothing.
Tried once, quietly, for a bounded time. Where it fails the suite says what it could not try.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from ctypes.util import find_library
from pathlib import Path

SECONDS = 60.0
"""For each step. Only the installation itself changes the system, and it needs no network."""
_APT = ["apt-get", "--quiet", "--option=Acquire::Retries=0"]
_INSTALL = [*_APT, "install", "--yes", "--no-install-recommends"]


def ensure() -> None:
    """Install each package, unless it is there or can't be had. Never raises."""
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
    packages = []
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    if not shutil.which("pgbouncer", path=path):
        packages.append("pgbouncer")
    version = sysconfig.get_python_version()
    # A Python that somebody built, in a place of its own, brings its library or was made without.
    if sys.base_prefix == "/usr" and not find_library(f"python{version}"):
        packages.append(f"libpython{version}")
    return packages


def _may_install() -> bool:
    # Where systemd runs, the package would start a daemon that nobody asked for.
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
