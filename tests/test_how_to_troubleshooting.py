"""docs/how-to/troubleshooting.md says of every error what to do."""

from __future__ import annotations

import re

import documented
from inside import errors

PAGE = "docs/how-to/troubleshooting.md"


def test_the_page_on_errors_has_each_error_with_its_exit_code() -> None:
    told = re.findall(
        r"^### `(\w+)`\n\n`(\w+)`, exit code (\d+)[.,]", documented.text_of(PAGE), re.MULTILINE
    )
    assert {(name, code, int(exit_code)) for code, name, exit_code in told} == {
        (name, getattr(errors, name).code, getattr(errors, name).exit_code)
        for name in errors.__all__
    }
