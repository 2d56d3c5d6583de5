"""The bound of AES-GCM holds for what was sealed under a key, not for positions of the log."""

from __future__ import annotations

import pytest

from attacker import attacking
from doomed import do
from independent_fold import read_rows
from inside import Control, gate, parse_metadata
from ledgers import NEW, OLD, opened
from moves import Route, half_made, only, states
from secret_ledger import KeyExhausted, SecretLedger


async def control_of(ledger: SecretLedger) -> Control:
    return (await ledger._follower.follow()).control


async def sealed_under(url: str, key_id: str) -> int:
    found = await read_rows(
        url,
        f"SELECT count(*) FROM secret_event WHERE key_id = '{key_id}'",  # noqa: S608  # ours
    )
    return int(found[0][0])


async def abandoned(url: str) -> list[dict[str, object]]:
    found = await read_rows(
        url,
        "SELECT metadata FROM secret_event WHERE event_type = 'generation.abandoned'"
        " AND generation = 0 ORDER BY position",
    )
    return [dict(parse_metadata(str(row[0])).ledger) for row in found]


async def test_each_copy_of_the_history_counts_also_those_that_were_thrown_away(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({f"many/{n}": "x" for n in range(20)})
        assert (await control_of(ledger)).seals_under_active(ledger.position) == ledger.position
        await ledger.rotate(NEW)
        gone = 0
        for _ in range(3):
            await do(ledger, "begin")
            # What was appended under the new key, and copied.
            before = await sealed_under(database_url, "k-new")
            await ledger.abandon_migration()
            gone += before - (await sealed_under(database_url, "k-new") - 1)
        await ledger.migrate()
        counts = [about["count"] for about in await abandoned(database_url)]
        assert (len(counts), sum(map(int, map(str, counts)))) == (3, gone)
        kept = await sealed_under(database_url, "k-new")
        assert (await control_of(ledger)).seals_under_active(ledger.position) == kept + gone
        assert (await ledger.verify("full")).ok


async def test_a_head_row_claims_no_more_than_the_log_was_long(database_url: str) -> None:
    """What was sealed for good would else use the key up."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.rotate(NEW)
        await do(ledger, "begin")
        end = ledger.position
        async with attacking(database_url) as attacker:
            await attacker.sql(
                "UPDATE ledger_head SET position = 9000000000000000000 WHERE state = 'building'"
            )
        await ledger.abandon_migration()
        assert [about["count"] for about in await abandoned(database_url)] == [end]
        assert (await ledger.put("a", "2")).version == 2


@only
async def test_of_an_abandoned_move_no_more_counts_than_the_log_was_long(route: Route) -> None:
    await half_made(route)
    async with opened(route.source, OLD) as ledger:
        end = ledger.position
        await ledger.abandon_migration(route.target)
        assert [about["count"] for about in await abandoned(route.source)] == [end]
        assert (await ledger.verify("full")).ok


async def test_at_the_bound_nothing_more_is_sealed_nor_copied_and_a_rotation_is_the_way_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({f"many/{n}": "x" for n in range(20)})
        await ledger.rotate(NEW)
        await do(ledger, "begin")
        await ledger.abandon_migration()
        control = await control_of(ledger)
        used, end = control.seals_under_active(ledger.position), ledger.position
        monkeypatch.setattr(gate, "MAX_EVENTS_PER_KEY", used + end)
        with pytest.raises(KeyExhausted, match="k-new"):
            await ledger.migrate()
        assert await states(database_url) == [(0, "active"), (1, "purged")]
        monkeypatch.setattr(gate, "MAX_EVENTS_PER_KEY", used + 1)
        await ledger.put("a", "1")
        with pytest.raises(KeyExhausted, match="k-new"):
            await ledger.put("a", "2")
        await ledger.rotate(OLD.from_bytes(bytes(range(50, 82)), "k-fourth"))
        assert (await ledger.put("a", "2")).version == 2


async def test_at_the_bound_no_newest_event_is_re_encrypted(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({f"many/{n}": "x" for n in range(20)})
        await ledger.rotate(NEW)
        end = ledger.position
        used = (await control_of(ledger)).seals_under_active(end)
        monkeypatch.setattr(gate, "MAX_EVENTS_PER_KEY", used + 19)
        with pytest.raises(KeyExhausted, match="k-new"):
            await ledger.rekey()
        assert (await ledger.health()).position == end
        monkeypatch.setattr(gate, "MAX_EVENTS_PER_KEY", used + 20)
        assert (await ledger.rekey()).rekeyed == 20
