"""What a process has to import: nothing that it doesn't use, for that is most of a start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

from sqlalchemy.engine import make_url

from ledgers import OLD

# All that a test would have set up is left out: a process of its own, told by its standard input.
OPEN: Final = """
import asyncio, json, sys
from secret_ledger import Key, Keyring, SecretLedger
told = json.load(sys.stdin)
async def main():
    async with SecretLedger.open(told["url"], Keyring.of(Key.parse(told["key"]))) as ledger:
        await ledger.put("a", "1")
        await ledger.get("a")
asyncio.run(main())
print(json.dumps(sorted(sys.modules)))
"""
COMMAND_LINE: Final = {"cyclopts", "rich", "secret_ledger.cli"}


def modules(code: str, told: object = None) -> set[str]:
    """What a new process has imported after it has run `code`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OS_SECRET", "COV"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(told),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_no_library() -> None:
    imported = modules("import json, sys, ledger; print(json.dumps(sorted(sys.modules)))")
    libraries = {"sqlalchemy", "cryptography", "anyio", "structlog", "asyncpg", "aiosqlite"}
    assert not imported & (libraries | COMMAND_LINE | {"projections", "asyncio"})


def test_opening_imports_the_driver_of_its_own_database_alone(database_url: str) -> None:
    imported = modules(OPEN, {"url": database_url, "key": OLD.text().reveal_text()})
    assert not imported & (COMMAND_LINE | {"structlog", "aiosqlite"})
    others = {
        "sqlite": {"asyncpg", "greenlet", "sqlalchemy.dialects.postgresql", "sqlalchemy.orm"},
        "postgresql": {"secret_ledger.store.sqlite.database", "sqlalchemy.dialects.sqlite"},
    }
    # Up to SQLAlchemy 2.0, importing it imports greenlet, where that is installed.
    its_own = modules("import json, sys, sqlalchemy; print(json.dumps(sorted(sys.modules)))")
    assert not imported & others[make_url(database_url).get_backend_name()] - its_own
