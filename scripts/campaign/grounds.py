"""Prepared ledgers: at rest, half migrated, half moved. Each case restores its ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from commits import Killed, killed_before_commit
from ledgers import NEW, OLD, THIRD, opened
from secret_ledger import Key, SecretDeleted, SecretDestroyed, SecretLedger, SecretNotFound
from tampering import Row, Tampering, tampering

__all__ = ["SITUATIONS", "Ground", "Truth", "asked", "prepare", "quiet"]

SITUATIONS = ("at rest", "while running", "during a migration", "during a move")

Question = tuple[str, Any, Any]
"""Name, version and time of a read; the version and the time may be None."""
Truth = dict[Question, object]


@dataclass(frozen=True, slots=True)
class Ground:
    """A ledger in one situation, and the true answers to its questions."""

    situation: str
    url: str
    target: str | None
    """URL of the database that the ledger moves to; None if it does not move."""
    here: Tampering
    there: Tampering | None
    truth: Truth

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys that the ledger's processes hold: every key."""
        return keys_in(self.situation)

    async def put_back(self) -> None:
        """Restore everything as it was prepared."""
        await self.here.put_back()
        if self.there is not None:
            await self.there.put_back()

    async def close(self) -> None:
        await self.here.close()
        if self.there is not None:
            await self.there.close()


def keys_in(situation: str) -> tuple[Key, ...]:
    """Return the keys of a situation. A migration in the same database needs a new key."""
    return (THIRD, NEW, OLD) if situation == "during a migration" else (NEW, OLD)


def quiet(url: str, **options: Any) -> Any:
    """Open a ledger with every key, and with a heartbeat that is too rare to matter."""
    keys = options.pop("keys", (NEW, OLD))
    return opened(url, *keys, heartbeat=3600, create=False, **options)


async def prepare(situation: str, urls: Callable[[], str], folder: Path) -> Ground:
    """Make the ledger of a situation. `urls` gives the URL of an empty database."""
    url = urls()
    await _filled(url, f"sqlite+aiosqlite:///{folder}/abandoned-{id(urls)}-{len(situation)}.db")
    target = None
    if situation == "during a migration":
        await _half_migrated(url)
    if situation == "during a move":
        target = urls()
        await _half_moved(url, target)
    here = await tampering(url)
    there = await tampering(target) if target else None
    await _beside(url, here, keys_in(situation))
    for side in (here, there):
        if side is not None:
            await side.keep()
    ground = Ground(situation, url, target, here, there, {})
    async with quiet(url, keys=ground.keys, verify="control", read_only=True) as ledger:
        for question in await _questions(ledger):
            ground.truth[question] = await asked(ledger, question)
    await ground.put_back()
    return ground


async def _filled(url: str, abandoned: str) -> None:
    async with opened(url, OLD, heartbeat=3600) as ledger:
        await ledger.put("a", "one")
        await ledger.put("other", "x", actor="bob")
        await ledger.put("gone", "was here")
        await ledger.delete("gone")
        await ledger.put("anew", "leaked")
        await ledger.destroy("anew", reason="leaked")
        await ledger.put("anew", "fresh")
    async with quiet(url, keys=(NEW, OLD)) as ledger:
        await ledger.rotate()
        await ledger.put("a", "two")
        with suppress(Killed), killed_before_commit(3):
            await ledger.migrate(abandoned)
        await ledger.abandon_migration(abandoned)
        await ledger.migrate()
        await ledger.put("a", "three")
        await ledger.put("other", "y")
        await ledger.put("other", "z")
        await ledger.put("last", "z")
    async with quiet(url, verify="incremental"):
        pass  # leaves an attestation


async def _half_migrated(url: str) -> None:
    """Everything is copied, and the new generation is not in use."""
    for commits in range(2, 12):  # one commit more each time: some commits copy nothing
        async with quiet(url, keys=(THIRD, NEW, OLD)) as ledger:
            with suppress(Killed), killed_before_commit(commits):
                await ledger.migrate()
        if await _copied(url) == 0:
            return
    raise RuntimeError("the migration did not come to its end")


async def _half_moved(url: str, target: str) -> None:
    for commits in range(2, 12):
        async with quiet(url) as ledger:
            with suppress(Killed), killed_before_commit(commits):
                await ledger.migrate(target)
        if await _copied(target, of=url) == 0:
            return
    raise RuntimeError("the move did not come to its end")


async def _copied(url: str, of: str | None = None) -> int | None:
    """Returns how many events the building generation lacks; None if no generation is building."""
    source, copy = await tampering(of or url), await tampering(url)
    try:
        heads = await source.rows("ledger_head")
        built = heads if of is None else await copy.rows("ledger_head")
        building = [r["position"] for r in built if r["state"] == "building"]
        active = [r["position"] for r in heads if r["state"] == "active"]
        return int(active[0] - building[-1]) if building and active else None
    except Exception:
        if of is None:
            raise
        return None  # the target has no table yet
    finally:
        await source.close()
        await copy.close()


async def _beside(url: str, here: Tampering, keys: tuple[Key, ...]) -> None:
    """Fills tables that would else be empty: lines of other nodes, wrapped keys."""
    async with (
        quiet(url, keys=keys, node="another"),
        quiet(url, keys=(keys[0],), node="a third", verify="control"),
    ):
        lines = await here.rows("ledger_node")
    await here.replace("ledger_node", [], lines)
    known = await here.rows("ledger_key")
    wraps: list[Row] = [
        {"key_fingerprint": key["key_fingerprint"], "wrap_hash": bytes([n]) * 32, "wrapped": text}
        for n, (key, text) in enumerate(zip(known, (b"one", b"two"), strict=False))
    ]
    await here.replace("ledger_wrap", [], wraps)


async def _questions(ledger: SecretLedger) -> list[Question]:
    times = [version.recorded_at async for version in ledger.history("a")]
    asked: list[Question] = [(name, None, None) for name in ("a", "other", "gone", "anew")]
    asked += [("a", 1, None), ("a", 3, None), ("anew", 1, None)]
    asked += [("a", None, times[0] + timedelta(microseconds=1))]
    return asked


async def asked(ledger: SecretLedger, question: Question) -> object:
    """Return the answer to a question: the bytes of a value, or the name of the error."""
    name, version, time = question
    at: datetime | None = time
    try:
        found = await ledger.get(name, version=version, at=at)
    except (SecretDeleted, SecretDestroyed, SecretNotFound) as error:
        return type(error).__name__
    return found.value.reveal()
