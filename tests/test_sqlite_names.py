"""A SQLite file under two names: SQLite keeps another `-wal` for each, so writes are lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from cli_process import ROOT
from cli_session import Cli
from inside import upgrade_schema
from ledgers import OLD, file_of, opened, refused
from secret_ledger import Keyring, LedgerUnavailable, open_unverified


@pytest.fixture
async def linked(sqlite_url: str) -> Path:
    """A further name of the file of a ledger that is closed."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    file = Path(file_of(sqlite_url))
    link = file.with_name("link.db")
    link.hardlink_to(file)
    return link


@pytest.mark.parametrize("name", ["ledger.db", "link.db"])
async def test_a_file_with_hard_links_is_not_written_under_either_name(
    tmp_path: Path, linked: Path, name: str
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/{name}"
    error = await refused(url, LedgerUnavailable, OLD)
    assert "2 names (hard links)" in error.message
    assert "mount the folder" in error.hint
    linked.unlink()
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/ledger.db", OLD) as ledger:
        assert (await ledger.put("a", "2")).version == 2


async def test_a_file_with_hard_links_can_be_read_with_a_warning(
    sqlite_url: str, linked: Path
) -> None:
    """What was written through the other name may be in its -wal."""
    async with opened(sqlite_url, OLD, read_only=True) as ledger:
        assert (await ledger.get("a")).version == 1
        assert [w for w in ledger.warnings if "hard links" in w]
        health = await ledger.health()
    assert health.state == "degraded"
    assert "2 names" in health.reasons[0]
    async with open_unverified(sqlite_url) as seen:
        assert [s.name async for s in seen.list()] == ["a"]


async def test_a_hard_link_that_is_made_of_a_ledger_in_use_degrades_its_health(
    sqlite_url: str,
) -> None:
    """A backup by hard links, say: who opens that one is refused, this process goes on."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        link = Path(file_of(sqlite_url)).with_name("link.db")
        link.hardlink_to(file_of(sqlite_url))
        assert (await ledger.put("a", "2")).version == 2
        health = await ledger.health()
        assert health.ready
        assert health.state == "degraded"
        assert "hard links" in health.reasons[0]
        await refused(f"sqlite+aiosqlite:///{link}", LedgerUnavailable, OLD)
        link.unlink()
        assert (await ledger.health()).state == "ready"


async def test_no_ledger_is_made_moved_or_upgraded_in_a_file_with_hard_links(
    tmp_path: Path, sqlite_url: str, linked: Path
) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "empty.link").hardlink_to(tmp_path / "empty.db")
    url = f"sqlite+aiosqlite:///{tmp_path}/empty.db"
    await refused(url, LedgerUnavailable, OLD)
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/other.db", OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(LedgerUnavailable, match="hard links"):
            await ledger.migrate(url)
        assert (await ledger.put("a", "2")).version == 2
    with pytest.raises(LedgerUnavailable, match="hard links"):
        await upgrade_schema(sqlite_url, Keyring.of(OLD))
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_health_of_the_command_line_says_that_a_file_has_hard_links(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    cli = Cli(monkeypatch, sqlite_url)
    assert cli("init").code == 0
    Path(file_of(sqlite_url)).with_name("link.db").hardlink_to(file_of(sqlite_url))
    seen = cli("health", "--json")
    assert seen.json["state"] == "degraded"
    assert "hard links" in seen.json["reasons"][0]
    done = cli("put", "a", value=b"1")
    assert done.code == 40
    assert "hard links" in done.err


async def test_a_file_behind_a_symbolic_link_has_one_name(tmp_path: Path, sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    (tmp_path / "link.db").symlink_to(file_of(sqlite_url))
    async with (
        opened(f"sqlite+aiosqlite:///{tmp_path}/link.db", OLD) as one,
        opened(sqlite_url, OLD) as two,
    ):
        await one.put("a", "2")
        assert (await two.put("a", "3")).version == 3
        assert (await one.health()).state == "ready"


MOUNTED = """
import asyncio, sys
from ledgers import OLD, opened
from secret_ledger import LedgerUnavailable

async def main(url):
    try:
        async with opened(url, OLD):
            print("opened")
    except LedgerUnavailable as error:
        print(error.message, error.hint)
    async with opened(url, OLD, read_only=True) as ledger:
        print(*ledger.warnings, *(await ledger.health()).reasons)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_file_that_is_mounted_by_itself_is_not_written(
    tmp_path: Path, sqlite_url: str
) -> None:
    """How a container has it with `-v ./app.db:/data/app.db`: its -wal stays in the container."""
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
    inside = tmp_path / "with a space" / "app.db"
    inside.parent.mkdir()
    inside.touch()
    process = await asyncio.create_subprocess_exec(
        "unshare", "--user", "--map-root-user", "--mount",
        "sh", "-c", 'mount --bind "$1" "$2" && shift && exec "$2" -c "$3" "sqlite+aiosqlite:///$1"',
        "sh", file_of(sqlite_url), str(inside), sys.executable, MOUNTED,
        cwd=ROOT / "tests",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out, f"this test needs user namespaces (unshare --user --mount): {err.decode()}"
    refusal, read = out.decode().splitlines()
    assert "the file itself is mounted" in refusal
    assert "mount the folder" in refusal
    assert read.count("the file itself is mounted") == 2


@pytest.mark.parametrize(
    ("mounts", "refuses"),
    [
        (["{folder}/ledger.db"], True),
        (["{folder}"], False),
        (["{folder}/ledger.db", "{folder}"], False),
        (["{folder}", "{folder}/ledger.db"], True),
        (["{folder}/ledger.db-other", "{folder}/ledger"], False),
    ],
    ids=["the file", "its folder", "below another mount", "in a mount", "others"],
)
async def test_the_last_mount_on_the_way_to_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: list[str], refuses: bool
) -> None:
    folder = tmp_path / "a\\b c"
    folder.mkdir()
    shown = str(folder).replace("\\", "\\134").replace(" ", "\\040")
    lines = ["63 43 254:0 / / rw,relatime - ext4 /dev/vda rw"]
    for point in mounts:
        at = point.format(folder=shown)
        lines.append(f"64 63 254:0 /x {at} rw,relatime shared:1 - ext4 /dev/vda rw")
    table = tmp_path / "mountinfo"
    table.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("secret_ledger.store.sqlite.place.MOUNTS", table)
    (folder / "ledger.db").touch()
    url = f"sqlite+aiosqlite:///{folder}/ledger.db"
    if refuses:
        await refused(url, LedgerUnavailable, OLD)
    else:
        async with opened(url, OLD) as ledger:
            assert not ledger.warnings
