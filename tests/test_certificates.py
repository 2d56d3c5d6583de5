"""What retire, purge, rekey and full verification say rests on what is proven, not on columns.

Somebody with SQL access and no key edits head rows, key columns and rows; each edit is a line of
a table. Nothing is certified over it, and full verification names it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attacker import Attacker, attacking
from independent_fold import read_rows
from inside import EVENT_COLUMNS
from ledgers import NEW, OLD, THIRD, opened
from moves import states
from secret_ledger import KeyInUse, MissingKey, SecretLedger, TamperedEvent

NEW_COLUMNS = (
    "key_id = 'k-new', key_fingerprint ="
    " (SELECT key_fingerprint FROM ledger_key WHERE key_id = 'k-new')"
)

Edit = Sequence[str]


def planted(position: int) -> Edit:
    """A row too many in generation 0, in a stream of its own."""
    copied = ", ".join(EVENT_COLUMNS.split(", ")[4:])
    return [
        f"INSERT INTO secret_event ({EVENT_COLUMNS})"  # noqa: S608  # ours
        f" SELECT 0, {position}, 'planted', 1, {copied}"
        " FROM secret_event WHERE generation = 0 AND position = 4"
    ]


OF_A_CLOSED_GENERATION: dict[str, Edit] = {
    "it says purged": ["UPDATE ledger_head SET state = 'purged' WHERE generation = 0"],
    "it says purging": ["UPDATE ledger_head SET state = 'purging' WHERE generation = 0"],
    "it says that it is being built": [
        "UPDATE ledger_head SET state = 'building' WHERE generation = 0"
    ],
    "it says purged, and ends at 0": [
        "UPDATE ledger_head SET state = 'purged', position = 0 WHERE generation = 0"
    ],
    "it ends at 0": ["UPDATE ledger_head SET position = 0 WHERE generation = 0"],
    "it was emptied": ["DELETE FROM secret_event WHERE generation = 0"],
    "it was emptied, and says purged": [
        "DELETE FROM secret_event WHERE generation = 0",
        "UPDATE ledger_head SET state = 'purged' WHERE generation = 0",
    ],
    "it was cut": [
        "DELETE FROM secret_event WHERE generation = 0 AND position > 4",
        "UPDATE ledger_head SET position = 4 WHERE generation = 0",
    ],
    "it was cut at its beginning": [
        "DELETE FROM secret_event WHERE generation = 0 AND position < 4",
    ],
    "its rows were relabelled": [
        f"UPDATE secret_event SET {NEW_COLUMNS} WHERE generation = 0",  # noqa: S608  # ours
    ],
    "its rows lie elsewhere": [
        "UPDATE secret_event SET generation = 99 WHERE generation = 0",
        "UPDATE ledger_head SET state = 'purged' WHERE generation = 0",
    ],
    "its rows lie elsewhere, where a head row says purged": [
        "UPDATE secret_event SET generation = 99 WHERE generation = 0",
        "UPDATE ledger_head SET generation = 99, state = 'purged' WHERE generation = 0",
    ],
    "its head row is gone": ["DELETE FROM ledger_head WHERE generation = 0"],
    "a row lies behind its end": planted(99),
    "a row lies before its beginning": planted(-1),
    "its end is another secret's": [
        "UPDATE secret_event SET stream = 'other' WHERE generation = 0 AND stream = 'a'"
    ],
}


async def migrated(ledger: SecretLedger) -> None:
    for name in ("a", "b"):
        await ledger.put(name, f"value of {name}")
    await ledger.put("a", "second")
    await ledger.rotate(NEW)
    await ledger.migrate()


async def edited(attacker: Attacker, edit: Edit) -> None:
    for statement in edit:
        await attacker.sql(statement)


@pytest.mark.parametrize("name", OF_A_CLOSED_GENERATION)
async def test_an_edit_of_a_closed_generation_is_found_and_nothing_is_certified_over_it(
    database_url: str, name: str
) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        assert (await ledger.verify("full")).ok
        async with attacking(database_url) as attacker:
            await edited(attacker, OF_A_CLOSED_GENERATION[name])
        assert [f.kind for f in (await ledger.verify("full")).findings[:1]] == ["tampered"]
        with pytest.raises((KeyInUse, TamperedEvent)):
            await ledger.retire("k-old")
        assert not (await ledger.abandon_migration()).changed
        assert not await said(database_url, "key.retired")
        assert (await ledger.get("a")).value.reveal() == b"second"


@pytest.mark.parametrize(
    "name", [name for name in OF_A_CLOSED_GENERATION if "elsewhere" not in name]
)
async def test_purging_it_is_the_way_back_from_any_such_edit(database_url: str, name: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        async with attacking(database_url) as attacker:
            await edited(attacker, OF_A_CLOSED_GENERATION[name])
        await ledger.purge_generation(0)
        assert await said(database_url, "generation.purged") == 1
        assert await states(database_url) == [(0, "purged"), (1, "active")]
        assert (await ledger.retire("k-old")).changed
    async with opened(database_url, NEW, verify="full") as ledger:
        assert (await ledger.get("a", version=1)).value.reveal() == b"value of a"


async def said(url: str, event_type: str) -> int:
    query = f"SELECT count(*) FROM secret_event WHERE event_type = '{event_type}'"  # noqa: S608  # ours
    return int((await read_rows(url, query))[0][0])


async def test_a_certificate_says_how_far_the_log_was_verified(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        await ledger.purge_generation(0)
        end = ledger.position
        await ledger.retire("k-old")
        ((metadata,),) = await read_rows(
            database_url, "SELECT metadata FROM secret_event WHERE event_type = 'key.retired'"
        )
        assert f'"generation":1,"hash":"' in str(metadata)  # noqa: F541
        assert f'"position":{end}' in str(metadata)


async def test_heads_that_were_relabelled_are_neither_re_encrypted_nor_free_of_their_key(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        for name in ("a", "b"):
            await ledger.put(name, f"value of {name}")
        await ledger.rotate(NEW)
        async with attacking(database_url) as attacker:
            await attacker.sql(f"UPDATE secret_event SET {NEW_COLUMNS} WHERE stream = 'a'")  # noqa: S608  # ours
        report = await ledger.rekey()
        assert (report.rekeyed, report.already, report.skipped) == (1, 0, 1)
        assert [finding.stream for finding in report.findings] == ["a"]
        async with attacking(database_url) as attacker:
            await attacker.sql(f"UPDATE secret_event SET {NEW_COLUMNS}")  # noqa: S608  # ours
            await attacker.sql(
                "UPDATE secret_event SET key_id = 'k-old', key_fingerprint ="
                " (SELECT key_fingerprint FROM ledger_key WHERE key_id = 'k-old')"
                " WHERE stream = '$ledger' AND version < 4"
            )
        with pytest.raises((KeyInUse, TamperedEvent)):
            await ledger.retire("k-old")


async def test_the_last_good_copy_is_kept_while_the_generation_in_use_is_damaged(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        async with attacking(database_url) as attacker:
            await attacker.sql(
                'UPDATE secret_event SET metadata = \'{"actor":"m"}\''
                " WHERE generation = 1 AND stream = 'a' AND version = 2"
            )
        with pytest.raises(TamperedEvent, match=r"generation 0 was not purged.*a version 2"):
            await ledger.purge_generation(0)
        assert await states(database_url) == [(0, "closed"), (1, "active")]
        await ledger.destroy("a", reason="damaged, and copied from generation 0 by hand")
        assert (await ledger.purge_generation(0)).changed
        assert (await ledger.retire("k-old")).changed


@pytest.mark.parametrize("closed", [False, True])
async def test_a_key_is_not_retired_while_rows_under_another_one_can_not_be_looked_at(
    database_url: str, closed: bool
) -> None:
    """They may lie under the key that is to be retired, and be relabelled."""
    async with opened(database_url, OLD) as ledger:
        await migrated(ledger)
        await ledger.purge_generation(0)
        await ledger.rotate(THIRD)
        if closed:
            await ledger.migrate()
    async with opened(database_url, THIRD, OLD, verify="control") as ledger:
        with pytest.raises(MissingKey, match="k-new"):
            await ledger.retire("k-old")
    async with opened(database_url, THIRD, NEW) as ledger:
        assert (await ledger.retire("k-old")).changed


@pytest.mark.parametrize("state", ["purged", None])
async def test_rows_above_the_generation_in_use_are_found_at_boot(
    database_url: str, state: str | None
) -> None:
    """An old head row that was put back would hide them."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
    async with attacking(database_url) as attacker:
        columns = ", ".join((await attacker.columns("secret_event"))[1:])
        await attacker.sql(
            f"INSERT INTO secret_event (generation, {columns})"  # noqa: S608  # ours
            f" SELECT 1, {columns} FROM secret_event WHERE position = 1"
        )
        if state:
            await attacker.sql(
                "INSERT INTO ledger_head (generation, position, recorded_at, key_epoch, state)"
                " VALUES (1, 0, 0, 1, 'purged')"
            )
    with pytest.raises(TamperedEvent, match="generation 1, above the one in use"):
        async with opened(database_url, OLD):
            pass
