"""A full verification beside migrations and purges: what they do meanwhile is no damage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from between import interrupted
from doomed import do
from independent_fold import read_rows
from inside import Database, OpenLevel, opening, parse_metadata
from inside import connect as database_of
from ledgers import opened
from secret_ledger import Key, Keyring, SecretLedger, TamperedEvent


class Operator:
    """Another process, which migrates and purges; each migration goes to a key of its own."""

    def __init__(self, ledger: SecretLedger, keys: list[Key]) -> None:
        self.ledger = ledger
        self.keys = keys

    async def reloaded(self, *ledgers: SecretLedger) -> None:
        """A further key, which `ledgers` hold too."""
        self.keys.insert(1, Key.generate())
        ring = Keyring.of(self.keys[0], self.keys[1:])
        for ledger in ledgers:
            await ledger.reload_keys(ring)

    async def rotates(self) -> None:
        self.keys[0], self.keys[1] = self.keys[1], self.keys[0]
        await self.ledger.rotate(self.keys[0], force_reason="the others hold it")

    async def migrates(self) -> None:
        await self.rotates()
        await self.ledger.migrate()

    async def purges(self) -> None:
        for generation in await self.ledger.generations():
            if generation.state == "closed":
                await self.ledger.purge_generation(generation.generation)

    async def migrates_and_purges(self) -> None:
        await self.migrates()
        await self.purges()

    async def begins(self) -> None:
        await self.rotates()
        await do(self.ledger, "begin")

    async def gives_up(self) -> None:
        await self.ledger.abandon_migration()


STORIES: dict[str, tuple[str | None, str, str | None]] = {
    "a flip and a purge": (None, "migrates_and_purges", None),
    "a purge": ("migrates", "purges", None),
    "what is being built": (None, "begins", "gives_up"),
    "what is thrown away": ("begins", "gives_up", None),
}
"""What was done before, what is done meanwhile, and what is done after."""


@pytest.mark.parametrize("story", STORIES)
async def test_nothing_is_found_that_a_migration_or_a_purge_does_meanwhile(
    database_url: str, story: str
) -> None:
    before, meanwhile, after = STORIES[story]
    keys = [Key.generate()]
    async with (
        opened(database_url, *keys) as ledger,
        opened(database_url, *keys, node="operator") as other,
    ):
        for n in range(2):
            await ledger.put(f"secret/{n}", "x")
        operator = Operator(other, keys)
        step, last = 0, 1
        while step < last:
            step += 1
            await operator.reloaded(ledger, other)
            if before:
                await getattr(operator, before)()
            async with interrupted(ledger, step, getattr(operator, meanwhile)) as seen:
                report = await ledger.verify("full")
            assert report.ok, (step, report.findings)
            last = min(seen.begun, 40)
            if after:
                await getattr(operator, after)()


@pytest.mark.parametrize(
    ("story", "level"),
    [("a flip and a purge", "full"), ("a purge", "full"), ("a flip and a purge", "incremental")],
)
async def test_no_opening_is_refused_for_what_a_migration_or_a_purge_does_meanwhile(
    database_url: str, story: str, level: OpenLevel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meanwhile, after = STORIES[story]
    keys = [Key.generate()]
    connect = database_of
    async with opened(database_url, *keys, node="operator") as other:
        for n in range(2):
            await other.put(f"secret/{n}", "x")
        operator = Operator(other, keys)
        step, last = 0, 1
        while step < last:
            step += 1
            await operator.reloaded(other)
            if before:
                await getattr(operator, before)()
            if level == "incremental":
                async with opened(database_url, *keys):
                    pass  # which leaves an attestation to build on
            begun = Begun(connect, step, getattr(operator, meanwhile))
            monkeypatch.setattr(opening, "connect", begun.connect)
            try:
                async with opened(database_url, *keys, verify=level, heartbeat=3600) as ledger:
                    await ledger.get("secret/0")
                    last = min(begun.transactions, 60)
            except TamperedEvent as error:
                pytest.fail(f"refused at step {step}: {error}")
            monkeypatch.setattr(opening, "connect", connect)
            if after:
                await getattr(operator, after)()


async def test_a_certificate_speaks_of_the_generation_that_is_in_use_when_it_is_written(
    database_url: str,
) -> None:
    keys = [Key.generate()]
    async with (
        opened(database_url, *keys, heartbeat=3600) as ledger,
        opened(database_url, *keys, node="operator") as other,
    ):
        await ledger.put("secret", "x")
        operator = Operator(other, keys)
        begun = 0
        for before_the_end in (None, 0, 1, 2, 3):  # it is written in one of its last transactions
            await operator.reloaded(ledger, other)
            await operator.migrates_and_purges()
            unused = keys[1].for_ledger(bytes.fromhex(ledger.ledger_id)).id
            await operator.reloaded(ledger, other)
            at = 0 if before_the_end is None else begun - before_the_end
            async with interrupted(ledger, at, operator.migrates_and_purges) as seen:
                assert (await ledger.retire(unused)).changed
            begun = begun or seen.begun
            certified, in_use = await last_certificate(database_url)
            assert certified == in_use, before_the_end


async def last_certificate(url: str) -> tuple[int, int]:
    """Of the last key that was retired: the generation that its certificate says was verified,
    and how many had been opened by then."""
    newest = "generation = (SELECT max(generation) FROM secret_event)"
    ((position, metadata),) = await read_rows(
        url,
        f"SELECT position, metadata FROM secret_event WHERE {newest}"  # noqa: S608  # ours
        " AND event_type = 'key.retired' ORDER BY position DESC LIMIT 1",
    )
    ((opened_before,),) = await read_rows(
        url,
        f"SELECT count(*) FROM secret_event WHERE {newest}"  # noqa: S608  # ours
        f" AND event_type = 'generation.opened' AND position < {position}",
    )
    verified = parse_metadata(str(metadata)).ledger["verified"]
    return verified["generation"], int(opened_before)


class Begun:
    """Counts the transactions of an opening, and awaits `meanwhile` before one of them."""

    def __init__(
        self, connect: Callable[..., Database], at: int, meanwhile: Callable[[], Awaitable[object]]
    ) -> None:
        self.transactions = 0
        self._connect, self._at, self._meanwhile = connect, at, meanwhile

    def connect(self, *where: Any, **how: Any) -> Database:
        database: Any = self._connect(*where, **how)
        run = database.run

        async def counted(unit: object, mode: object) -> object:
            self.transactions += 1
            if self.transactions == self._at:
                await self._meanwhile()
            return await run(unit, mode)

        database.run = counted
        return database  # type: ignore[no-any-return]
