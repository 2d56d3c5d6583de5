"""What the tests of refusals share: verbs, damage, and a rotation, done to a shell's ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from attacker import Attacker, attacking
from cli_session import KEY, NEW_KEY, Cli, Done
from inside import context_of, encode_metadata, event_hash, seal, to_microseconds
from secret_ledger import EventType, Keyring, SecretLedger

VERBS = (
    ["put", "b"], ["get", "a"], ["list"], ["history", "a"], ["delete", "a"], ["restore", "a"],
    ["destroy", "a", "--reason", "x", "--yes"], ["verify"],
    ["keys", "status"], ["keys", "history"], ["keys", "census"], ["keys", "rotate"],
    ["keys", "rekey"], ["keys", "retire", "k-old"], ["keys", "lost", "k-old", "--reason", "x"],
    ["migrate"], ["migrate", "--dry-run"], ["migrate", "--abandon"], ["generations", "list"],
    ["generations", "purge", "0", "--yes"], ["nodes"], ["health"],
    ["projections", "check"], ["projections", "rebuild"], ["schema", "upgrade"],
    ["init"],
)  # fmt: skip
WITHOUT_A_KEY = (
    ["list"], ["history", "a"], ["keys", "status"], ["keys", "history"], ["generations", "list"],
    ["nodes"],
)  # fmt: skip


def attack(cli: Cli, *statements: str) -> None:
    async def run() -> None:
        async with attacking(cli.url) as attacker:
            for statement in statements:
                await attacker.sql(statement)

    asyncio.run(run())


def damage_head(cli: Cli, name: str) -> None:
    async def flip(attacker: Attacker) -> None:
        ((sealed,),) = await attacker.sql("SELECT sealed FROM secret_event WHERE stream = $1", name)
        flipped = bytes(sealed[:-1]) + bytes([sealed[-1] ^ 1])
        await attacker.sql("UPDATE secret_event SET sealed = $1 WHERE stream = $2", flipped, name)

    _with(cli, flip)


def _with(cli: Cli, work: Callable[[Attacker], Awaitable[None]]) -> None:
    async def run() -> None:
        async with attacking(cli.url) as attacker:
            await work(attacker)

    asyncio.run(run())


def rotated(cli: Cli) -> None:
    """The ledger goes on under NEW_KEY."""

    async def run() -> None:
        async with SecretLedger.open(cli.url, Keyring.of(NEW_KEY, [KEY])) as ledger:
            await ledger.rotate()

    asyncio.run(run())


def moved(cli: Cli) -> None:
    """The ledger went to another database, as a migration will leave its source behind."""

    async def run() -> None:
        async with SecretLedger.open(cli.url, Keyring.of(KEY)) as ledger:
            control, head = ledger._follower.standing.control, ledger.position
            recorded_at = (await ledger.get("a")).recorded_at
        key = KEY.for_ledger(control.ledger_id)
        bare = control.last._replace(
            position=head + 1,
            version=control.last.version + 1,
            event_type=EventType.GENERATION_CLOSED,
            recorded_at=to_microseconds(recorded_at),
            metadata=encode_metadata(ledger={"generation": 1}),
            prev_hash=control.last.event_hash,
        )
        context = context_of(control.ledger_id, bare)
        sealed = seal(key.event_cipher, context, b"")
        closed = bare._replace(sealed=sealed, event_hash=event_hash(context, sealed))
        async with attacking(cli.url) as attacker:
            await attacker.insert_rows("secret_event", [tuple(closed)])
            await attacker.sql("UPDATE ledger_head SET state = 'moved', position = position + 1")

    asyncio.run(run())


def assert_refused(done: Done, code: int, words: list[str]) -> None:
    assert done.code == code, (words, done)
    assert done.raw == b"" or words[0] in ("verify", "health"), words
    assert len(done.remarks("error:")) == 1, words
    assert done.err.splitlines()[-1] or done.remarks("hint:")
