"""A service that uses a ledger, for tests that run several of it, command them and kill them.

`run` is the whole life of one such process, as `fleet.start` makes it: it opens the ledger
and does what its `Part` says, in its own style. It says what happens in lines of JSON on its
wire, each sent before anything else is done; and it hears words on the same wire:

`go`      to one that is `held`: open now
`rotate`  rotate to its current key; what follows the word is the reason to force it with
`rekey`   re-encrypt the heads
`move`    move the ledger to the URL that follows the word
`write`   put so many secrets more, one at a time
`do`      run the command that follows the word, see `doomed`; says that it begins, and how it ended
`die`     kill itself just before the commit of that number, of those that are still to come
`stop`    end the work, close the ledger, exit

A refusal at the door is said, and its exit code is the process's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Final

import history_client
from commits import before_commit
from doomed import do
from secret_ledger import Key, Keyring, LedgerError, SecretLedger, SecretVersion

REFUSALS = 10
"""Refused writes in a row after which a writer gives up."""

_ARMED: Final = contextlib.ExitStack()
"""What it is to die of: until it does."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a process is to do."""

    url: str
    keys: tuple[tuple[str | None, str], ...] = field(repr=False)
    """Label and text of each key, the current one first."""
    node: str
    style: str
    """`each` puts one secret at a time, `batch` five in one put_many, `shared` a few names
    that all writers fight for; `open` opens and ends, `attend` opens and only listens;
    `history` does a bit of everything, see `history_client`."""
    tasks: int
    count: int
    """Writes, or calls, of each task; 0: until it is told to stop."""
    options: Mapping[str, Any]
    """For `SecretLedger.open`."""
    environ: Mapping[str, str]
    """Variables of its environment, beside those of the tests."""
    held: bool
    """Wait to be told `go` before opening."""


class Wire:
    """What the process says, and what it is told."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.go = asyncio.Event()
        self.stop = asyncio.Event()
        self.words: asyncio.Queue[str] = asyncio.Queue()

    def say(self, kind: str, **facts: Any) -> None:
        """One line; sent when this returns, so that a kill does not take it back."""
        self._connection.sendall(json.dumps({"kind": kind, **facts}).encode() + b"\n")

    def listen(self) -> None:
        """Hear words from now on, on a thread that ends with the process."""
        threading.Thread(
            target=self._listen, args=(asyncio.get_running_loop(),), daemon=True
        ).start()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        events = {"go": self.go.set, "stop": self.stop.set}
        with self._connection.makefile("r") as lines, contextlib.suppress(RuntimeError):
            for line in lines:
                word = line.rstrip("\n")
                loop.call_soon_threadsafe(events.get(word) or partial(self.words.put_nowait, word))
            os._exit(1)  # whoever started us is gone


async def write(ledger: SecretLedger, part: Part, wire: Wire, task: int) -> None:
    refused = 0
    for number in range(1, part.count + 1) if part.count else count(1):
        if wire.stop.is_set():
            return
        unique = f"{part.node}-{os.getpid()}-{task}-{number}"
        try:
            done = await _written(ledger, part, task, number, unique)
        except LedgerError as error:
            wire.say("refused", code=error.code, unique=unique)
            refused += 1
            if refused == REFUSALS:
                raise
            continue
        refused = 0
        wire.say(
            "wrote",
            names=[d.name for d in done],
            versions=[d.version for d in done],
            positions=[d.position for d in done],
            keys=[d.key_id for d in done],
            unique=unique,
        )


async def _written(
    ledger: SecretLedger, part: Part, task: int, number: int, unique: str
) -> list[SecretVersion]:
    if part.style == "each":
        return [await ledger.put(f"{part.node}/{task}/{number}", unique)]
    if part.style == "shared":
        return [await ledger.put(f"shared/{number % 7}", unique, metadata={"id": unique})]
    items = {f"{part.node}/{task}/{number}/{n}": f"{unique}-{n}" for n in range(5)}
    return list(await ledger.put_many(items))


async def obey(ledger: SecretLedger, part: Part, wire: Wire) -> None:
    """Do as told, one word after the other."""
    tasks = count(part.tasks)
    while True:
        word, _, rest = (await wire.words.get()).partition(" ")
        try:
            if word == "rotate":
                turn = await ledger.rotate(force_reason=rest or None)
                wire.say("rotated", key_id=turn.key_id, position=turn.position)
            elif word == "rekey":
                done = await ledger.rekey()
                wire.say("rekeyed", key_id=done.key_id, rekeyed=done.rekeyed, ok=done.ok)
            elif word == "move":
                moved = await ledger.migrate(rest)
                wire.say("moved", changed=moved.changed)
            elif word == "write":
                await write(ledger, replace(part, style="each", count=int(rest)), wire, next(tasks))
            elif word == "do":
                wire.say("began", command=rest)
                wire.say("did", command=rest, **await _did(ledger, rest))
            elif word == "die":
                _ARMED.enter_context(
                    before_commit(int(rest), partial(os.kill, os.getpid(), signal.SIGKILL))
                )
        except LedgerError as error:
            wire.say("refused", code=error.code, unique=word)


async def _did(ledger: SecretLedger, command: str) -> Mapping[str, Any]:
    try:
        return {"changed": await do(ledger, command)}
    except LedgerError as error:
        return {"changed": None, "code": error.code}


async def work(ledger: SecretLedger, part: Part, wire: Wire) -> None:
    if part.style == "attend":
        await wire.stop.wait()
        return
    tasks: Callable[[int], Awaitable[None]] = partial(write, ledger, part, wire)
    if part.style == "history":
        tasks = partial(
            history_client.client, ledger, part.node, wire.say, wire.stop, calls=part.count
        )
    async with asyncio.TaskGroup() as group:
        for task in range(part.tasks):
            group.create_task(_of(tasks, task))


async def _of(tasks: Callable[[int], Awaitable[None]], task: int) -> None:
    await tasks(task)


async def serve(part: Part, connection: socket.socket) -> int:
    wire = Wire(connection)
    wire.listen()
    if part.held:
        wire.say("ready")
        await wire.go.wait()
    current, *previous = (Key.parse(key, label) for label, key in part.keys)
    exit_code = 0
    try:
        async with SecretLedger.open(
            part.url, Keyring.of(current, previous), node=part.node, **part.options
        ) as ledger:
            wire.say("opened", ledger_id=ledger.ledger_id, created=ledger.created)
            if part.style != "open":
                listener = asyncio.create_task(obey(ledger, part, wire))
                await work(ledger, part, wire)
                listener.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listener
    except* LedgerError as refusals:
        error: BaseException = refusals
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, LedgerError)
        wire.say("failed", code=error.code)
        exit_code = error.exit_code
    return exit_code


def run(part: Part, connection: socket.socket) -> None:
    """The process's main function."""
    for name in [name for name in os.environ if name.startswith("OS_SECRET_")]:
        del os.environ[name]
    os.environ.update(part.environ)
    sys.exit(asyncio.run(serve(part, connection)))
