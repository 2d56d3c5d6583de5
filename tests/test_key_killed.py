"""kill -9 at random moments of each operation on keys, while another process writes.

`test_key_crash` dies at each commit; here a process is killed wherever it is: inside of a
transaction, on the way to the database, or when it has just finished.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest

from fleet import Process, check_history, start
from independent_fold import read_rows
from key_needs import outcome, rows_of
from ledgers import opened
from secret_ledger import Key, KeyFingerprintMismatch, KeyInUse, MissingKey, StaleKey
from waiting import until

KEYS = [Key.from_bytes(bytes(range(n, n + 32)), f"k-{n}") for n in range(3)]
KILLS = 3
"""Of each command."""


def the_way(turn: int) -> Sequence[str]:
    """From the key of that number to the next one, until nothing needs it."""
    return "rotate", "rekey", "migrate", f"purge {turn}", f"retire k-{turn}"


async def operator(url: str, turn: int, *commands: str) -> Process:
    """A process that runs the commands, with the next key as its current one. It, like the
    writer, has every key that there will be: a node that was killed stays in the registry."""
    keys = [KEYS[turn + 1], *(key for key in KEYS if key is not KEYS[turn + 1])]
    if not url.startswith("sqlite"):
        url += "?application_name=operator"
    process = await start(url, keys, "operator", "attend", verify="control")
    for command in commands:
        process.tell(f"do {command}")
    assert await process.hear("began")
    return process


async def done(url: str, turn: int, *commands: str) -> tuple[Sequence[bool], Sequence[float]]:
    """Run commands to their end: whether each changed anything, and the seconds it took."""
    process = await operator(url, turn, *commands)
    times = [time.monotonic()]
    for number in range(1, len(commands) + 1):
        await process.hear("did", number)
        times.append(time.monotonic())
    process.tell("stop")
    assert await process.finish() == 0
    changed = [did["changed"] for did in process.said("did")]
    assert None not in changed, process.lines
    return changed, [end - begin for begin, end in pairwise(times)]


async def killed(url: str, turn: int, command: str, delay: float) -> None:
    """Run a command in a process that is killed after so many seconds, done or not."""
    process = await operator(url, turn, command)
    await asyncio.sleep(delay)  # no wait for anything: the moment is what is drawn
    await process.kill()
    assert not process.said("did", changed=None), process.lines
    if not url.startswith("sqlite"):
        await until(partial(nothing_under_way, url))


async def nothing_under_way(url: str) -> bool:
    """Whether the server, which outlives its client, has ended what it was sent."""
    sessions = await read_rows(
        url,
        "SELECT count(*) FROM pg_catalog.pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'operator'",
    )
    return sessions == [(0,)]


async def check(url: str, old: Key, new: Key) -> None:
    """The ledger is whole, and the old key is needed where the rows say so, and only there.
    What is written meanwhile lies under the active key, and takes no key's use from it."""
    rows = await rows_of(url)
    async with opened(url, new, old, create=False, verify="full", node="check") as ledger:
        if rows.active == new.key_id and (old.key_id in rows.anywhere or rows.half_purged):
            with pytest.raises(KeyInUse):
                await ledger.retire(str(old.key_id))
    if rows.active == old.key_id:
        assert await outcome(url, new) is KeyFingerprintMismatch
        assert await outcome(url, old) is None
        return
    assert await outcome(url, old) is StaleKey
    if old.key_id in rows.heads:
        assert await outcome(url, new) is MissingKey
        return
    async with opened(url, new, create=False, node="check") as ledger:
        report = await ledger.verify("full")
        assert report.ok == (old.key_id not in rows.in_use), report.findings


async def test_killed_at_random_moments_beside_a_writer_the_same_command_finishes(
    database_url: str,
) -> None:
    url, chance = database_url, random.Random(5)
    writer = await start(url, KEYS, "writer", "attend")
    writer.tell("write 300")
    await writer.hear("wrote", 300)
    _, took = await done(url, 0, *the_way(0))
    for command, seconds in zip(the_way(1), took, strict=True):
        for _ in range(KILLS):
            writer.tell("write 20")
            await killed(url, 1, command, chance.uniform(0, 1.2 * seconds))
            await check(url, KEYS[1], KEYS[2])
        changed, _ = await done(url, 1, command, command)
        assert not changed[1], f"{command} was not finished by itself"
    await check(url, KEYS[1], KEYS[2])
    writer.tell("stop")
    assert await writer.finish() == 0
    assert not writer.said("refused")
    await check_history(url, KEYS[2], writer.acknowledged)
    async with opened(url, KEYS[2], create=False) as ledger:
        assert [r.state for r in await ledger.key_history()] == ["retired", "retired", "active"]
