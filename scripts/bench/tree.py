"""One tree at work: it imports the ledger of that tree, and does each requested operation.

It uses only functions that every revision has.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from lines import answer, asked
from values import names, some_value

if TYPE_CHECKING:
    from secret_ledger import Keyring, SecretLedger

_BATCH: Final = 2_000


async def _serve() -> None:
    given = await asked()
    ledger = import_module(given["package"])
    if not Path(str(ledger.__file__)).is_relative_to(given["tree"]):
        raise RuntimeError(f"the ledger of {given['tree']} was not imported")
    url, keyring = given["url"], ledger.Keyring.of(ledger.Key.parse(given["key"]))
    known, value = names(given["secrets"]), some_value()
    async with ledger.SecretLedger.open(url, keyring) as opened:
        for first in range(0, len(known), _BATCH):
            await opened.put_many(dict.fromkeys(known[first : first + _BATCH], value))
        answer("ready")
        while (ask := await asked()) is not None:
            answer(await _do(ask, opened, known, url, keyring))


async def _do(
    ask: dict[str, Any], opened: SecretLedger, known: list[str], url: str, keyring: Keyring
) -> float:
    """Seconds that one operation took."""
    began, done, value = perf_counter(), 0, some_value()
    if ask["what"] == "boot":
        async with type(opened).open(url, keyring, verify="latest", node="booting"):
            return perf_counter() - began
    while perf_counter() - began < ask["seconds"]:
        name = known[done * 7919 % len(known)]
        await (opened.get(name) if ask["what"] == "get" else opened.put(name, value))
        done += 1
    return (perf_counter() - began) / done


if __name__ == "__main__":
    asyncio.run(_serve())
