"""Programs that embed the ledger run frozen by PyInstaller, and from a zip; the wheel holds all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cli_process import environment
from freezing import (
    PROGRAM,
    ROOT,
    CannotFreeze,
    build_wheel,
    freeze_once,
    run_program,
    unpack,
    zip_application,
)

CLI = "secret_ledger/cli/"
OWN = "secret_ledger/__pyinstaller/"
VALUE = "thirteen-long"

# Runs the hooks as PyInstaller does, without what a whole build needs.
HOOKS = """
import json, runpy, sys
from importlib.metadata import distribution

(found,) = distribution("secret-ledger").entry_points.select(group="pyinstaller40")
(folder,) = found.load()()
told = {}
for name in sys.argv[1:]:
    hook = runpy.run_path(f"{folder}/hook-{name}.py")
    told[name] = {"modules": hook["hiddenimports"], "data": hook.get("datas", [])}
print(json.dumps({"folder": folder, "told": told}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the frozen programs, made once for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    try:
        return freeze_once(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    except CannotFreeze as error:
        pytest.skip(str(error))


def files() -> set[str]:
    """Every file of the packages in this checkout."""
    return {
        str(file.relative_to(ROOT / root))
        for root in ("ledger", "projections")
        for file in (ROOT / root).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def modules(names: set[str]) -> set[str]:
    """The modules among these files."""
    return {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names
        if name.endswith(".py")
    }


def hooks(wheel: Path, folder: Path, *names: str) -> dict[str, Any]:
    """What the hooks of the installed wheel tell PyInstaller."""
    installed = unpack(wheel, folder)
    done = subprocess.run(
        [sys.executable, "-c", HOOKS, *names],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=folder,
        stdout=subprocess.PIPE,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["folder"] == str(installed / OWN.rstrip("/"))
    told: dict[str, Any] = answer["told"]
    return told


def assert_stored(told: dict[str, Any], place: Path) -> None:
    """The program that lies at this place stored the value, and found nothing wrong."""
    assert Path(told.pop("package")) == place / "secret_ledger"
    assert told == {"length": len(VALUE), "ok": True, "release": version("secret-ledger")}


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files()


def test_the_wheel_brings_two_names_to_import_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "secret_ledger",
        "secret_ledger_projections",
    }


def test_an_installed_wheel_works_in_an_application_that_has_modules_ledger_and_projections(
    wheel: Path, tmp_path: Path, database_url: str
) -> None:
    installed = unpack(wheel, tmp_path / "installed")
    application = tmp_path / "application"
    (application / "ledger").mkdir(parents=True)
    for module in ("ledger/__init__.py", "projections.py", "model.py", "store.py"):
        (application / module).write_text("MINE = True\n", "utf-8")
    mine = "import ledger, projections\nassert ledger.MINE and projections.MINE\n"
    (application / "main.py").write_text(mine + PROGRAM, "utf-8")
    told = run_program(
        [sys.executable, str(application / "main.py")],
        database_url,
        VALUE,
        application,
        {"PYTHONPATH": str(installed)},
    )
    assert_stored(told, installed)


def test_the_hook_names_every_module_but_the_command_line_and_every_data_file(
    wheel: Path, tmp_path: Path
) -> None:
    told = hooks(wheel, tmp_path, "secret_ledger")["secret_ledger"]
    embedded = {
        name for name in files() if not name.startswith((CLI, OWN)) and "__main__" not in name
    }
    ours = {name for name in told["modules"] if name.startswith("secret_ledger")}
    assert ours == modules(embedded)
    data = {f"{folder}/{Path(file).name}" for file, folder in told["data"]}
    assert {name for name in files() if not name.endswith(".py")} <= data
    assert f"secret_ledger-{version('secret-ledger')}.dist-info" in {
        folder for _, folder in told["data"]
    }
    assert {"aiosqlite", "asyncpg.pgproto.pgproto", "asyncpg.protocol.protocol"} <= {
        *told["modules"]
    }


def test_a_program_that_calls_the_command_line_gets_every_verb(wheel: Path, tmp_path: Path) -> None:
    told = hooks(wheel, tmp_path, "secret_ledger.cli")["secret_ledger.cli"]
    assert {*told["modules"]} == modules({name for name in files() if name.startswith(CLI)})


def test_a_program_runs_from_a_zip_that_holds_the_package(
    wheel: Path, tmp_path: Path, database_url: str
) -> None:
    application = zip_application(wheel, tmp_path / "application.zip")
    told = run_program([sys.executable, str(application)], database_url, VALUE, tmp_path)
    assert_stored(told, application)


def test_a_program_runs_without_assertions_and_docstrings(
    wheel: Path, tmp_path: Path, sqlite_url: str
) -> None:
    application = zip_application(wheel, tmp_path / "application.zip")
    command = [sys.executable, "-OO", str(application)]
    assert_stored(run_program(command, sqlite_url, VALUE, tmp_path), application)


@pytest.mark.slow
@pytest.mark.timeout(600)  # PyInstaller works for half a minute, or waits for who does
def test_a_frozen_program_stores_and_reads_a_secret(
    frozen: Path, tmp_path: Path, database_url: str
) -> None:
    told = run_program([str(frozen / "program")], database_url, VALUE, tmp_path)
    assert_stored(told, frozen / "_internal")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_frozen_command_line_shows_its_help_stores_and_reads(
    frozen: Path, tmp_path: Path, database_url: str
) -> None:
    environ = environment(database_url)

    def run(*words: str) -> bytes:
        done = subprocess.run(
            [frozen / "command_line", *words],
            env=environ,
            cwd=tmp_path,
            input=VALUE.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert b"Usage: secret-ledger" in run("--help")
    assert run("--version").decode().strip() == version("secret-ledger")
    run("put", "a")
    assert run("get", "a") == VALUE.encode()
