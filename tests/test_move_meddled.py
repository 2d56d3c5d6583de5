"""A move over whose databases somebody has laid triggers: one side is always left to use.

What lies in the target is put in use, looked at as the boot gate would and taken back before the
source closes; and nothing that could not be opened is ever committed there.
"""

from __future__ import annotations

import pytest

from attacker import Attacker, attacking
from independent_fold import read_rows
from ledgers import OLD, opened
from moves import Route, command, half_made, handed_over, only, states
from secret_ledger import LedgerError

ON_OPENING = "new.event_type = 'generation.opened'"
ON_USE = "new.state IN ('active', 'moved')"

TRIGGERS: dict[str, tuple[str, str, str]] = {
    "it refuses the opening": ("secret_event", ON_OPENING, "refuse"),
    "it refuses that it is in use": ("ledger_head", ON_USE, "refuse"),
    "it damages the control stream": (
        "ledger_head",
        ON_USE,
        "UPDATE secret_event SET metadata = '{}' WHERE stream = '$ledger' AND version = 1",
    ),
    "it takes the opening out again": (
        "ledger_head",
        ON_USE,
        "DELETE FROM secret_event WHERE event_type = 'generation.opened'",
    ),
    "it adds a key": (
        "secret_event",
        ON_OPENING,
        "INSERT INTO ledger_key (key_id, key_fingerprint)"
        " SELECT 'k-other', metadata_hash FROM (SELECT prev_hash AS metadata_hash"
        " FROM secret_event WHERE position = 2) AS p",
    ),
    "it sets the ledger's name": (
        "secret_event",
        ON_OPENING,
        "UPDATE ledger_meta SET format = 0",
    ),
}


async def laid(attacker: Attacker, url: str, name: str) -> None:
    table, when, act = TRIGGERS[name]
    event = "INSERT" if table == "secret_event" else "UPDATE"
    if url.startswith("sqlite"):
        body = "SELECT RAISE(ABORT, 'no')" if act == "refuse" else act
        await attacker.sql(
            f"CREATE TRIGGER meddles AFTER {event} ON {table} WHEN {when} BEGIN {body}; END"
        )
        return
    body = "RAISE EXCEPTION 'no'" if act == "refuse" else act
    await attacker.sql(
        "CREATE FUNCTION meddles() RETURNS trigger LANGUAGE plpgsql"
        f" SET search_path = secret_ledger AS $$ BEGIN {body}; RETURN NULL; END $$"
    )
    # Put off to the commit, where the database can: nothing that the ledger reads comes later.
    await attacker.sql(
        f"CREATE CONSTRAINT TRIGGER meddles AFTER {event} ON {table}"
        f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION meddles()"
    )


async def taken_away(attacker: Attacker, url: str) -> None:
    if url.startswith("sqlite"):
        await attacker.sql("DROP TRIGGER IF EXISTS meddles")
    else:
        await attacker.sql("DROP FUNCTION meddles() CASCADE")


@only
@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_target_that_would_never_open_is_met_before_the_source_closes(
    route: Route, name: str
) -> None:
    await half_made(route)
    async with attacking(route.target) as attacker:
        await laid(attacker, route.target, name)
    with pytest.raises(LedgerError):
        await command(route, OLD)
    assert await states(route.source) == [(0, "active"), (1, "building")]
    assert await states(route.target) == [(1, "building")]
    async with opened(route.source, OLD) as ledger:
        await ledger.put("often", "goes on")
    async with attacking(route.target) as attacker:
        await taken_away(attacker, route.target)
    assert (await command(route, OLD)).changed
    async with opened(route.target, OLD, verify="full") as ledger:
        assert (await ledger.get("often")).value.reveal() == b"goes on"


@only
@pytest.mark.parametrize("name", ["it damages the control stream", "it adds a key"])
async def test_what_was_laid_after_the_hand_over_keeps_it_from_being_opened_and_spoils_nothing(
    route: Route, name: str
) -> None:
    await handed_over(route)
    async with attacking(route.target) as attacker:
        await laid(attacker, route.target, name)
    with pytest.raises(LedgerError):
        await command(route, OLD)
    assert await states(route.target) == [(1, "building")]
    async with attacking(route.target) as attacker:
        await taken_away(attacker, route.target)
    assert (await command(route, OLD)).changed
    async with opened(route.target, OLD, verify="full"):
        pass


@only
async def test_a_source_that_would_not_say_where_it_moved_to_is_not_closed(route: Route) -> None:
    await half_made(route)
    async with attacking(route.source) as attacker:
        await laid(attacker, route.source, "it damages the control stream")
    with pytest.raises(LedgerError):
        await command(route, OLD)
    async with attacking(route.source) as attacker:
        await taken_away(attacker, route.source)
    assert await states(route.source) == [(0, "active"), (1, "building")]
    rows = await read_rows(
        route.source, "SELECT count(*) FROM secret_event WHERE event_type = 'generation.closed'"
    )
    assert int(rows[0][0]) == 0
    assert (await command(route, OLD)).changed
