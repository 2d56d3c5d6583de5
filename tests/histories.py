"""A ledger with a history, and all of it that a migration must not change."""

from __future__ import annotations

from typing import Any

from secret_ledger import SecretLedger


async def fill(ledger: SecretLedger) -> None:
    """Each kind of event, and a history."""
    for n in range(3):
        await ledger.put("often", f"value {n}", actor="alice", metadata={"n": n})
    await ledger.put_many({f"many/{n}": f"many {n}" for n in range(40)})
    await ledger.put("deleted", "x")
    await ledger.delete("deleted", actor="bob")
    await ledger.put("back", "here again")
    await ledger.delete("back")
    await ledger.restore("back")
    await ledger.put("ended", "secret no more")
    await ledger.destroy("ended", reason="leaked")
    await ledger.put("anew", "first")
    await ledger.destroy("anew", reason="leaked")
    await ledger.put("anew", "second")
    await ledger.put("large", "large " * 20_000)


async def facts(ledger: SecretLedger) -> list[tuple[Any, ...]]:
    """All that a migration must not change."""
    return [
        (s.name, v.version, v.event_type, v.recorded_at, v.actor, v.metadata, v.position)
        async for s in ledger.list(deleted=True)
        async for v in ledger.history(s.name)
    ]
