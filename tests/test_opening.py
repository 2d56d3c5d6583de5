"""What `open` takes, and what `verify="full"` proves before it hands the ledger out."""

from __future__ import annotations

import traceback
from typing import Any, cast

import pytest
from sqlalchemy import text

from inside import connect
from ledgers import OLD, lines, opened, refused
from secret_ledger import InvalidKey, InvalidValue, SecretLedger, TamperedEvent


async def change_projection(url: str) -> None:
    database = connect(url)
    statement = f"UPDATE {database.statements.prefix}secret_current SET updated_by = 'mallory'"  # noqa: S608  # its name
    try:
        await database.run(lambda c: c.execute(text(statement)), "write")
    finally:
        await database.close()


async def test_a_full_open_refuses_a_projection_that_the_log_does_not_fold_to(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1", actor="alice")
    await change_projection(database_url)
    for level in ("control", "latest"):
        async with opened(database_url, OLD, verify=level):
            pass
    for read_only in (False, True):
        error = await refused(database_url, TamperedEvent, OLD, verify="full", read_only=read_only)
        assert "sys_secret: a: updated_by is 'mallory', not 'alice'" in error.message
        assert "projections rebuild" in error.hint
        assert "backup" not in error.hint  # no event is damaged
    assert await lines(database_url) == []  # the refused one no longer poses as live


async def test_a_full_open_folds_first_what_was_written_without_the_projection(
    database_url: str,
) -> None:
    async with opened(database_url, OLD, projections=()) as ledger:
        await ledger.put("a", "1")
    async with opened(database_url, OLD, verify="full", read_only=True):
        pass  # it can't fold, and what is merely behind is no damage
    async with opened(database_url, OLD, verify="full") as ledger:
        assert (await ledger.verify("full")).ok


async def test_full_and_latest_count_the_same_secrets(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many({"a": "1", "b": "1", "c": "1"})
        await ledger.put("a", "2")
        await ledger.delete("b")
        latest, full = await ledger.verify("latest"), await ledger.verify("full")
        assert (latest.heads, full.heads) == (3, 3)
        assert (latest.events, full.events) == (3, 8)


async def test_a_level_that_there_is_not_is_refused_not_taken_for_another(
    database_url: str,
) -> None:
    error = await refused(database_url, InvalidValue, OLD, verify="Latest")
    assert "control, incremental, latest, full" in error.message
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(InvalidValue):
            await ledger.verify(cast(Any, "all"))


async def test_a_key_s_text_in_place_of_a_keyring_is_refused_and_not_repeated(
    database_url: str,
) -> None:
    key = OLD.text().reveal_text()
    with pytest.raises(InvalidKey, match="a Keyring or a KeyProvider, not str") as caught:
        async with SecretLedger.open(database_url, cast(Any, key)):
            pass
    assert key not in "".join(traceback.format_exception(caught.value))
    assert "Key.parse" in caught.value.hint
