"""`./scripts/test --python X.Y`: what is on PATH is taken, and what is missing is said."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
LAUNCHER = SCRIPTS / "_debian_sid.py"


def executable(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path


def test_a_python_on_path_is_taken_as_it_is(tmp_path: Path) -> None:
    executable(tmp_path / "python3.99", "#!/bin/sh\n")
    script = executable(tmp_path / "script", '#!/bin/sh\necho "$PYTHON" "$@"; exit 7\n')
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), "3.99", str(script), "-k", "a test"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "python3.99 -k a test\n"), done.stderr


@pytest.mark.parametrize(
    ("version", "user", "said"),
    [
        ("", 0, "error: '' is no version of Python\nhint: for example: --python 3.15\n"),
        ("3.15; ls", 0, "is no version of Python"),
        ("3.99", 1000, "error: no python3.99 on PATH, and only root can make a Debian"),
        ("3.99", 0, "error: no python3.99 on PATH, and no debootstrap to get it with\nhint: inst"),
    ],
)
def test_what_it_needs_is_said_before_anything_is_made(
    version: str,
    user: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(sys, "argv", [str(LAUNCHER), version, "scripts/test"])
    monkeypatch.syspath_prepend(str(SCRIPTS))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(LAUNCHER), run_name="__main__")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (SCRIPTS.parent / ".venv" / "sid-3.99").exists()
