"""Programs made of the wheel as it is published: frozen by PyInstaller, or run from a zip."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from types import MappingProxyType
from typing import Any, Final

from cli_session import KEY

ROOT: Final = Path(__file__).resolve().parent.parent

# Asks for every name that the package publishes, as each of them is imported by its name alone.
PROGRAM: Final = """
import asyncio, json, sys
import secret_ledger
from secret_ledger import Key, Keyring, SecretLedger

told = json.load(sys.stdin)
published = [getattr(secret_ledger, name) for name in secret_ledger.__all__]

async def main():
    async with SecretLedger.open(told["url"], Keyring.of(Key.parse(told["key"]))) as opened:
        await opened.put("a", told["value"])
        got = await opened.get("a")
        report = await opened.verify("full")
        (node,) = await opened.nodes()
        print(json.dumps({
            "package": secret_ledger.__path__[0],
            "length": len(got.value.reveal()),
            "ok": report.ok,
            "release": node.release,
        }))

asyncio.run(main())
"""
COMMAND_LINE: Final = """
import sys
from secret_ledger.cli import main
sys.exit(main())
"""

# One analysis serves both programs. What is excluded saves seconds: dialects of other databases,
# and what rich colours source code with.
_SPEC: Final = """
found = Analysis(
    ["program.py", "command_line.py"],
    excludes=[
        "pygments", "markdown_it", "setuptools", "unittest",
        "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.oracle", "sqlalchemy.dialects.mssql",
    ],
)
modules = PYZ(found.pure)
ours = ["program", "command_line"]
shared = [script for script in found.scripts if script[0] not in ours]

def program(name):
    own = [script for script in found.scripts if script[0] == name]
    return EXE(modules, shared + own, exclude_binaries=True, name=name)

COLLECT(*map(program, ours), found.binaries, found.datas, name="frozen")
"""

_FIND_PYTHON_LIBRARY: Final = """
from PyInstaller.depend.bindepend import get_python_library_path
from PyInstaller.exceptions import PythonLibraryNotFoundError
try:
    get_python_library_path()
except PythonLibraryNotFoundError as error:
    print(error)
"""


class CannotFreeze(Exception):
    """PyInstaller can't freeze anything with this Python."""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    """A folder for PYTHONPATH that holds what pip would have installed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def zip_application(wheel: Path, zipped: Path) -> Path:
    """`PROGRAM` in one file with the package; the dependencies stay where they are installed."""
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(zipped, "w") as application:
        for name in archive.namelist():
            application.writestr(name, archive.read(name))
        application.writestr("__main__.py", PROGRAM)
    return zipped


def freeze_once(shared: Path) -> Path:
    """The folder of the frozen programs. Whoever comes first makes it, the others wait.

    Raises CannotFreeze if Python's shared library is not installed.
    """
    _require_python_library()
    with (shared / "frozen.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = shared / "frozen"
        if not work.exists():
            work.mkdir()
            _freeze(work)
        frozen = work / "dist" / "frozen"
        assert frozen.is_dir(), f"PyInstaller failed: {(work / 'log').read_text('utf-8')[-4000:]}"
        return frozen


def _freeze(work: Path) -> None:
    installed = unpack(build_wheel(work), work / "installed")
    for name, text in (
        ("program.py", PROGRAM),
        ("command_line.py", COMMAND_LINE),
        ("programs.spec", _SPEC),
    ):
        (work / name).write_text(text, "utf-8")
    environ = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "PYINSTALLER_CONFIG_DIR": str(work / "configuration"),
    }
    if which("objdump") is None:
        environ["PATH"] = f"{_stand_in_for_objdump(work)}{os.pathsep}{os.environ['PATH']}"
    with (work / "log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "PyInstaller", "--noconfirm", "programs.spec"],
            cwd=work,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )


def _require_python_library() -> None:
    # Debian's Python is linked statically, and its shared library is a package of its own.
    done = subprocess.run(
        [sys.executable, "-c", _FIND_PYTHON_LIBRARY],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    if done.stdout:
        reason = done.stdout.strip().replace("ERROR: ", "")
        raise CannotFreeze(f"nothing was frozen with PyInstaller: {reason}")


def _stand_in_for_objdump(work: Path) -> Path:
    """PyInstaller asks binutils' objdump if a file that begins as ELF is ELF: here, each one is."""
    folder = work / "bin"
    folder.mkdir()
    program = folder / "objdump"
    program.write_text("#!/bin/sh\nexit 0\n", "utf-8")
    program.chmod(0o755)
    return folder


def run_program(
    command: list[str],
    url: str,
    value: str,
    folder: Path,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `PROGRAM` says after it has stored `value`."""
    ours = ("OS_SECRET_", "PYTHON")
    done = subprocess.run(
        command,
        input=json.dumps({"url": url, "key": KEY.text().reveal_text(), "value": value}),
        env={
            **{name: kept for name, kept in os.environ.items() if not name.startswith(ours)},
            **environ,
        },
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
