"""A service that writes, for tests that run several of it and kill it.

`python writer_process.py URL KEY NODE STYLE TASKS COUNT`: opens the ledger, then TASKS tasks
write until each has made COUNT writes (0: for ever). Each acknowledged write is one line on
stdout: names, then versions, then positions, comma-separated, in one write to the pipe.
STYLE `each` puts one secret at a time, `batch` five in one put_many, `shared` a few names that
all writers fight for. `open` opens, prints `opened`, and ends; a refusal prints its code.
"""

from __future__ import annotations

import asyncio
import os
import sys

from ledger import Key, Keyring, LedgerError, SecretLedger


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def write(ledger: SecretLedger, node: str, style: str, task: int, count: int) -> None:
    number = 0
    while not count or number < count:
        number += 1
        unique = f"{node}-{task}-{number}"
        if style == "each":
            done = [await ledger.put(f"{node}/{task}/{number}", unique)]
        elif style == "shared":
            done = [await ledger.put(f"shared/{number % 7}", unique, metadata={"id": unique})]
        else:
            items = {f"{node}/{task}/{number}/{part}": f"{unique}-{part}" for part in range(5)}
            done = list(await ledger.put_many(items))
        say(
            " ".join(
                (
                    ",".join(d.name for d in done),
                    ",".join(str(d.version) for d in done),
                    ",".join(str(d.position) for d in done),
                    unique,
                )
            )
        )


async def main() -> None:
    url, key, node, style, tasks, count = sys.argv[1:]
    keyring = Keyring.of(Key.from_bytes(bytes.fromhex(key), f"k-{key[:8]}"))
    try:
        async with SecretLedger.open(url, keyring, node=node, patience=30) as ledger:
            say(f"opened {ledger.ledger_id}")
            if style != "open":
                async with asyncio.TaskGroup() as group:
                    for task in range(int(tasks)):
                        group.create_task(write(ledger, node, style, task, int(count)))
    except LedgerError as error:
        say(f"refused {error.code}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    asyncio.run(main())
