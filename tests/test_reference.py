"""docs/reference/ is what `./scripts/reference` makes of the code, and leaves nothing out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_reference", ROOT / "scripts" / "_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()
PAGES = REFERENCE.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_is_current(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    current = PAGES[name] == page.read_text("utf-8")
    assert current, f"docs/reference/{name} is old: run {REFERENCE.COMMAND}"


def test_the_settings_that_are_described_are_those_that_the_code_names() -> None:
    assert set(REFERENCE.SETTINGS) == set(REFERENCE.setting_names().values())


def test_every_setting_is_read_somewhere() -> None:
    for constant in REFERENCE.setting_names():
        assert REFERENCE._readers(constant), constant


def test_every_verb_says_the_fields_of_its_lines_or_prints_none() -> None:
    without = {"init", "keygen", "get", "schema upgrade", "schema grants"}
    for verb, app in REFERENCE.verbs():
        said = verb in REFERENCE.FIELDS or "Fields in a pipe" in app.help
        assert said is (verb not in without), verb
