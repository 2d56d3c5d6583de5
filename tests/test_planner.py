"""PostgreSQL finds rows by the index that is meant, whatever its statistics say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from attacker import attacking
from inside import Connection, PostgresqlDatabase, Statement
from ledgers import NEW, OLD, opened
from secret_ledger import SecretLedger

SECRETS = 1200


class Enough(Exception):
    pass


async def plan_of(
    ledger: SecretLedger, statement: Statement, given: dict[str, object]
) -> Iterator[dict[str, Any]]:
    """The nodes of a statement's plan, which was carried out."""
    explain = Statement(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}")

    def unit(connection: Connection) -> Any:
        return connection.execute(explain, given).scalar_one()

    (plan,) = await ledger.database.run(unit, "snapshot")
    return nodes(plan["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.parametrize("statistics", [False, True])
async def test_no_look_up_by_name_walks_the_log_without_statistics_or_with_those_of_before(
    postgres_url: str, statistics: bool
) -> None:
    async with opened(postgres_url, OLD) as ledger, attacking(postgres_url) as attacker:
        names = [f"s/{n:05}" for n in range(SECRETS)]
        for _ in range(2):
            await ledger.put_many(dict.fromkeys(names, "x"))
        if statistics:  # of a time when the next generation had no rows
            await attacker.sql("ANALYZE")

        def stop(progress: Any) -> None:
            if progress.done >= 2 * SECRETS:
                raise Enough

        await ledger.rotate(NEW)
        with pytest.raises(Enough):
            await ledger.migrate(on_progress=stop)
        database = ledger.database
        assert isinstance(database, PostgresqlDatabase)
        sql, generation = database.statements, 1 if statistics else 0
        one: dict[str, object] = {"stream": names[100]}
        some: dict[str, object] = {"names": names[:50]}
        looked_up: list[tuple[Statement, dict[str, object]]] = [
            (sql.heads_page_from, {"after": names[100]}),
            (sql.heads_page_after, {"after": names[100]}),
            (sql.check_page, {"after": 900, "unstated": 0}),
            (sql.check_page, {"after": 900, "unstated": 1}),
            (sql.newest_of, {**one, "least": 1}),
            (sql.stream_page_down, {**one, "least": 1, "below": 2}),
            (sql.stream_page, {**one, "after": 0}),
            (sql.event_of_version, {**one, "version": 1}),
            (sql.head_and_events, {"control": "$ledger", "seen": 900, "marked": 800}),
            (database._locked, some),
            (database._heads_of, some),
            (database._hashes_of, {"streams": names[:50], "versions": [1] * 50}),
        ]
        if statistics:  # without any it takes a sort of the whole for the cheaper way
            looked_up.append((sql.by_stream_page, {**one, "version": 0}))
        for statement, given in looked_up:
            place = {"generation": generation, "bound": 2 * SECRETS, "limit": 50}
            for node in await plan_of(ledger, statement, {**place, **given}):
                rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                assert node["Actual Loops"] * rows <= 200, (statement.sql, node)
