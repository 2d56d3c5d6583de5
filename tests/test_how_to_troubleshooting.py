"""docs/how-to/troubleshooting.md says of every error what to do."""

from __future__ import annotations

import re

import documented
import secret_ledger
from secret_ledger import LedgerError

PAGE = "docs/how-to/troubleshooting.md"


def test_the_page_on_errors_has_each_error_with_its_exit_code() -> None:
    told = re.findall(
        r"^### `(\w+)`\n\n`(\w+)`, exit code (\d+)[.,]", documented.text_of(PAGE), re.MULTILINE
    )
    public = (vars(secret_ledger)[name] for name in secret_ledger.__all__)
    errors = {each for each in public if isinstance(each, type) and issubclass(each, LedgerError)}
    assert {(name, code, int(exit_code)) for code, name, exit_code in told} == {
        (error.__name__, error.code, error.exit_code) for error in errors
    }
