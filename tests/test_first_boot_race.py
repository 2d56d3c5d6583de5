"""A dozen processes at one empty database: one ledger, one key, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import Process, all_ready, check_history, start
from ledgers import NEW, OLD, STRANGER, THIRD, has_tables, lines, opened, rows
from postgresql_server import DatabaseHost
from secret_ledger import Key, open_unverified

KEYS = (OLD, NEW, THIRD, STRANGER)
SAME_KEY = 3
ELSEWHERE = "ab" * 16
"""The id of a ledger that is not here."""
WON, MISMATCH, WRONG_LEDGER, KILLED = 0, 11, 17, -9


async def at_the_door(
    url: str, *, pin: Callable[[int], str | None] = lambda number: None
) -> list[tuple[Key, Process]]:
    """Twelve processes, three for each key and under one name for it, about to open; each
    will make one write. `pin` says which ledger the n-th of a key is to find."""
    came = []
    for key in KEYS:
        for number in range(SAME_KEY):
            pinned = pin(number)
            environ = {"OS_SECRET_LEDGER_ID": pinned} if pinned else {}
            process = await start(
                url, key, f"with {key.key_id}", "each", tasks=1, count=1, held=True, environ=environ
            )
            came.append((key, process))
    await all_ready(process for _, process in came)
    return came


async def raced(fleet: list[tuple[Key, Process]]) -> list[int]:
    for _, process in fleet:
        process.tell("go")
    return await asyncio.gather(*(process.finish() for _, process in fleet))


async def refusals(url: str) -> Counter[tuple[str, str]]:
    """How many boots each key was refused for, by label and reason."""
    found = Counter[tuple[str, str]]()
    for line in await lines(url):
        if line.state == "refused":
            assert line.node == f"with {line.key_id}"
            found[line.key_id, line.reason] += line.refusals
    return found


async def test_of_twelve_first_boots_with_four_keys_one_key_wins(database_url: str) -> None:
    fleet = await at_the_door(database_url)
    codes = await raced(fleet)
    (winner,) = {key for (key, _), code in zip(fleet, codes, strict=True) if code == WON}
    assert codes == [WON if key is winner else MISMATCH for key, _ in fleet]
    ids = Counter(line["ledger_id"] for _, p in fleet for line in p.said("opened"))
    assert list(ids.values()) == [SAME_KEY]
    assert sum(line["created"] for _, p in fleet for line in p.said("opened")) == 1
    assert await refusals(database_url) == {
        (key.key_id, "key_fingerprint_mismatch"): SAME_KEY for key in KEYS if key is not winner
    }
    events = await check_history(
        database_url, winner, [t for _, p in fleet for t in p.acknowledged]
    )
    assert len(events) == 3 + SAME_KEY
    assert len((await rows(database_url))["ledger_meta"]) == 1


async def test_in_a_race_a_pinned_node_never_makes_a_ledger_nor_takes_another(
    database_url: str,
) -> None:
    fleet = await at_the_door(database_url, pin=lambda number: None if number else ELSEWHERE)
    codes = await raced(fleet)
    (winner,) = {key for (key, _), code in zip(fleet, codes, strict=True) if code == WON}
    assert codes == [
        WRONG_LEDGER if number % SAME_KEY == 0 else WON if key is winner else MISMATCH
        for number, (key, _) in enumerate(fleet)
    ]
    came_up = [line for _, p in fleet for line in p.said("opened")]
    (made,) = {line["ledger_id"] for line in came_up}
    assert made != ELSEWHERE
    assert sum(line["created"] for line in came_up) == 1

    again = await at_the_door(database_url, pin=lambda _: made)
    codes = await raced(again)
    assert codes == [WON if key is winner else MISMATCH for key, _ in again]
    assert not any(line["created"] for _, p in again for line in p.said("opened"))
    assert len((await rows(database_url))["ledger_meta"]) == 1


async def test_where_all_are_pinned_elsewhere_nothing_is_made(database_url: str) -> None:
    fleet = await at_the_door(database_url, pin=lambda _: ELSEWHERE)
    assert await raced(fleet) == [WRONG_LEDGER] * len(fleet)
    assert not await has_tables(database_url)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_first_boots_that_are_killed_leave_nothing_or_one_whole_ledger(
    tmp_path: Path, postgres_server: DatabaseHost, backend: str
) -> None:
    chance = random.Random(5)
    ends = Counter[int]()
    # Windows, in seconds, around the moment at which the ledger is made and others find it.
    for doomed, within in ((12, 0.15), (12, 0.3), (8, 0.5), (12, 1.0)):
        name = f"race_{chance.getrandbits(64):x}"
        url = f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        if backend == "postgresql":
            url = postgres_server.create_database(name)
        fleet = await at_the_door(url)
        for _, process in chance.sample(fleet, doomed):
            asyncio.get_running_loop().call_later(chance.uniform(0, within), process.handle.kill)
        codes = await raced(fleet)
        ends.update(codes)
        assert set(codes) <= {WON, MISMATCH, KILLED}
        came_up = {key for key, process in fleet if process.said("opened")}
        assert len(came_up) <= 1
        if await has_tables(url):
            async with open_unverified(url) as ledger:
                (status,) = await ledger.key_status()
            winner = next(key for key in KEYS if key.key_id == status.key_id)
            assert came_up <= {winner}
        else:
            assert not came_up
            winner = OLD
            async with opened(url, winner) as ledger:
                assert ledger.created
        await check_history(url, winner, [t for _, p in fleet for t in p.acknowledged])
        if backend == "postgresql":
            postgres_server.drop_database(name)
    assert ends[KILLED]
