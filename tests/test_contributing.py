"""The picture in docs/architecture.md is true: every module has the place that imports allow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ADDING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LEDGER, PROJECTIONS = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
TOP = "*.py"
PACKAGE = ROOT / "ledger" / "secret_ledger"


def boxes() -> dict[str, set[str]]:
    """The words behind each folder of the picture, in its order."""
    found: dict[str, set[str]] = {}
    words: set[str] = set()
    for line in LEDGER.splitlines():
        if folder := re.match(r" ([\w/]+/|\*\.py)", line):
            words = found.setdefault(folder[1].rstrip("/"), set())
            line = line[folder.end() :]
        words.update(re.findall(r"\w+", line))
    return found


def modules(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.py") if not file.stem.startswith("__")}


def layers() -> list[str]:
    """Of the import contract, from the top: each layer's folders and modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [
        each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    ]
    names = " : ".join(contract["layers"]).split(" : ")
    return [name.removeprefix("secret_ledger.") for name in names]


def folders() -> set[str]:
    return {file.parent.name for file in PACKAGE.glob("[a-z]*/__init__.py")}


def test_every_folder_and_every_module_at_the_top_has_its_layer_among_the_import_contracts() -> (
    None
):
    assert sorted(layers()) == sorted(folders() | modules(PACKAGE))


def test_the_picture_has_the_folders_in_order_of_their_layers() -> None:
    drawn = [name for name in boxes() if name in folders()]
    assert drawn == [name for name in layers() if name in folders()]


def test_the_picture_names_each_module_of_each_folder() -> None:
    for folder, words in boxes().items():
        assert modules(PACKAGE if folder == TOP else PACKAGE / folder) <= words, folder
    inside = {
        str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.glob("[a-z]*/**/__init__.py")
    }
    assert inside | {TOP} == set(boxes())


def test_the_picture_names_the_modules_of_the_projections() -> None:
    package = ROOT / "projections" / "secret_ledger_projections"
    assert modules(package) <= set(re.findall(r"\w+", PROJECTIONS))


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:ledger|projections|tests|scripts)/[\w/]+\.py)", TEXT + ADDING):
        assert (ROOT / name).exists(), name


def test_every_module_that_is_named_by_its_folder_exists() -> None:
    named = [
        name
        for name in re.findall(r"`(\w+(?:/\w+)+)`", TEXT + ADDING)
        if name.split("/")[0] in folders()
    ]
    assert len(named) > 20
    for name in named:
        assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir(), name
