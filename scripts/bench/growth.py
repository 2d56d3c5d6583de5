"""Growth: one ledger that gets longer, and the time of the same operations at each length.

A boot with `latest` opens every secret, so its time grows with the secrets. Every other time
should stay, or grow with the logarithm: of the audit, reads, writes and the list's first page.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from given import Given
from progress import clear, say
from secret_ledger import Key, Keyring, SecretLedger
from secret_ledger.rules.findings import OpenLevel
from seeds import fill
from values import name_of, names, some_value

__all__ = ["Stage", "measure"]

_FIRST: Final = 10_000
_VERSIONS: Final = 10
"""Versions of each secret, about."""
_TIMES: Final = 200
"""Repetitions of an operation that is timed. The median counts."""
_LISTED: Final = 100
_LEVELS: Final[tuple[OpenLevel, ...]] = ("incremental", "latest")
_SLICE: Final = 200_000
"""Events written between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The ledger at one length. Times are in milliseconds, medians except of the boots."""

    events: int
    secrets: int
    bytes_an_event: float
    """Bytes on the disk for each event, indexes and projection included."""
    append_ms: float
    get_ms: float
    get_old_ms: float
    """Milliseconds of a read of version 1."""
    list_ms: float
    """Milliseconds for the first hundred names."""
    audit_ms: float
    """Milliseconds of `key_history`."""
    boot_ms: dict[OpenLevel, float]
    """Milliseconds of a boot, by level of verification."""


async def measure(given: Given) -> AsyncIterator[Stage]:
    """Yield the stages of one ledger: 10,000 events, then ten times as many each time."""
    url, key = given.place.empty("growth"), Key.generate()
    events = _FIRST
    while events <= given.size.longest:
        async with SecretLedger.open(url, Keyring.of(key), verify="control") as ledger:
            await _grow(ledger, events)
            timed = await _timed(ledger, events)
            size = await _size(ledger)
        boots = {level: await _boot(url, key, level) for level in _LEVELS}
        clear()
        yield Stage(events, _secrets(events), size / events, **timed, boot_ms=boots)
        events *= 10
    given.place.drop(url)


def _secrets(events: int) -> int:
    return events // _VERSIONS


async def _grow(ledger: SecretLedger, events: int) -> None:
    """Writes each secret in turn: so every secret exists when the log has `events` events."""
    known = names(_secrets(events))
    offset = 0
    while (left := events - ledger.position) > 0:
        say(f"growing to {events:,} events: {ledger.position:,}")
        some = known[offset : offset + min(left, _SLICE)]
        await fill(ledger, some)
        offset = (offset + len(some)) % len(known)


async def _timed(ledger: SecretLedger, events: int) -> dict[str, float]:
    say(f"{events:,} events: timing")
    value, secrets = some_value(), _secrets(events)

    def name() -> str:
        return name_of(random.randrange(secrets))  # noqa: S311  # chance guards nothing here

    async def listed() -> None:
        count = 0
        async for _ in ledger.list():
            if (count := count + 1) == _LISTED:
                return

    return {
        "append_ms": await _median(lambda: ledger.put(name(), value), _TIMES),
        "get_ms": await _median(lambda: ledger.get(name()), _TIMES),
        "get_old_ms": await _median(lambda: ledger.get(name(), version=1), _TIMES),
        "list_ms": await _median(listed, _TIMES // 4),
        "audit_ms": await _median(ledger.key_history, _TIMES // 20),
    }


async def _median(operation: Callable[[], Awaitable[object]], times: int) -> float:
    """Milliseconds that one call takes."""
    taken = []
    for _ in range(times):
        began = perf_counter()
        await operation()
        taken.append(perf_counter() - began)
    return statistics.median(taken) * 1e3


async def _boot(url: str, key: Key, level: OpenLevel) -> float:
    """Milliseconds of the second boot: the first boot may leave something that later boots build
    on."""
    taken = 0.0
    for _ in range(2):
        began = perf_counter()
        async with SecretLedger.open(url, Keyring.of(key), verify=level):
            taken = perf_counter() - began
    return taken * 1e3


async def _size(ledger: SecretLedger) -> int:
    """Bytes on the disk."""
    database = ledger.database
    sql = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if database.name == "sqlite"
        else "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'secret_ledger' AND c.relkind = 'r'"
    )
    return int(await database.run(lambda c: c.exec_driver_sql(sql).scalar_one(), "statement"))
