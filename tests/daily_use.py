"""All that a service does with a ledger at run time, each call's answer looked at."""

from __future__ import annotations

from secret_ledger import SecretLedger
from secret_ledger_projections import SysSecret, check, rebuild


async def use(ledger: SecretLedger, prefix: str) -> None:
    """Write below `prefix`, read it back, verify; the ledger is open for writing once."""
    name = f"{prefix}/a"
    await ledger.put(name, "1", expect=0)
    assert (await ledger.put(name, "2", expect=1)).version == 2
    await ledger.put_many({f"{prefix}/n/{n}": str(n) for n in range(60)})
    assert (await ledger.get(name, version=1)).value.reveal() == b"1"
    await ledger.delete(name)
    assert (await ledger.restore(name)).version == 4
    assert (await ledger.get(name)).value.reveal() == b"2"
    await ledger.destroy(f"{prefix}/n/0", reason="over")
    assert [n.state for n in await ledger.nodes()] == ["live"]
    await read(ledger, prefix)
    assert (await rebuild(ledger.database, SysSecret())).changed == 0


async def read(ledger: SecretLedger, prefix: str) -> None:
    """Read, list and verify what `use` has left."""
    assert (await ledger.get(f"{prefix}/a")).value.reveal() == b"2"
    assert [s.version async for s in ledger.history(f"{prefix}/a")] == [1, 2, 3, 4]
    assert len([s async for s in ledger.list(f"{prefix}/n/")]) == 59
    for report in (await ledger.verify("latest"), await ledger.verify("full")):
        assert report.ok, report.findings
    assert (await ledger.health()).ready
    assert [d async for d in check(ledger.database, SysSecret())] == []
