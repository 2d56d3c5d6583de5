"""The README's Python examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ledgers import NEW, OLD, opened, refused
from secret_ledger import Key, Keyring, StaleKey

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ONE_NODE, FLEET = (
    [line.removeprefix("$ ") for line in block.splitlines()]
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    if "keys rotate" in block and "--watch" not in block
)
"""The two rotations, as they are typed."""


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
    import secret_ledger

    rows = re.findall(r"^\| `(\w+)` (\d+) \|", README, re.MULTILINE)
    assert rows
    for name, exit_code in rows:
        assert getattr(secret_ledger, name).exit_code == int(exit_code)


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

    pin = run("-m", "secret_ledger", "init").strip()
    name, _, value = pin.partition("=")
    environ[name] = value
    for example in [*EXAMPLES, *EXAMPLES]:
        run("-c", example)
    assert {file.name for file in tmp_path.glob("*.db")} == {"app.db"}


def typed(lines: Sequence[str], url: str, folder: Path, **settings: str) -> str:
    """What a shell prints that is told these lines."""
    environ = {name: value for name, value in os.environ.items() if "OS_SECRET" not in name}
    environ |= {"OS_SECRET_LEDGER_URL": url, **settings}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(lines)],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_rotation_on_one_node_runs_as_it_stands(
    database_url: str, tmp_path: Path
) -> None:
    assert len(ONE_NODE) == 5
    async with opened(database_url, OLD) as ledger:
        await ledger.put("db/password", "s3cr3t")
    old = OLD.text().reveal_text()
    new = typed([*ONE_NODE, "printenv OS_SECRET_KEY"], database_url, tmp_path, OS_SECRET_KEY=old)
    async with opened(database_url, Key.parse(new.split()[-1]), verify="latest") as ledger:
        assert (await ledger.get("db/password")).value.reveal() == b"s3cr3t"
    await refused(database_url, StaleKey, OLD)


async def test_the_rotation_of_a_fleet_runs_as_it_stands_beside_its_nodes(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url, OLD) as first, opened(database_url, OLD) as second:
        await first.put("db/password", "s3cr3t")
        for node in (first, second):  # deployed to each
            await node.reload_keys(Keyring.of(NEW, [OLD]))
        typed(
            [line.replace("KEY_ID", "k-old") for line in FLEET],
            database_url,
            tmp_path,
            OS_SECRET_KEY=NEW.text().reveal_text(),
            OS_SECRET_KEY_ID="k-new",
            OS_SECRET_PREVIOUS_KEYS=f"k-old={OLD.text().reveal_text()}",
        )
        for node in (first, second):
            assert (await node.put("db/password", "next")).key_id == "k-new"
            assert (await node.get("db/password", version=1)).value.reveal() == b"s3cr3t"
    async with opened(database_url, NEW, verify="full") as ledger:
        assert [(key.key_id, key.state) for key in await ledger.key_history()] == [
            ("k-old", "retired"),
            ("k-new", "active"),
        ]
