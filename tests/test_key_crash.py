"""kill -9 just before and just after every commit of every operation on keys.

Whatever was cut off: the ledger opens, verifies and has every value; the old key is needed
for as long as the rows say, and not longer; and the same command again finishes the job.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import get_args

import pytest

from doomed import Errand, Moment, do, run
from fleet import FORKS, ended
from independent_fold import fold_log, read_rows
from key_needs import outcome, rows_of
from ledgers import NEW, OLD, emptied, opened
from secret_ledger import (
    Key,
    KeyFingerprintMismatch,
    KeyInUse,
    MissingKey,
    SecretDestroyed,
    SecretLedger,
    StaleKey,
)
from victim import Truth, ending, told


async def sent(
    url: str, keys: Sequence[Key], commands: Sequence[str], at: int, moment: Moment
) -> list[str | int]:
    """Run `commands` in a process that dies at the commit number `at`: the commands that it
    began, and at last, where it lived, the number of its commits."""
    texts = tuple((key.key_id, key.text().reveal_text()) for key in keys)
    ours, theirs = FORKS.Pipe(duplex=False)
    errand = Errand(url, texts, commands, at, moment)
    process = FORKS.Process(target=run, args=(errand, theirs), daemon=True)
    process.start()
    theirs.close()
    await ended(process)
    said: list[str | int] = []
    with ours:
        while ours.poll():
            try:
                said.append(ours.recv())
            except EOFError:
                break
    expected = -signal.SIGKILL if at else 0
    assert process.exitcode == expected, (commands, at, moment, said)
    return said


async def fill(url: str) -> Truth:
    """A new ledger with each kind of event under the old key, and what reads of it must give
    for ever."""
    await emptied(url)
    async with opened(url, OLD) as ledger:
        for n in range(2):
            await ledger.put("often", f"value {n}", actor="alice")
        await ledger.put("deleted", "x")
        await ledger.delete("deleted")
        await ledger.put("back", "here again")
        await ledger.delete("back")
        await ledger.restore("back")
        await ledger.put("ended", "no more")
        await ledger.destroy("ended", reason="leaked")
        await ledger.put("large", "large" * 300)
        names = [
            (info.name, version)
            async for info in ledger.list(deleted=True)
            for version in range(1, info.version + 1)
        ]
        return await told(ledger, names)


async def check_values(ledger: SecretLedger, truth: Truth, without: set[str]) -> None:
    """Every read gives what it gave, but for values under the keys that are not held. That a
    version has ended the newest event says, which is under none of them."""
    for (name, version), end in truth.versions.items():
        info = [each async for each in ledger.history(name)][version - 1]
        sealed_away = info.key_id in without and end is not SecretDestroyed
        assert await ending(ledger, name, version) == (MissingKey if sealed_away else end)
    for name, end in truth.latest.items():
        assert await ending(ledger, name) == end


async def check(url: str, truth: Truth) -> None:
    """The ledger is whole, and each key is needed where the rows say so."""
    rows = await rows_of(url)
    async with opened(url, NEW, OLD, create=False, verify="full", node="check") as ledger:
        await check_values(ledger, truth, set())
        for name in ("k-old",) if rows.active == "k-new" else ():
            if name in rows.anywhere or rows.half_purged:
                with pytest.raises(KeyInUse):
                    await ledger.retire(name)
    if rows.active == "k-old":
        assert await outcome(url, NEW) is KeyFingerprintMismatch
        assert await outcome(url, OLD) is None
        return
    assert await outcome(url, OLD) is StaleKey
    if "k-old" in rows.heads:
        assert await outcome(url, NEW) is MissingKey
        return
    async with opened(url, NEW, create=False, node="check") as ledger:
        await check_values(ledger, truth, {"k-old"})
        report = await ledger.verify("full")
        assert report.ok == ("k-old" not in rows.in_use), report.findings


THE_WAY = ("rotate", "rekey", "migrate", "purge 0", "retire k-old")


async def half_migrated(url: str) -> Truth:
    """A ledger whose next generation is half built."""
    truth = await fill(url)
    async with opened(url, NEW, OLD, node="half-way") as ledger:
        await do(ledger, "rotate")
        await do(ledger, "begin")
    return truth


async def _every_commit(
    urls: Sequence[str],
    prepared: Callable[[str], Awaitable[Truth]],
    keys: Sequence[Key],
    commands: Sequence[str],
    moment: Moment,
    look: Callable[[str, Truth, str], Awaitable[None]],
) -> None:
    """Die at each commit in turn, on a ledger of its own, and look at what is left: the
    ledger, what reads of it gave, and the command that was cut off."""
    await prepared(urls[0])
    *_, commits = await sent(urls[0], keys, commands, 0, moment)
    assert isinstance(commits, int)
    left = iter(range(1, commits + 1))
    cut_off: set[str] = set()

    async def some(url: str) -> None:
        for at in left:
            truth = await prepared(url)
            command = str((await sent(url, keys, commands, at, moment))[-1])
            await look(url, truth, command)
            cut_off.add(command)

    await asyncio.gather(*map(some, urls))
    assert cut_off == set(commands)


@pytest.mark.parametrize("moment", get_args(Moment))
@pytest.mark.parametrize(
    ("prepared", "commands"),
    [
        pytest.param(fill, THE_WAY, id="the way"),
        pytest.param(half_migrated, ("abandon",), id="abandoned"),
    ],
)
async def test_killed_at_any_commit_nothing_is_lost_and_the_same_command_goes_on(
    database_url: str,
    more_databases: Callable[[], str],
    prepared: Callable[[str], Awaitable[Truth]],
    commands: Sequence[str],
    moment: Moment,
) -> None:
    async def look(url: str, truth: Truth, command: str) -> None:
        await check(url, truth)
        async with opened(url, NEW, OLD, create=False, node="again") as ledger:
            await do(ledger, command)
            assert not await do(ledger, command), f"{command} was not finished by itself"
            for rest in (*commands[commands.index(command) + 1 :], *THE_WAY):
                await do(ledger, rest)
            assert [record.state for record in await ledger.key_history()] == ["retired", "active"]
            assert {g.state for g in await ledger.generations()} == {"active", "purged"}
        async with opened(url, NEW, create=False, verify="full") as ledger:
            await check_values(ledger, truth, set())
        await fold_log(url, [NEW])

    urls = database_url, more_databases()
    await _every_commit(urls, prepared, [NEW, OLD], commands, moment, look)


async def half_lost(url: str) -> Truth:
    """A ledger whose old key is gone, and what lies under the new one."""
    await fill(url)
    async with opened(url, NEW, OLD) as ledger:
        await ledger.rotate()
        await ledger.put("often", "value 2")
        await ledger.put("late", "late")
    return Truth({"often": b"value 2", "late": b"late"}, {("often", 3): b"value 2"})


@pytest.mark.parametrize("moment", get_args(Moment))
async def test_killed_while_a_lost_key_is_given_up_its_versions_end_once_and_no_others(
    database_url: str, more_databases: Callable[[], str], moment: Moment
) -> None:
    lost, *rest = ("lost k-old", "migrate", "purge 0")

    async def look(url: str, truth: Truth, command: str) -> None:
        rows = await rows_of(url)
        said = await read_rows(url, "SELECT stream, event_type FROM secret_event")
        given_up = ("$ledger", "key.lost") in said
        assert not (given_up and "k-old" in rows.heads)  # each secret is ended before that
        assert await outcome(url, NEW) is (MissingKey if "k-old" in rows.heads else None)
        async with opened(url, NEW, create=False, verify="control", node="again") as ledger:
            await check_values(ledger, truth, set())
            for name, version, gone in (
                ("often", 1, given_up),
                ("large", None, ("large", "secret.destroyed") in said),
            ):
                expected = SecretDestroyed if gone else MissingKey
                assert await ending(ledger, name, version) is expected
            assert await do(ledger, lost) != given_up
            assert not await do(ledger, lost)
            for each in rest:
                await do(ledger, each)
        async with opened(url, NEW, create=False, verify="full") as ledger:
            await check_values(ledger, truth, set())
            assert await ending(ledger, "often", 1) is SecretDestroyed
            assert [r.state for r in await ledger.key_history()] == ["lost", "active"]
        await fold_log(url, [NEW])

    urls = database_url, more_databases()
    await _every_commit(urls, half_lost, [NEW], [lost], moment, look)
