"""Many secrets at once: all of them or none; and the listings over them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from attacker import attacking
from ledgers import OLD, opened, rows
from secret_ledger import (
    InvalidName,
    InvalidValue,
    LedgerUnavailable,
    SecretLedger,
    SecretNotFound,
    VersionConflict,
)


async def listed(ledger: SecretLedger, prefix: str = "", *, deleted: bool = False) -> list[str]:
    return [info.name async for info in ledger.list(prefix, deleted=deleted)]


async def test_many_secrets_are_one_transaction_in_order(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        written = await ledger.put_many([("b", "1"), ("a", "2", 0), ("c", b"3", None)], actor="al")
        assert [(w.name, w.version, w.position) for w in written] == [
            ("b", 1, 4), ("a", 1, 5), ("c", 1, 6),
        ]  # fmt: skip
        assert {w.actor for w in written} == {"al"}
        assert len({w.recorded_at for w in written}) == 1
        assert [await ledger.get(w.name) for w in written] == list(written)
        assert await ledger.put_many({}) == []
        assert await ledger.put_many(iter([("d", "4")])) == [await ledger.get("d")]


@pytest.mark.parametrize("count", [2, 300])
async def test_rows_that_a_foreign_trigger_takes_away_end_the_write(
    database_url: str, count: int
) -> None:
    async with opened(database_url, OLD) as ledger, attacking(database_url) as attacker:
        if database_url.startswith("sqlite"):
            await attacker.sql(
                "CREATE TRIGGER taking BEFORE INSERT ON secret_event WHEN NEW.stream = 'n/1' BEGIN"
                " SELECT RAISE(IGNORE); END"
            )
        else:
            await attacker.sql(
                "CREATE FUNCTION taking() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF NEW.stream = 'n/1' THEN RETURN NULL; END IF; RETURN NEW; END $$"
            )
            await attacker.sql(
                "CREATE TRIGGER taking BEFORE INSERT ON secret_event"
                " FOR EACH ROW EXECUTE FUNCTION taking()"
            )
        before = ledger.position
        with pytest.raises(LedgerUnavailable, match="another number of events"):
            await ledger.put_many({f"n/{n}": "x" for n in range(count)})
        assert ledger.position == before
        assert await listed(ledger) == []


async def test_a_conflict_of_the_last_item_refuses_them_all(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("z", "1")
        before = await rows(database_url, "ledger_node")
        items = [(f"n/{n}", "x") for n in range(700)]
        with pytest.raises(VersionConflict) as caught:
            await ledger.put_many([*items, ("z", "2", 7)])
        assert caught.value.details["stream"] == "z"
        assert await rows(database_url, "ledger_node") == before
        assert (await ledger.put("after", "x")).position == 5  # no position was taken


async def test_a_call_larger_than_a_batch_is_still_one_transaction(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        written = await ledger.put_many([(f"n/{n:04}", f"{n}") for n in range(1300)])
        assert [w.position for w in written] == list(range(4, 1304))
        assert len(await listed(ledger)) == 1300
        assert (await ledger.get("n/1299")).value.reveal() == b"1299"
        assert (await ledger.verify("full")).ok


async def test_a_name_stands_once_in_a_call(sqlite_url: str) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises(InvalidName, match="twice"):
            await ledger.put_many([("a", "1"), ("b", "2"), ("a", "3")])
        assert await listed(ledger) == []


@pytest.mark.parametrize(
    "items", [["a"], [("a",)], [("a", "1", 0, "x")], ["ab"], [["a", "1"]], [None]], ids=repr
)
async def test_an_item_of_another_shape_is_an_invalid_value(sqlite_url: str, items: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises(InvalidValue):
            await ledger.put_many(items)
        assert await listed(ledger) == []


async def test_a_conflict_in_a_shared_batch_is_its_caller_s_alone(database_url: str) -> None:
    """One conflict in a shared batch failed every writer in it; here each gets its own outcome,
    and a refused one takes no version and no position."""
    async with opened(database_url, OLD) as ledger:
        outcomes = await asyncio.gather(
            *(ledger.put("same", f"{n}", expect=0) for n in range(20)),
            *(ledger.put(f"own/{n}", f"{n}") for n in range(20)),
            ledger.put_many([("own/x", "1"), ("same", "2", 0)]),
            return_exceptions=True,
        )
        won = [o for o in outcomes if not isinstance(o, BaseException)]
        assert {type(o) for o in outcomes if isinstance(o, BaseException)} == {VersionConflict}
        assert len(won) == 21
        assert len([i async for i in ledger.history("same")]) == 1
        with pytest.raises(SecretNotFound):
            await ledger.get("own/x")
        assert ledger.position == 3 + 21
        assert (await ledger.verify("full")).ok


async def test_calls_behind_one_another_see_what_was_written_before_them(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        steps = await asyncio.gather(
            ledger.put("a", "1", expect=0),
            ledger.delete("a", expect=1),
            ledger.put("a", "3", expect=2),
            ledger.put("a", "4", expect=3),
            ledger.delete("a"),
            ledger.destroy("a", reason="r"),
            ledger.put("a", "7", expect=6),
        )
        assert [s.version for s in steps] == list(range(1, 8))
        assert (await ledger.get("a")).value.reveal() == b"7"
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def test_restores_beside_one_another_and_other_writes_each_build_on_what_is_there(
    database_url: str,
) -> None:
    """A restore reads what it writes before it takes the lock, and again if that has changed."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        for _ in range(3):
            outcomes = await asyncio.gather(
                ledger.delete("a"),
                *(ledger.restore("a") for _ in range(3)),
                ledger.put("b", "x"),
                return_exceptions=True,
            )
            assert {type(o).__name__ for o in outcomes if isinstance(o, BaseException)} <= {
                "VersionConflict"
            }
            if (await anext(ledger.list("a", deleted=True))).state == "deleted":
                await ledger.restore("a")
            assert (await ledger.get("a")).value.reveal() == b"1"
        report = await ledger.verify("full")
        assert report.ok, report.findings


