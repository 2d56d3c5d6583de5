"""Every call of the API, given any wrong value, ends in its result or in an error of ours."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, cast

import pytest

from inside import readiness
from leaks import shown_by
from ledgers import OLD, opened
from secret_ledger import (
    InvalidKey,
    InvalidValue,
    Key,
    Keyring,
    LedgerError,
    Secret,
    SecretLedger,
    open_unverified,
)

SECRET: Final = "hunter2-canary"
WRONG: Final[dict[str, object]] = {
    "minus one": -1,
    "zero": 0,
    "five": 5,
    "a huge number": 2**70,
    "a fraction": 1.5,
    "a tiny fraction": 1e-300,
    "a huge fraction": 1e300,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "a bool": True,
    "an empty text": "",
    "a text": SECRET,
    "a NUL": "a\0b",
    "a surrogate": "\ud800",
    "bytes": b"x",
    "an empty list": [],
    "a list of texts": [["a", "b"]],
    "a tuple too short": [("a",)],
    "a tuple too long": [("a", "b", 1, 2)],
    "a mapping": {"a": object()},
    "a mapping of numbers": {1: 2},
    "an object": object(),
    "a class": datetime,
    "a naive time": datetime(2026, 1, 1),  # noqa: DTZ001  # that is what is wrong with it
    "a duration": timedelta(seconds=1),
    "a function": len,
}
Call = Callable[[SecretLedger, Any], Any]
CALLS: Final[dict[str, Call]] = {
    "put name": lambda ledger, x: ledger.put(x, "v"),
    "put value": lambda ledger, x: ledger.put("b", x),
    "put expect": lambda ledger, x: ledger.put("b", "v", expect=x),
    "put actor": lambda ledger, x: ledger.put("b", "v", actor=x),
    "put metadata": lambda ledger, x: ledger.put("b", "v", metadata=x),
    "put metadata value": lambda ledger, x: ledger.put("b", "v", metadata={"k": x}),
    "put_many items": lambda ledger, x: ledger.put_many(x),
    "put_many item": lambda ledger, x: ledger.put_many([x]),
    "put_many name": lambda ledger, x: ledger.put_many([(x, "v")]),
    "put_many value": lambda ledger, x: ledger.put_many([("b", x)]),
    "put_many expect": lambda ledger, x: ledger.put_many([("b", "v", x)]),
    "put_many actor": lambda ledger, x: ledger.put_many({"b": "v"}, actor=x),
    "get name": lambda ledger, x: ledger.get(x),
    "get version": lambda ledger, x: ledger.get("a", version=x),
    "get at": lambda ledger, x: ledger.get("a", at=x),
    "delete name": lambda ledger, x: ledger.delete(x),
    "delete expect": lambda ledger, x: ledger.delete("none", expect=x),
    "delete actor": lambda ledger, x: ledger.delete("none", actor=x),
    "delete metadata": lambda ledger, x: ledger.delete("none", metadata=x),
    "restore name": lambda ledger, x: ledger.restore(x),
    "restore version": lambda ledger, x: ledger.restore("gone", x),
    "restore expect": lambda ledger, x: ledger.restore("none", expect=x),
    "restore actor": lambda ledger, x: ledger.restore("none", actor=x),
    "restore metadata": lambda ledger, x: ledger.restore("none", metadata=x),
    "destroy name": lambda ledger, x: ledger.destroy(x, reason="r"),
    "destroy reason": lambda ledger, x: ledger.destroy("none", reason=x),
    "destroy actor": lambda ledger, x: ledger.destroy("none", reason="r", actor=x),
    "history name": lambda ledger, x: ledger.history(x),
    "list prefix": lambda ledger, x: ledger.list(x),
    "list deleted": lambda ledger, x: ledger.list(deleted=x),
    "verify level": lambda ledger, x: ledger.verify(x),
    "rotate key": lambda ledger, x: ledger.rotate(x),
    "rotate actor": lambda ledger, x: ledger.rotate(actor=x),
    "rotate reason": lambda ledger, x: ledger.rotate(force_reason=x),
    "rekey actor": lambda ledger, x: ledger.rekey(actor=x),
    "retire key": lambda ledger, x: ledger.retire(x),
    "retire actor": lambda ledger, x: ledger.retire("none", actor=x),
    "lost key": lambda ledger, x: ledger.lost(x, reason="r"),
    "lost reason": lambda ledger, x: ledger.lost("none", reason=x),
    "lost actor": lambda ledger, x: ledger.lost("none", reason="r", actor=x),
    "loss key": lambda ledger, x: ledger.loss(x),
    "migrate target": lambda ledger, x: ledger.migrate(x, dry_run=True),
    "migrate schema": lambda ledger, x: ledger.migrate(target_schema=x, dry_run=True),
    "migrate actor": lambda ledger, x: ledger.migrate(actor=x, dry_run=True),
    "migrate reason": lambda ledger, x: ledger.migrate(force_reason=x, dry_run=True),
    "abandon target": lambda ledger, x: ledger.abandon_migration(x),
    "abandon schema": lambda ledger, x: ledger.abandon_migration(target_schema=x),
    "purge generation": lambda ledger, x: ledger.purge_generation(x),
    "purge actor": lambda ledger, x: ledger.purge_generation(0, actor=x),
    "reload_keys": lambda ledger, x: ledger.reload_keys(x),
    "health within": lambda ledger, x: ledger.health(within=x),
    "readiness within": lambda ledger, x: readiness(ledger, within=x),
    "readiness age": lambda ledger, x: readiness(ledger, max_age=x),
}
KEYS: Final[dict[str, Callable[[Any], object]]] = {
    "Keyring": Keyring,
    "Keyring.of": Keyring.of,
    "Keyring.of previous": lambda x: Keyring.of(OLD, x),
    "Keyring.of one previous": lambda x: Keyring.of(OLD, [x]),
    "Key.parse": Key.parse,
    "Key.parse id": lambda x: Key.parse(OLD.text(), x),
    "Key.generate": Key.generate,
    "Key.from_bytes": Key.from_bytes,
}
OPTIONS: Final = (
    "keyring", "verify", "ledger_id", "schema", "node", "projections", "watch_keys", "heartbeat",
    "patience", "scrub_rate", "max_staleness", "when_stale", "view_bytes",
)  # fmt: skip


async def _to_its_end(answer: Any) -> None:
    if isinstance(answer, AsyncIterator):
        async for _ in answer:
            pass
    elif isinstance(answer, Awaitable):
        await answer


async def _untyped(name: str, call: Callable[[], Any]) -> str | None:
    """What a call ended in that is none of ours, or shows what it was given."""
    try:
        await _to_its_end(call())
    except LedgerError as error:
        private = name.startswith(("Key", "keyring", "put value", "put_many value", "rotate key"))
        return f"{name}: shows it" if private and SECRET in shown_by(error) else None
    except Exception as error:  # noqa: BLE001  # what is looked for
        return f"{name}: {type(error).__name__}: {error}"
    return None


def _all_typed(found: Iterable[str | None]) -> None:
    untyped = [one for one in found if one]
    assert not untyped, "\n".join(untyped)


async def test_no_call_of_a_ledger_ends_untyped(database_url: str) -> None:
    found: list[str | None] = []
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        await ledger.put("gone", "1")
        await ledger.delete("gone")
        for name, call in CALLS.items():
            for kind, value in WRONG.items():
                found.append(
                    await _untyped(
                        f"{name} = {kind}",
                        lambda call=call, value=value: call(ledger, value),  # type: ignore[misc]
                    )
                )
        assert (await ledger.get("a")).value.reveal() == b"1"
    _all_typed(found)


async def test_no_option_of_open_ends_untyped(database_url: str) -> None:
    async with opened(database_url, OLD):
        pass
    found: list[str | None] = []

    async def enter(url: Any, keyring: Any, **options: Any) -> None:
        async with SecretLedger.open(url, keyring, **options) as ledger:
            await ledger.get("none")

    async def look(url: Any, **options: Any) -> None:
        async with open_unverified(url, **options):
            pass

    for kind, value in WRONG.items():
        for name in OPTIONS:
            given = {"keyring": Keyring.of(OLD), name: value}
            found.append(
                await _untyped(f"{name} = {kind}", lambda given=given: enter(database_url, **given))  # type: ignore[misc]
            )
        others = (
            lambda value=value: enter(value, Keyring.of(OLD)),
            lambda value=value: SecretLedger.init(value, Keyring.of(OLD)),
            lambda value=value: SecretLedger.init(database_url, value),
            lambda value=value: look(value),
            lambda value=value: look(database_url, schema=value),
        )
        found += [await _untyped(f"a URL, or keys = {kind}", other) for other in others]
    _all_typed(found)


async def test_no_way_to_make_a_key_or_a_keyring_ends_untyped() -> None:
    found = [
        await _untyped(f"{name} = {kind}", lambda call=call, value=value: call(value))  # type: ignore[misc]
        for name, call in KEYS.items()
        for kind, value in WRONG.items()
    ]
    _all_typed(found)


class Gives:
    """A key provider that gives something else than a keyring."""

    def __init__(self, answer: object) -> None:
        self._answer = Secret(answer) if isinstance(answer, str) else answer

    async def keyring(self) -> Any:
        return self._answer.reveal_text() if isinstance(self._answer, Secret) else self._answer


class GivesAtOnce(Gives):
    """One whose method is no coroutine."""

    def keyring(self) -> Any:
        return self._answer.reveal_text() if isinstance(self._answer, Secret) else self._answer


@pytest.mark.parametrize("kind", [Gives, GivesAtOnce])
async def test_a_provider_that_gives_no_keyring_is_named_and_no_key_shows(
    database_url: str, kind: type[Gives]
) -> None:
    key = OLD.text().reveal_text()
    async with opened(database_url, OLD) as ledger:
        for answer in (key, None, OLD, [OLD], 5):
            provider = kind(answer)
            for call in (
                lambda provider=provider: _opening(database_url, provider),
                lambda provider=provider: ledger.reload_keys(provider),
                lambda provider=provider: SecretLedger.init(database_url, provider),
            ):
                with pytest.raises(InvalidKey, match=kind.__name__) as caught:
                    await call()
                assert key not in shown_by(caught.value)
        assert ledger.keyring.current == OLD


async def _opening(url: str, keyring: Any) -> None:
    async with SecretLedger.open(url, keyring):
        pass


async def test_a_key_s_text_for_a_keyring_or_a_key_is_in_no_frame(database_url: str) -> None:
    key = OLD.text().reveal_text()
    async with opened(database_url, OLD) as ledger:
        for call in (
            lambda: _opening(database_url, key),
            lambda: SecretLedger.init(database_url, cast(Any, key)),
            lambda: ledger.reload_keys(cast(Any, key)),
            lambda: ledger.rotate(cast(Any, key)),
        ):
            with pytest.raises(InvalidKey) as caught:
                await cast(Any, call())
            assert key not in shown_by(caught.value)
    for make in (Keyring.of, Keyring):
        for given in ((key,), (OLD, key), (OLD, [key])):
            with pytest.raises(InvalidKey, match="a Keyring takes a current Key") as caught:
                make(*cast(Any, given))
            assert key not in shown_by(caught.value)


async def test_put_many_says_what_an_item_must_be(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for items, said in (
            ([["a", "1"]], r"^item 1 of put_many .*\(name, value\[, expect\]\); not list"),
            ([("a", "1"), ("b",)], r"^item 2 of put_many .* not a tuple of 1"),
            ([("a", "1", 0, None)], r"^item 1 of put_many .* not a tuple of 4"),
            ("ab", r"^put_many takes a mapping of names to values, or tuples .* not str"),
            (None, r"^put_many takes .* not NoneType"),
        ):
            with pytest.raises(InvalidValue, match=said) as caught:
                await ledger.put_many(cast(Any, items))
            assert "tuple(item)" in caught.value.hint
        assert [one async for one in ledger.list()] == []
