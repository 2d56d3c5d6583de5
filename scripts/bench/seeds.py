"""Ledgers to measure, written once in a run and copied for each part that changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from places import Place
from progress import say
from secret_ledger import Key, Keyring, SecretLedger
from values import names, some_value

__all__ = ["Seed", "Seeds", "fill"]

_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Seed:
    """A ledger that nobody has open."""

    url: str
    key: Key = field(repr=False)
    secrets: int
    versions: int

    @property
    def events(self) -> int:
        """Number of written events: all first versions lie before all second versions."""
        return self.secrets * self.versions


class Seeds:
    """The ledgers of one place. Each was closed after the writes, and not opened again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._made: dict[tuple[int, int], Seed] = {}

    async def ledger(self, secrets: int, versions: int) -> Seed:
        """Return the ledger of this size, always the same: copy it before you change it."""
        if (secrets, versions) not in self._made:
            say(f"writing {versions} versions of {secrets:,} secrets")
            seed = Seed(self._place.empty("seed"), Key.generate(), secrets, versions)
            async with SecretLedger.open(seed.url, Keyring.of(seed.key)) as ledger:
                await fill(ledger, names(secrets), versions)
            self._made[secrets, versions] = seed
        return self._made[secrets, versions]

    def drop(self, seed: Seed) -> None:
        """Delete the ledger: nobody will ask for it again."""
        del self._made[seed.secrets, seed.versions]
        self._place.drop(seed.url)


async def fill(ledger: SecretLedger, known: Sequence[str], versions: int = 1) -> None:
    """Write `versions` versions of each of these secrets."""
    value = some_value()
    for _ in range(versions):
        for start in range(0, len(known), _BATCH):
            await ledger.put_many(dict.fromkeys(known[start : start + _BATCH], value))
