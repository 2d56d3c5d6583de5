"""The README's Python examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import Key

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if "OS_SECRET" not in name}
    environ["OS_SECRET_KEY"] = Key.generate().text().reveal_text()
    environ["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_has_the_examples_that_it_promises() -> None:
    assert len(EXAMPLES) >= 4
    assert any("fold" in example for example in EXAMPLES)


def test_every_table_of_the_readme_that_names_errors_names_real_ones() -> None:
    import ledger

    rows = re.findall(r"^\| `(\w+)` (\d+) \|", README, re.MULTILINE)
    assert rows
    for name, exit_code in rows:
        assert getattr(ledger, name).exit_code == int(exit_code)


def test_the_examples_run_one_after_the_other_and_again_on_the_pinned_ledger(
    tmp_path: Path,
) -> None:
    environ = {name: value for name, value in os.environ.items() if "OS_SECRET" not in name}
    environ["OS_SECRET_KEY"] = Key.generate().text().reveal_text()
    environ["OS_SECRET_LEDGER_URL"] = "sqlite+aiosqlite:///app.db"
    environ["PYTHONPATH"] = str(ROOT)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pin = run("-m", "ledger", "init").strip().removeprefix("export ")
    name, _, value = pin.partition("=")
    environ[name] = value
    for example in [*EXAMPLES, *EXAMPLES]:
        run("-c", example)
    assert {file.name for file in tmp_path.glob("*.db")} == {"app.db"}
