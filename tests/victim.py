"""A ledger with every kind of secret in it, and the truth about what its reads must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from secret_ledger import Key, Keyring, LedgerError, SecretLedger

OLD = Key.from_bytes(bytes(range(1, 33)), "k-old")
NEW = Key.from_bytes(bytes(range(101, 133)), "k-new")
BOTH = Keyring.of(NEW, [OLD])

LARGE = b"large value " * 2000
"""Over the size up to which a page of rows carries its sealed bytes."""

Ending = bytes | type[LedgerError]
"""How a read ends: the value, or the kind of its error."""


@dataclass(frozen=True)
class Truth:
    """What every read of the undamaged ledger gives: by name, and by name and version."""

    latest: Mapping[str, Ending]
    versions: Mapping[tuple[str, int], Ending]


def opened(
    url: str, keyring: Keyring = BOTH, **options: Any
) -> AbstractAsyncContextManager[SecretLedger]:
    return SecretLedger.open(url, keyring, **options)


async def ending(ledger: SecretLedger, name: str, version: int | None = None) -> Ending:
    try:
        return (await ledger.get(name, version=version)).value.reveal()
    except LedgerError as error:
        return type(error)


async def told(ledger: SecretLedger, names: Sequence[tuple[str, int]]) -> Truth:
    latest = {name: await ending(ledger, name) for name, _ in names}
    return Truth(latest, {(n, v): await ending(ledger, n, v) for n, v in names})


async def build(url: str) -> Truth:
    """Fill an empty database: histories, a deletion, ends, a restore, a batch, a rotation."""
    async with opened(url, Keyring.of(OLD)) as ledger:
        for number in (1, 2):
            await ledger.put("alpha", f"alpha value {number}", actor="alice")
        await ledger.put("beta/one", "beta value 1", metadata={"ticket": 7})
        await ledger.put("deleted", "deleted value 1")
        await ledger.put("destroyed", "destroyed value 1")
        await ledger.rotate(NEW)
    async with opened(url) as ledger:
        await ledger.put("alpha", "alpha value 3", actor="bob")
        await ledger.put("beta/one", "beta value 2")
        await ledger.delete("deleted", actor="carol")
        await ledger.put("destroyed", "destroyed value 2")
        await ledger.destroy("destroyed", reason="leaked")
        await ledger.put("again", "again value 1")
        await ledger.destroy("again", reason="a clean start")
        await ledger.put("again", "again value 3")
        await ledger.put("back", "back value 1")
        await ledger.delete("back")
        await ledger.restore("back")
        await ledger.put("large", LARGE)
        await ledger.put_many({f"batch/{n}": f"batch value {n}" for n in (1, 2, 3)})
        names = [
            (info.name, version)
            async for info in ledger.list(deleted=True)
            for version in range(1, info.version + 1)
        ]
        return await told(ledger, names)
