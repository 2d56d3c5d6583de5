"""docs/how-to/rotate-a-key.md, as it is typed, beside nodes that are running."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import documented
from ledgers import NEW, OLD, opened
from secret_ledger import Keyring

PAGE = "docs/how-to/rotate-a-key.md"
COMMANDS = documented.commands(PAGE)
FROM_STEP_2 = COMMANDS[COMMANDS.index("secret-ledger keys rotate") :]
"""From where every node holds both keys."""


async def test_the_rotation_of_a_fleet_runs_as_it_stands_beside_its_nodes(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url, OLD) as first, opened(database_url, OLD) as second:
        await first.put("db/password", "s3cr3t")
        for node in (first, second):  # deployed to each
            await node.reload_keys(Keyring.of(NEW, [OLD]))
        environ = documented.environment(
            tmp_path,
            OS_SECRET_LEDGER_URL=database_url,
            OS_SECRET_KEY=NEW.text().reveal_text(),
            OS_SECRET_KEY_ID="k-new",
            OS_SECRET_PREVIOUS_KEYS=f"k-old={OLD.text().reveal_text()}",
        )
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-eu", "-c", "\n".join(["OLD_ID=k-old", *FROM_STEP_2])],
            cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for node in (first, second):
            assert (await node.put("db/password", "next")).key_id == "k-new"
            assert (await node.get("db/password", version=1)).value.reveal() == b"s3cr3t"
    async with opened(database_url, NEW, verify="full") as ledger:
        assert [(key.key_id, key.state) for key in await ledger.key_history()] == [
            ("k-old", "retired"),
            ("k-new", "active"),
        ]
