"""Writing and reading secrets: versions, expectations, ends and beginnings, on each database."""

from __future__ import annotations

from typing import Any

import pytest

from ledgers import OLD, opened
from secret_ledger import (
    InvalidName,
    InvalidValue,
    LedgerError,
    Secret,
    SecretDeleted,
    SecretDestroyed,
    SecretInfo,
    SecretLedger,
    SecretNotFound,
    ValueTooLarge,
    VersionConflict,
)

MIB = 1024 * 1024


async def revealed(ledger: SecretLedger, name: str, **which: Any) -> bytes:
    return (await ledger.get(name, **which)).value.reveal()


async def listed(ledger: SecretLedger, prefix: str = "", *, deleted: bool = False) -> list[str]:
    return [info.name async for info in ledger.list(prefix, deleted=deleted)]


async def history(ledger: SecretLedger, name: str) -> list[SecretInfo]:
    return [info async for info in ledger.history(name)]


async def test_a_secret_is_read_as_it_was_written(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        put = await ledger.put("a/b", "s3cr3t é", actor="alice", metadata={"ticket": 7}, expect=0)
        got = await ledger.get("a/b")
        assert got == put
        assert got.value.reveal_text() == "s3cr3t é"
        assert (got.name, got.version, got.event_type, got.state) == (
            "a/b", 1, "secret.written", "live",
        )  # fmt: skip
        assert (got.actor, got.metadata, got.reason) == ("alice", {"ticket": 7}, None)
        assert (got.key_id, got.key_fingerprint, got.position) == (
            "k-old", OLD.for_ledger(bytes.fromhex(ledger.ledger_id)).fingerprint, 4,
        )  # fmt: skip
        assert got.recorded_at.utcoffset() is not None
    async with opened(database_url, OLD) as ledger:
        assert await ledger.get("a/b") == put


@pytest.mark.parametrize(
    "value",
    ["", b"", "text", b"\x00\xff", bytearray(b"x"), memoryview(b"m"), Secret("s")],
    ids=["no-text", "no-bytes", "text", "bytes", "bytearray", "memoryview", "secret"],
)
async def test_values_are_text_bytes_or_secrets_and_may_be_empty(
    sqlite_url: str, value: Any
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", value)
        assert (await ledger.get("a")).value == Secret(value)


@pytest.mark.parametrize("value", [None, 1, ["a"], {"a": 1}, "\ud800", object], ids=repr)
async def test_anything_else_is_no_value(sqlite_url: str, value: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises(InvalidValue):
            await ledger.put("a", value)
        with pytest.raises(InvalidValue):
            await ledger.put_many({"b": "1", "a": value})
        assert await listed(ledger) == []


async def test_each_put_is_the_next_version_and_earlier_ones_stay(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        versions = [(await ledger.put("a", f"{n}")).version for n in (1, 2, 3)]
        assert versions == [1, 2, 3]
        assert [await revealed(ledger, "a", version=v) for v in versions] == [b"1", b"2", b"3"]
        assert await revealed(ledger, "a") == b"3"
        assert [i.version for i in await history(ledger, "a")] == versions
        for version in (0, 4, 2**62, 2**70):
            with pytest.raises(SecretNotFound):
                await ledger.get("a", version=version)


async def test_names_that_differ_in_unicode_form_only_are_one_secret(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("cafe\u0301", "1")
        assert (await ledger.put("caf\u00e9", "2")).version == 2
        assert await revealed(ledger, "cafe\u0301", version=1) == b"1"
        assert await listed(ledger, "cafe\u0301") == ["caf\u00e9"]
        with pytest.raises(InvalidName, match="twice"):
            await ledger.put_many([("cafe\u0301", "x"), ("caf\u00e9", "y")])


async def test_expect_states_what_the_caller_saw(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for expect in (1, 2):
            with pytest.raises(VersionConflict):
                await ledger.put("a", "x", expect=expect)
        await ledger.put("a", "1", expect=0)
        for expect in (0, 2, 2**70):
            with pytest.raises(VersionConflict) as caught:
                await ledger.put("a", "x", expect=expect)
            assert caught.value.details == {"stream": "a", "expected": expect, "version": 1}
        assert (await ledger.put("a", "2", expect=1)).version == 2
        assert (await ledger.put("a", "3", expect=None)).version == 3
        with pytest.raises(VersionConflict):
            await ledger.delete("a", expect=2)
        assert (await ledger.delete("a", expect=3)).version == 4


async def test_over_a_tombstone_its_own_version_is_stated(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.delete("a")
        for expect in (0, 1):
            with pytest.raises(VersionConflict):
                await ledger.put("a", "x", expect=expect)
            with pytest.raises(VersionConflict):
                await ledger.restore("a", expect=expect)
        assert (await ledger.put("a", "3", expect=2)).version == 3
        await ledger.destroy("a", reason="r")
        with pytest.raises(VersionConflict):
            await ledger.put("a", "x", expect=0)
        assert (await ledger.put("a", "5", expect=4)).version == 5


@pytest.mark.parametrize("bad", [-1, True, "1", 1.0], ids=repr)
async def test_versions_and_expectations_are_whole_numbers(sqlite_url: str, bad: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        calls = [
            ledger.put("a", "x", expect=bad),
            ledger.delete("a", expect=bad),
            ledger.restore("a", expect=bad),
            ledger.restore("a", bad),
            ledger.get("a", version=bad),
            ledger.put_many([("a", "x", bad)]),
        ]
        for call in calls:
            with pytest.raises(InvalidValue):
                await call
        assert await revealed(ledger, "a") == b"1"


async def test_a_deleted_secret_keeps_its_history_and_can_be_restored(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(SecretNotFound):
            await ledger.delete("a")
        await ledger.put("a", "1")
        await ledger.put("a", "2")
        gone = await ledger.delete("a", actor="bob", metadata={"why": "old"})
        assert (gone.version, gone.state, gone.actor) == (3, "deleted", "bob")
        for call in (ledger.get("a"), ledger.get("a", version=3), ledger.delete("a")):
            with pytest.raises(SecretDeleted):
                await call
        assert await revealed(ledger, "a", version=1) == b"1"
        assert await listed(ledger) == []
        assert await listed(ledger, deleted=True) == ["a"]

        back = await ledger.restore("a", actor="carol")
        assert (back.version, back.event_type, back.actor) == (4, "secret.restored", "carol")
        assert await revealed(ledger, "a") == b"2"
        with pytest.raises(VersionConflict, match="nothing to restore"):
            await ledger.restore("a")
        await ledger.delete("a")
        await ledger.restore("a", 1)
        assert await revealed(ledger, "a") == b"1"
        states = [i.state for i in await history(ledger, "a")]
        assert states == ["live", "live", "deleted", "live", "deleted", "live"]


async def test_only_a_version_with_a_value_can_be_restored(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(SecretNotFound):
            await ledger.restore("a")
        await ledger.put("a", "1")
        await ledger.delete("a")
        await ledger.restore("a")
        await ledger.delete("a")
        for version in (0, 2, 4, 5, 99, 2**70):
            with pytest.raises(SecretNotFound):
                await ledger.restore("a", version)
        await ledger.restore("a", 3)
        assert await revealed(ledger, "a") == b"1"


async def test_a_destroyed_secret_gives_no_version_ever_again(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(SecretNotFound):
            await ledger.destroy("a", reason="r")
        await ledger.put("a", "1")
        end = await ledger.destroy("a", reason="leaked", actor="dora")
        assert (end.version, end.state, end.reason, end.actor) == (2, "destroyed", "leaked", "dora")
        for call in (
            ledger.get("a"), ledger.get("a", version=1), ledger.get("a", version=2),
            ledger.get("a", at=end.recorded_at), ledger.delete("a"), ledger.restore("a"),
            ledger.restore("a", 1), ledger.destroy("a", reason="again"),
        ):  # fmt: skip
            with pytest.raises(SecretDestroyed):
                await call

        assert (await ledger.put("a", "3")).version == 3
        assert await revealed(ledger, "a") == b"3"
        with pytest.raises(SecretDestroyed):
            await ledger.get("a", version=1)
        await ledger.delete("a")
        with pytest.raises(SecretDestroyed):
            await ledger.restore("a", 1)
        await ledger.restore("a")
        assert await revealed(ledger, "a") == b"3"
        assert (await ledger.verify("full")).ok


@pytest.mark.parametrize("reason", ["", "  ", None, 1])
async def test_a_destruction_states_its_reason(sqlite_url: str, reason: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        await ledger.put("a", "1")
        with pytest.raises(InvalidValue):
            await ledger.destroy("a", reason=reason)


async def test_the_bounds_are_1_mib_a_value_and_16_mib_a_call(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", b"x" * MIB)
        with pytest.raises(ValueTooLarge):
            await ledger.put("a", b"x" * (MIB + 1))
        with pytest.raises(ValueTooLarge):
            await ledger.put("a", "é" * (MIB // 2 + 1))
        many: dict[str, str | bytes | Secret] = {f"m/{n}": b"x" * MIB for n in range(16)}
        await ledger.put_many(many)
        with pytest.raises(ValueTooLarge):
            await ledger.put_many({**many, "one-more": "y"})
        with pytest.raises(ValueTooLarge):
            await ledger.put_many([("small", "1"), ("large", b"x" * (MIB + 1))])
        assert len(await revealed(ledger, "m/15")) == MIB
        assert len(await listed(ledger)) == 17


async def test_the_caller_s_metadata_can_t_pose_as_the_ledger_s(database_url: str) -> None:
    posing = {"ledger": {"of": 1, "state": "destroyed", "unopened": True}, "actor": "root"}
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1", metadata=posing, actor="alice")
        got = await ledger.get("a")
        assert (got.metadata, got.actor, got.state) == (posing, "alice", "live")
        assert (await history(ledger, "a"))[0].metadata == posing


@pytest.mark.parametrize(
    "options",
    [{"actor": 1}, {"actor": "\ud800"}, {"metadata": {"a": float("nan")}}, {"metadata": {1: 2}},
     {"metadata": {"a": "x" * 5000}}, {"metadata": "text"}],
    ids=repr,
)  # fmt: skip
async def test_a_bad_actor_or_metadata_is_its_caller_s_error_alone(
    sqlite_url: str, options: dict[str, Any]
) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        with pytest.raises((InvalidValue, ValueTooLarge)):
            await ledger.put("a", "1", **options)
        await ledger.put("a", "1")
        with pytest.raises((InvalidValue, ValueTooLarge)):
            await ledger.delete("a", **options)
        assert (await ledger.put("a", "2")).position == 5


@pytest.mark.parametrize("name", ["", "/a", "a//b", "$ledger", "a\x00", "a\ud800", "a" * 513, None])
async def test_a_bad_name_is_refused_by_every_call(sqlite_url: str, name: Any) -> None:
    async with opened(sqlite_url, OLD) as ledger:
        for call in (
            ledger.put(name, "x"), ledger.put_many([(name, "x")]), ledger.get(name),
            ledger.delete(name), ledger.restore(name), ledger.destroy(name, reason="r"),
        ):  # fmt: skip
            with pytest.raises(InvalidName):
                await call
        with pytest.raises(LedgerError):
            await history(ledger, name)
