"""What an error says to whoever meets it in a traceback."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable

import pytest

from inside import Key, Keyring
from ledgers import OLD
from secret_ledger import KeyFingerprintMismatch, LedgerError, NoStableKey, SecretLedger


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def test_the_traceback_of_a_refused_boot_says_which_node_and_the_way_out(
    database_url: str,
) -> None:
    async with SecretLedger.open(database_url, Keyring.of(OLD)):
        pass
    with pytest.raises(KeyFingerprintMismatch) as caught:
        async with SecretLedger.open(database_url, Keyring.of(Key.generate()), node="web-3"):
            pass
    assert "refused on node web-3 (pid " in shown(caught.value)
    assert f"hint: {caught.value.hint}" in shown(caught.value)
    assert "OS_SECRET_PREVIOUS_KEYS" in caught.value.hint


def test_without_a_key_the_traceback_says_what_to_paste() -> None:
    with pytest.raises(NoStableKey) as caught:
        Keyring.from_env({})
    assert "hint: if the ledger exists, give this process its key" in shown(caught.value)
    assert "export OS_SECRET_KEY=" in shown(caught.value)


def test_an_error_without_a_hint_adds_nothing() -> None:
    assert "hint" not in shown(LedgerError("something is wrong"))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_a_copy_says_its_hint_once(again: Callable[[LedgerError], LedgerError]) -> None:
    error = again(LedgerError("something is wrong", hint="mend it"))
    assert shown(error).count("hint: mend it") == 1
