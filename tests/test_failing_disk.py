"""A SQLite ledger on a disk that fails, or is full."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from cli_process import ROOT
from ledgers import OLD, opened

FAILING_DISK = """
import asyncio, json, os, sys
from failing_syncs import fail_syncs
from ledgers import OLD, opened
from ledger import LedgerUnavailable

async def main(url):
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
        # The units of a `note` run on the thread that writes.
        await ledger.database.run(lambda connection: fail_syncs(), "note")
        try:
            await ledger.put("a", "2")
        except LedgerUnavailable as error:
            told = {"unknown": error.outcome_unknown, "message": error.message, "hint": error.hint}
        print(json.dumps(told), flush=True)
        os._exit(0)  # as killed

asyncio.run(main(*sys.argv[1:]))
"""


async def _told(script: str, *words: str) -> Any:
    """What a process of its own says of itself, as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *words,
        cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out, err.decode()
    return json.loads(out)


async def test_a_commit_that_the_disk_fails_leaves_the_outcome_unknown(sqlite_url: str) -> None:
    """The commit's mark is in the -wal by then, and the next start finds it there."""
    told = await _told(FAILING_DISK, sqlite_url)
    assert told["unknown"]
    assert "SQLITE_IOERR_FSYNC" in told["message"]
    assert "read the secret before you write it again" in told["hint"]
    async with opened(sqlite_url, OLD) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "2"  # and so it was, this time
