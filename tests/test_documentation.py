"""The documentation is true: its examples run, its links lead somewhere, its pages stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import documented
import secret_ledger
from documented import PAGES, ROOT

FOLLOWED_ELSEWHERE = {
    "docs/how-to/restore-sqlite.md": "test_how_to_restore.py",  # after a crash, damage, a mistake
    "docs/how-to/freeze-with-pyinstaller.md": "test_frozen.py",  # what the frozen program can do
}
"""Pages whose examples need a state that no page can make; the test that follows each."""

MOST_LINES = {"README.md": 200, "CONTRIBUTING.md": 150}
"""How many lines a page may have."""

WITH_EXAMPLES = [
    page
    for page in PAGES
    if page not in FOLLOWED_ELSEWHERE
    and any(block.kind in documented.RUN for block in documented.blocks(page))
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_every_example_of_a_page_runs_as_it_stands(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("own_postgres") if documented.needs_postgresql(page) else None
    documented.run(page, tmp_path, server)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_says_whether_it_runs(page: str) -> None:
    for block in documented.blocks(page):
        assert block.kind in documented.RUN | documented.NOT_RUN, f"{page}:{block.line}"
    fences = re.findall(r"^ *```", documented.text_of(page), re.MULTILINE)
    assert len(fences) == 2 * len(documented.blocks(page))


@pytest.mark.parametrize("page", FOLLOWED_ELSEWHERE)
def test_a_page_that_is_not_run_here_is_followed_by_a_test_of_its_own(page: str) -> None:
    assert page in PAGES
    assert (ROOT / "tests" / FOLLOWED_ELSEWHERE[page]).exists()


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", ".github/SECURITY.md"])
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in documented.links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert target.resolve().is_relative_to(ROOT), f"{page}: {link}"
        if anchor:
            there = str(target.resolve().relative_to(ROOT))
            assert anchor in documented.anchors(there), f"{page}: {link}"


def test_the_index_of_docs_leads_to_every_page() -> None:
    index = "docs/README.md"
    named = {f"docs/{link.partition('#')[0]}" for link in documented.links(index)}
    assert named == {page for page in PAGES if page not in ("README.md", index)}


def test_a_page_that_is_read_first_stays_short() -> None:
    for page, most in MOST_LINES.items():
        assert len(documented.text_of(page).splitlines()) <= most, page


@pytest.mark.parametrize("page", PAGES)
def test_every_table_that_names_errors_gives_their_exit_codes(page: str) -> None:
    for name, code in re.findall(r"^\| `(\w+)` (\d+) \|", documented.text_of(page), re.MULTILINE):
        assert getattr(secret_ledger, name).exit_code == int(code), name


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("a\tb", "a   b\n", True),
        ("a …", "a 12\n", True),
        ("a …", "a 12\nb\n", False),
        ("a\n…\nz", "a\nb\nc\nz\n", True),
        ("a\n…\nz", "a\nz\n", True),
        ("a", "a\nb\n", False),
        ("a.c", "abc\n", False),
    ],
)
def test_an_ellipsis_stands_for_what_varies_and_for_nothing_else(
    shown: str, printed: str, alike: bool
) -> None:
    assert documented.as_shown(shown, printed) is alike
