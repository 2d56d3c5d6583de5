"""The picture in docs/architecture.md is true: every module has the place that imports allow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ADDING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LEDGER, PROJECTIONS = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
BOXES = [set(re.findall(r"\w+", box)) for box in re.split(r"^ ─+\n", LEDGER, flags=re.MULTILINE)]
EVERYWHERE = {"log"}


def modules(folder: str) -> set[str]:
    return {file.stem for file in (ROOT / folder).glob("*.py") if not file.stem.startswith("__")}


def layers() -> list[set[str]]:
    """Of the import contract, from the top: each layer's modules of `secret_ledger`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [
        each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    ]
    return [
        {name.strip().removeprefix("secret_ledger.") for name in layer.split(":")}
        for layer in contract["layers"]
    ]


def test_every_module_of_the_ledger_has_its_layer_among_the_import_contracts() -> None:
    assert set().union(*layers()) == modules("ledger/secret_ledger") - EVERYWHERE | {"cli", "store"}


def test_the_picture_has_a_box_for_each_layer_that_names_each_module_of_it() -> None:
    assert len(BOXES) == len(layers())
    for box, layer in zip(BOXES, layers(), strict=True):
        assert layer <= box


def test_the_picture_names_the_modules_of_the_command_line_the_store_and_the_projections() -> None:
    assert modules("ledger/secret_ledger/cli") <= BOXES[0]
    assert modules("ledger/secret_ledger/store") <= BOXES[-2]
    assert modules("projections/secret_ledger_projections") <= set(re.findall(r"\w+", PROJECTIONS))


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:ledger|projections|tests|scripts)/[\w/]+\.py)", TEXT + ADDING):
        assert (ROOT / name).exists(), name
