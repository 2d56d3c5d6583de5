"""The demo shows what it says, and ends with 0 only if all of it happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_demo_refuses_each_bad_reopening_and_ends_with_0(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    environ["OS_SECRET_LEDGER_ID"] = "00" * 16  # somebody's own settings are no part of it
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for code in (10, 11, 12, 13, 14, 21, 22):
        assert f"-> refused, exit code {code}, as it must be" in done.stdout
    assert "steps happened as they should" in done.stdout
    assert list(tmp_path.iterdir()) == []
