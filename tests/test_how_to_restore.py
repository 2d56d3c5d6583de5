"""docs/how-to/restore-sqlite.md, followed step by step."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

import documented
from cli_process import environment
from cli_session import KEY
from ledgers import opened
from secret_ledger import LedgerUnavailable

PAGE = "docs/how-to/restore-sqlite.md"
COMMANDS = documented.commands(PAGE)
LOCAL = "sqlite+aiosqlite:///app.db"

SERVICE = """
import asyncio, os, shutil, sqlite3
from secret_ledger import Keyring, SecretLedger

async def serve():
    async with SecretLedger.open(os.environ["OS_SECRET_LEDGER_URL"], Keyring.from_env()) as ledger:
        await ledger.put("a", "before the backup")
        source, target = sqlite3.connect("app.db"), sqlite3.connect("backup.db")
        source.backup(target)
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target.close()
        for n in range(30):
            await ledger.put(f"later/{n}", "x" * 5_000)
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        source.close()
        await ledger.put("a", "after the backup")
        os._exit(0)  # as killed: the -wal stays

asyncio.run(serve())
"""


def follow(folder: Path, commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Type them, as a shell that ends at the first that fails."""
    shell = f'secret-ledger() {{ "{sys.executable}" -m secret_ledger "$@"; }}\n' + "\n".join(
        commands
    )
    return subprocess.run(
        ["bash", "-ec", shell], cwd=folder, env=environment(LOCAL),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a service that was killed some time after a backup."""
    done = subprocess.run(
        [sys.executable, "-c", SERVICE], cwd=tmp_path, env=environment(LOCAL),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "app.db-wal").stat().st_size > 0
    return tmp_path


async def test_a_restore_step_by_step_gives_the_state_of_the_backup(killed: Path) -> None:
    done = await asyncio.to_thread(follow, killed, COMMANDS)
    assert done.returncode == 0, done.stdout + done.stderr
    async with opened(f"sqlite+aiosqlite:///{killed}/app.db", KEY, create=False) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "before the backup"
        assert [s.name async for s in ledger.list()] == ["a"]
        assert (await ledger.verify("full")).ok
        assert (await ledger.put("a", "and on")).version == 2
    # What was moved away is whole: it holds what was written since.
    url = f"sqlite+aiosqlite:///{killed}/before-restore/app.db"
    async with opened(url, KEY, create=False) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "after the backup"


async def test_a_backup_that_is_damaged_changes_nothing(killed: Path) -> None:
    with closing(sqlite3.connect(killed / "backup.db")) as raw:
        raw.execute("DROP TRIGGER secret_event_no_update")
        raw.execute("UPDATE secret_event SET recorded_at = recorded_at + 1 WHERE stream = 'a'")
        raw.commit()
    before = (killed / "app.db").read_bytes()
    done = await asyncio.to_thread(follow, killed, COMMANDS)
    assert done.returncode == 12
    assert (killed / "app.db").read_bytes() == before
    assert not (killed / "before-restore").exists()


async def test_a_process_that_was_forgotten_writes_nothing_into_the_restored_file(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    async with opened(url, KEY) as ledger:
        await ledger.put("a", "before the backup")
        with (
            closing(sqlite3.connect(tmp_path / "app.db")) as source,
            closing(sqlite3.connect(tmp_path / "backup.db")) as target,
        ):
            source.backup(target)
        await ledger.put("a", "after the backup")
        done = await asyncio.to_thread(follow, tmp_path, COMMANDS)
        assert done.returncode == 0, done.stdout + done.stderr
        with pytest.raises(LedgerUnavailable, match="not the file that was opened"):
            await ledger.put("a", "too late")
    async with opened(url, KEY, create=False) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "before the backup"
        assert (await ledger.verify("full")).ok


async def test_after_a_copy_over_a_file_in_use_the_same_steps_restore_it(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    async with opened(url, KEY) as ledger:
        await ledger.put("a", "before the backup")
        with (
            closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as source,
            closing(sqlite3.connect(tmp_path / "backup.db")) as target,
        ):
            source.backup(target)
            await ledger.put("a", "after the backup")
            source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await ledger.put("a", "in the -wal")
        shutil.copyfile(tmp_path / "backup.db", tmp_path / "app.db")
        with pytest.raises(LedgerUnavailable, match="was overwritten"):
            await ledger.put("a", "too late")
    assert (tmp_path / "app.db-wal").exists()
    done = await asyncio.to_thread(follow, tmp_path, COMMANDS)
    assert done.returncode == 0, done.stdout + done.stderr
    async with opened(url, KEY, create=False) as ledger:
        assert (await ledger.get("a")).value.reveal_text() == "before the backup"


def test_the_steps_are_in_the_order_that_their_headings_say() -> None:
    numbers = [int(n) for n in re.findall(r"^## (\d)\.", documented.text_of(PAGE), re.MULTILINE)]
    assert numbers == [1, 2, 3, 4, 5]
    assert COMMANDS[-1] == "secret-ledger health"
