"""Make the virtual environment that a script needs, then become that script.

    python scripts/_environment.py {cli,test,minimums,bench} scripts/some_script.py [argument ...]

Environments live in .venv/, one for each Python version and purpose. An environment is whole only
if its stamp says so. The stamp is written last: if a run is killed, the next run makes the
environment anew. A run makes it under an exclusive lock and uses it under a shared lock, so that
scripts can run side by side.

Runs on a bare Python 3.11 or newer: standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"cli": "cli", "test": "test", "minimums": "test", "bench": "bench"}


def main() -> None:
    purpose, script, *arguments = sys.argv[1:]
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    environment = _usable(_environments(purpose), project)
    python = environment / "bin" / "python"
    os.environ["SECRET_LEDGER_ENVIRONMENT"] = purpose
    os.execv(python, [str(python), str(ROOT / script), *arguments])


def _environments(purpose: str) -> list[Path]:
    """The best environment comes first. If none is whole, the last is made."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
    folder = ROOT / ".venv"
    own = folder / f"{version}-{purpose}"
    return [folder / f"{version}-test", own] if purpose == "cli" else [own]


def _usable(environments: list[Path], project: dict[str, Any]) -> Path:
    try:
        (ROOT / ".venv").mkdir(exist_ok=True)
        for environment in environments:
            if _take(environment, project, make=environment is environments[-1]):
                return environment
    except PermissionError as error:
        raise failure(
            f"{error.filename} can't be written", "run as the owner of this checkout"
        ) from None
    raise AssertionError("the last environment is always made")


def _take(environment: Path, project: dict[str, Any], *, make: bool) -> bool:
    """Holds a shared lock on a whole environment. The script that we become inherits the lock."""
    lock = os.open(environment.with_name(environment.name + ".lock"), os.O_RDWR | os.O_CREAT)
    while True:
        _wait_for(lock, fcntl.LOCK_SH, environment)
        if _is_whole(environment, project):
            os.set_inheritable(lock, True)
            return True
        if not make:
            os.close(lock)
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        _wait_for(lock, fcntl.LOCK_EX, environment)
        if not _is_whole(environment, project):  # else another run was quicker
            _make(environment, project, lock)
        fcntl.flock(lock, fcntl.LOCK_UN)


def _wait_for(lock: int, kind: int, environment: Path) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another run that makes or uses .venv/{environment.name}")
        fcntl.flock(lock, kind)


def _is_whole(environment: Path, project: dict[str, Any]) -> bool:
    try:
        return (environment / "stamp").read_text("utf-8") == _stamp(environment, project)
    except OSError:
        return False


def _stamp(environment: Path, project: dict[str, Any]) -> str:
    """Covers all that an environment depends on, but not the tools' settings in pyproject.toml."""
    parts = {
        "python": [platform.python_version(), str(_interpreter().resolve())],
        "place": str(environment),
        "packaging": [project["build-system"], project["project"], project["tool"].get("hatch")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest() + "\n"


def _interpreter() -> Path:
    """The base Python, also if the Python of a virtual environment runs this script."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def _make(environment: Path, project: dict[str, Any], lock: int) -> None:
    version = platform.python_version()
    say(f"making .venv/{environment.name} with Python {version} (about a minute, once)")
    if environment.exists():
        shutil.rmtree(environment)
    pip = _make_bare(environment, lock)
    purpose = environment.name.partition("-")[2]
    constraints = environment / "constraints.txt"
    bounds = _lower_bounds(project["project"]) if purpose == "minimums" else []
    constraints.write_text("".join(f"{bound}\n" for bound in bounds), "utf-8")
    _run(
        [
            *(*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--constraint", str(constraints), "--editable", f"{ROOT}[{EXTRAS[purpose]}]"),
        ],
        "pip could not install the dependencies (above: what it says)",
        "it needs a package index; PIP_INDEX_URL and PIP_PROXY name yours",
        lock,
    )
    partial = environment / "stamp.partial"
    partial.write_text(_stamp(environment, project), "utf-8")
    partial.rename(environment / "stamp")


def _make_bare(environment: Path, lock: int) -> list[str]:
    """Uses the modules that this machine has. Returns the pip that fills the environment."""
    interpreter = str(_interpreter())
    python = str(environment / "bin" / "python")
    failed = "the virtual environment could not be made (above: why)"
    has = {
        module: importlib.util.find_spec(module) is not None
        for module in ("venv", "ensurepip", "virtualenv", "pip")
    }
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    hint = f"apt-get install python3-venv (for a Python beside the system's: python{version}-venv)"
    if has["venv"] and has["ensurepip"]:
        _run([interpreter, "-m", "venv", str(environment)], failed, hint, lock)
        return [python, "-m", "pip"]
    if has["virtualenv"]:
        say("this Python has no ensurepip; using virtualenv")
        _run([interpreter, "-m", "virtualenv", "--quiet", str(environment)], failed, hint, lock)
        return [python, "-m", "pip"]
    if has["venv"] and has["pip"]:
        say("this Python has no ensurepip; using its own pip")
        _run([interpreter, "-m", "venv", "--without-pip", str(environment)], failed, hint, lock)
        return [interpreter, "-m", "pip", "--python", python]
    missing = "ensurepip" if has["venv"] else "venv"
    text = f"{interpreter} can't make virtual environments: it has no module {missing}"
    raise failure(text, hint)


def _lower_bounds(project: dict[str, Any]) -> list[str]:
    """Pins the oldest versions that pyproject.toml allows of the packages that users install."""
    bounds = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["cli"]]:
        found = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)(?:,.*)?", requirement)
        if found is None:
            raise failure(
                f"no lower bound in {requirement!r}", "declare one in pyproject.toml: name>=x.y"
            )
        bounds.append(f"{found[1]}=={found[2]}")
    return bounds


def _run(command: list[str], failed: str, hint: str, lock: int) -> None:
    """The command holds the lock too: if this process is killed, the next run waits for its end."""
    environ = {**os.environ, "PIP_USER": "0"}  # pip refuses --user, which a host may set, in a venv
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environ.pop(name, None)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=(lock,),
        check=False,
    )
    if done.returncode != 0:
        raise failure(failed, hint)


def say(text: str) -> None:
    print(f"environment: {text}", file=sys.stderr, flush=True)


def failure(text: str, hint: str) -> SystemExit:
    print(f"error: {text}\nhint: {hint}", file=sys.stderr, flush=True)
    return SystemExit(2)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
    sys.exit(130)