async def test_a_restore_behind_a_destroy_of_the_same_batch_finds_nothing(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        outcomes = await asyncio.gather(
            ledger.put("a", "1"),
            ledger.destroy("a", reason="r"),
            ledger.put("a", "3"),
            ledger.delete("a"),
            ledger.restore("a", 1),
            return_exceptions=True,
        )
        assert type(outcomes[-1]).__name__ == "SecretDestroyed"
        await ledger.restore("a")
        assert (await ledger.get("a")).value.reveal() == b"3"


async def test_metadata_is_taken_as_it_is_at_the_call(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        note: dict[str, Any] = {"ticket": 1, "tags": ["x"]}
        call = asyncio.ensure_future(ledger.put("a", "1", metadata=note))
        await asyncio.sleep(0)  # the call has begun, and waits for its turn
        note["tags"].append(object())
        note.update({str(n): n for n in range(5000)})
        await call
        assert (await ledger.get("a")).metadata == {"ticket": 1, "tags": ["x"]}


# --- listings ------------------------------------------------------------------------------


async def test_secrets_are_listed_in_order_of_bytes_by_prefix_and_state(
    database_url: str,
) -> None:
    names = ["B", "a", "a/1", "a/2", "a0", "ab", "b", "z", "é", "\U0001f511"]
    async with opened(database_url, OLD) as ledger:
        await ledger.put_many([(n, "x") for n in reversed(names)])
        assert await listed(ledger) == sorted(names, key=str.encode) == names
        assert await listed(ledger, "a") == ["a", "a/1", "a/2", "a0", "ab"]
        assert await listed(ledger, "a/") == ["a/1", "a/2"]
        assert await listed(ledger, "c") == []
        assert await listed(ledger, "\U0001f511") == ["\U0001f511"]
        await ledger.delete("a/1")
        await ledger.destroy("a/2", reason="r")
        assert await listed(ledger, "a/") == []
        assert [i.state async for i in ledger.list("a/", deleted=True)] == ["deleted", "destroyed"]
        with pytest.raises(InvalidName):
            await listed(ledger, "$")


async def test_a_history_is_of_one_secret_and_in_order_over_many_pages(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await asyncio.gather(*(ledger.put("a", f"{n}") for n in range(1100)))
        await ledger.put("ab", "x")
        assert [i.version async for i in ledger.history("a")] == list(range(1, 1101))
        with pytest.raises(SecretNotFound):
            _ = [i async for i in ledger.history("none")]


async def test_listings_hold_no_value_and_read_no_seal(database_url: str) -> None:
    """kubernetes#86489, #60345: one undecryptable object breaks LIST."""
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        info = await anext(aiter(ledger.list()))
        assert not hasattr(info, "value")
        assert info == await anext(aiter(ledger.history("a")))
