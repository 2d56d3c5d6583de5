"""Run a script under a Python version that this machine may not have.

    python scripts/_debian_sid.py 3.15 scripts/test [argument ...]

If PATH has a `python3.15`, the script runs under it. Else, as root, a Debian sid is made under
`.venv/` (with debootstrap, about a minute, once), and the script runs with that as its root. Its
mounts and processes have namespaces of their own: they are gone when the script has ended.

Runs on a bare Python 3.11 or newer: standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from _environment import ROOT, failure, say

PACKAGES = ["binutils", "ca-certificates", "git", "pgbouncer", "procps", "sqlite3"]
PIP_SETTINGS = ("etc/pip.conf", "etc/xdg/pip", "root/.config/pip", "root/.pip")
KEPT = re.compile(
    r"PIP_|SSL_|CI$|TERM$|PYTEST_ADDOPTS$|HYPOTHESIS_|LANG$|SECRET_LEDGER_TEST_|(?i:https?_proxy|no_proxy)$"
)
"""Names of the variables that the script keeps."""

# `exec` comes last: the script takes the shell's place, and unshare returns its exit code.
INSIDE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mkdir -p "$1$2" "$1/outside"
mount --bind "$2" "$1$2"
cd "$1"
shift 2
pivot_root . outside
cd /
umount --lazy /outside
exec "$@"
"""


def main() -> None:
    version, script, *arguments = sys.argv[1:]
    if not re.fullmatch(r"3\.\d+", version):
        raise failure(f"{version!r} is no version of Python", "for example: --python 3.15")
    python = f"python{version}"
    if shutil.which(python):
        os.environ["PYTHON"] = python
        os.execv(ROOT / script, [str(ROOT / script), *arguments])
    _check_possible(python)
    root = ROOT / ".venv" / f"sid-{version}"
    root.parent.mkdir(exist_ok=True)
    lock = os.open(root.with_name(root.name + ".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until the end: two runs would share its /tmp
    wanted = ",".join([python, f"{python}-venv", f"lib{python}", *PACKAGES])
    stamp = root / "packages"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        _make(root, python, wanted)
    _settings_of_pip(root)
    os.execvpe("unshare", _command(root, python, script, arguments), _environ())


def _check_possible(python: str) -> None:
    hint = (
        f"install {python} and its venv module, or run as root on a Debian: {python} is then taken"
        " from Debian sid, under .venv/"
    )
    if os.geteuid() != 0:
        raise failure(f"no {python} on PATH, and only root can make a Debian that has it", hint)
    if shutil.which("debootstrap") is None and shutil.which("apt-get") is not None:
        say("installing debootstrap")
        _run(["apt-get", "--quiet", "update"])
        _run(["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", "debootstrap"])
    missing = [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]
    if missing:
        raise failure(f"no {python} on PATH, and no {missing[0]} to get it with", hint)


def _make(root: Path, python: str, wanted: str) -> None:
    say(f"making .venv/{root.name}, a Debian sid with {python} (about a minute, once)")
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={wanted}", "sid", str(partial)]
    if not _run([*command, *_mirror()]):
        log = partial / "debootstrap" / "debootstrap.log"
        last = log.read_text("utf-8", "replace").splitlines()[-5:] if log.exists() else []
        raise failure(
            "debootstrap could not make a Debian sid: " + "; ".join(last),
            f"is there a {python} in Debian sid, and is its archive reached?",
        )
    (partial / "packages").write_text(wanted, "utf-8")
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


def _mirror() -> list[str]:
    """The mirror of this machine's own packages. If empty, debootstrap takes its default."""
    apt = Path("/etc/apt")
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
        found = re.search(r"^(?:URIs:\s*|deb\s+(?:\[.*?\]\s+)?)(\S+/debian/?)(?:\s|$)", text, re.M)
        if found:
            return [found[1]]
    return []


def _settings_of_pip(root: Path) -> None:
    """Inside, pip must find the same packages and trust the same certificates as outside."""
    for name in (*PIP_SETTINGS, "etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf"):
        outside, inside = Path("/") / name, root / name
        if outside.is_dir():
            shutil.copytree(outside, inside, dirs_exist_ok=True)
        elif outside.is_file():
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.unlink(missing_ok=True)
            shutil.copyfile(outside, inside)


def _command(root: Path, python: str, script: str, arguments: list[str]) -> list[str]:
    run = shlex.join([str(ROOT / script), *arguments])
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("sh", "-c", INSIDE, "sh", str(root), str(ROOT)),
        *("sh", "-c", f"cd {shlex.quote(str(ROOT))} && PYTHON={python} exec {run}"),
    ]


def _environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if KEPT.match(name)}
    return {
        "LANG": "C.UTF-8",
        **kept,
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def _run(command: list[str]) -> bool:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
